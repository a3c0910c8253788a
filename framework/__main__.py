"""The door: ``python -m framework``. A known verb is answered at once; anything else is an experiment for Hydra."""

from __future__ import annotations

import os
import sys

VERBS = {
    "plugins": "list the plugins: version, location, health",
    "experiments": "list the experiments with their descriptions",
    "show": "print an experiment's composed config and where each value comes from",
    "resume": "continue a killed or interrupted run, or an unfinished sweep, from its folder",
    "runs": "list and compare runs",
    "new": "write a new plugin package",
    "check": "hold a plugin to the contract",
}

HELP = """\
Launch an experiment:
  python -m framework +experiment=<plugin>/<name> [key=value ...]
  python -m framework -m +experiment=<plugin>/<name> key=value1,value2 ...   (a sweep)

Useful values:
  trainer=cpu|gpu|ddp|ddp_cpu|fsdp   logger=csv|tensorboard|wandb|several
  debug=fast|overfit|profile         sweep=seeds|optuna|parallel

Other commands (each has --help):
{verbs}

Hydra's own help is under --hydra-help; --cfg job prints the composed config; completion: see the README."""


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if "FRAMEWORK_RANK_OF" in os.environ:
        from framework.ranks import run_rank

        return run_rank()
    if not argv or argv[0] in ("-h", "--help", "help"):
        width = max(map(len, VERBS))
        print(HELP.format(verbs="\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())))
        return 0
    from framework.errors import Interrupted, UserError

    if argv[:1] == ["-sc"] and any(a.startswith("query=") for a in argv):
        from framework.completion import complete

        if (found := complete(os.environ.get("COMP_LINE", ""))) is not None:
            print(" ".join(found))
            return 0
    try:
        if argv[0] in VERBS:
            from framework import verbs

            return verbs.run(argv[0], argv[1:])
        if "=" not in argv[0] and not argv[0].startswith(("-", "~", "+")):
            from framework.errors import nearest

            raise UserError(f"{argv[0]!r} is neither a command nor an override `key=value`.{nearest(argv[0], VERBS)}")
        from framework.launch import launch

        return launch(argv)
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"{error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"Interrupted ({stop}).", file=sys.stderr)
        return stop.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
