"""One job on several processes of this machine: started, watched and ended together.

Lightning would have each further process run the whole command line again, sweeps included. Here the parent only
supervises: every process, the first included, is a fresh one that reads the config from the run folder.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from framework.errors import Interrupted, UserError
from framework.record import CONFIG, Record

VARIABLE = "FRAMEWORK_RANK_OF"
GRACE_SECONDS = 60


def count(config: dict[str, Any]) -> int:
    """How many processes of this machine the trainer asks for; 1 where something else launches them."""
    trainer = config["trainer"]
    devices, strategy = trainer.get("devices", 1), trainer.get("strategy", "auto")
    if launched_from_outside() or strategy in ("auto", None):
        return 1
    if isinstance(devices, (list, tuple)):
        return len(devices)
    if devices in ("auto", -1, "-1"):
        import torch

        return max(1, torch.cuda.device_count()) if trainer.get("accelerator") in ("gpu", "cuda", "auto") else 1
    return int(devices)


def launched_from_outside() -> bool:
    """torchrun, srun and the like start the processes themselves and number them."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def global_rank() -> int:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def supervise(run_dir: Path, processes: int) -> None:
    """Start the processes of a run whose config lies in ``run_dir`` and wait for all of them.

    Raises:
        Interrupted: a signal arrived; it was passed on, and the processes have written their checkpoint.
        UserError: a process failed; the others were ended.
    """
    errors = run_dir / "errors"
    for old in errors.glob("rank*.txt"):
        old.unlink()
    environment = {
        **os.environ,
        VARIABLE: str(run_dir),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "NODE_RANK": "0",
    }
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    received: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGTERM, signal.SIGINT):
            handlers[signum] = signal.signal(signum, lambda s, _: received.append(s))
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "framework"],
            env={**environment, "LOCAL_RANK": str(rank)},
            start_new_session=True,  # a Ctrl-C in the terminal reaches us alone, and we pass it on
        )
        for rank in range(processes)
    ]
    try:
        failed = _wait(workers, received)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    if received:
        raise Interrupted(received[0])
    if failed is not None:
        reasons = [path.read_text() for path in sorted(errors.glob("rank*.txt"))]
        why = reasons[0].strip().splitlines()[-1] if reasons else "it left no message"
        raise UserError(
            f"Process {failed} of {processes} ended with exit status {workers[failed].returncode}: {why} (see {errors})"
        )


def _wait(workers: list[subprocess.Popen], received: list[int]) -> int | None:
    """The rank that failed first, or None when all are done. Passes each signal on once."""
    passed, deadline = 0, float("inf")
    while any(worker.poll() is None for worker in workers):
        if len(received) > passed:
            passed, deadline = len(received), time.monotonic() + GRACE_SECONDS
            for worker in workers:
                if worker.poll() is None:
                    worker.send_signal(received[-1])
        if not received:
            for rank, worker in enumerate(workers):
                if worker.poll() not in (None, 0):
                    time.sleep(1.0)  # whoever waits for the failed one may still write why
                    return rank
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    return next((rank for rank, worker in enumerate(workers) if worker.returncode != 0), None)


def run_rank() -> int:
    """The life of one process of a supervised run; its exit status."""
    run_dir = Path(os.environ[VARIABLE])
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    from omegaconf import OmegaConf

    from framework import run

    config = OmegaConf.to_container(OmegaConf.load(run_dir / CONFIG))
    assert isinstance(config, dict)
    try:
        run.stages(config, run_dir, Record.attach(run_dir) if global_rank() == 0 else None)  # type: ignore[arg-type]
        _leave_together()
    except Interrupted as stop:
        return stop.exit_status
    except BaseException:
        path = run_dir / "errors" / f"rank{global_rank()}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(traceback.format_exc())
        traceback.print_exc()
        # the others may be waiting for us inside a collective: leave without the farewells of the process group
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    return 0


def _leave_together() -> None:
    """Whoever leaves first takes its connections along: nobody goes before all are done."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _die_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
