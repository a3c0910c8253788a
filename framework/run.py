"""The life of one run: config, folder, record, seed, objects, stages, metrics."""

from __future__ import annotations

import gc
import logging
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from framework import ranks
from framework.errors import Interrupted, UserError, nearest
from framework.record import CONFIG, RECORD, Record, read_json, write_text

log = logging.getLogger(__name__)


def task(config: DictConfig) -> float | None:
    """What Hydra calls for a single run and for every job of a sweep; returns the optimised metric."""
    from framework import preflight
    from framework.config import Composed

    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    overrides = list(hydra.overrides.task)
    if (earlier := _earlier(run_dir)) is not None:
        if earlier["overrides"] != overrides:
            run_dir.rename(run_dir.with_name(f"{run_dir.name}.superseded-{earlier['started'].replace(':', '')}"))
            run_dir.mkdir()
        elif earlier["status"] == "finished":
            return _optimised(_load_config(run_dir), earlier["metrics"])
        else:
            return execute(_load_config(run_dir), run_dir)
    try:
        resolved = preflight.check(Composed(config, overrides))
    except UserError as error:
        # in a sweep the folder is there already: say in it why the job did not run
        blank = {"seed": config.get("seed"), "stages": list(config.get("stages") or [])}
        Record.open(run_dir, blank, _experiment(hydra), overrides).close("failed", str(error))
        raise
    write_text(run_dir / CONFIG, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    write_text(run_dir / "overrides.yaml", yaml.safe_dump(overrides))
    return execute(resolved, run_dir, _experiment(hydra), overrides)


def execute(
    config: dict[str, Any], run_dir: Path, experiment: str = "", overrides: list[str] | None = None
) -> float | None:
    """Run, or continue, what ``config.yaml`` in the run folder says, and close its record whatever happens."""
    writes = ranks.global_rank() == 0
    record = Record.open(run_dir, config, experiment, overrides or []) if writes else None
    status, reason = "failed", ""
    try:
        if (processes := ranks.count(config)) > 1:
            ranks.supervise(run_dir, processes)
        else:
            stages(config, run_dir, record)
        status = "finished"
    except Interrupted as stop:
        status, reason = "interrupted", str(stop)
        raise
    except KeyboardInterrupt:
        status, reason = "interrupted", "stopped by Ctrl-C"
        raise Interrupted(2) from None
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        if not isinstance(error, UserError):
            traceback.print_exc()
            log.error("The run failed", exc_info=True)
        raise
    finally:
        if record is not None:
            record.close(status, reason)
        _release()
    metrics = read_json(run_dir / RECORD)["metrics"]
    return _optimised(config, metrics)


def stages(config: dict[str, Any], run_dir: Path, record: Record | None) -> None:
    """Build everything and go through the stages that are not done yet, in this process."""
    _quiet()
    import pytorch_lightning as pl

    from framework.build import build
    from framework.data import using
    from framework.loggers import CSV, finish_wandb, join_sessions
    from framework.resume import ExactResume, GracefulStop, Signals, newest_checkpoint

    done = list(read_json(run_dir / RECORD)["stages_done"])
    checkpoints = run_dir / "checkpoints"
    final = checkpoints / "final.ckpt"
    signals = Signals()
    try:
        with signals.installed(), using(config["paths"]["data"]):
            pl.seed_everything(config["seed"], workers=True, verbose=False)
            data = build(config["data"])
            model = build(config["model"])
            exact = ExactResume(config["seed"])
            callbacks = [build(node) for node in (config["callbacks"] or {}).values() if node]
            callbacks += [exact, GracefulStop(signals, checkpoints / "last.ckpt")]
            loggers = [build(node) for node in (config["logger"] or {}).values() if node]
            trainer = build(
                {**config["trainer"], "use_distributed_sampler": False},
                callbacks=callbacks,
                logger=loggers or False,
                enable_checkpointing=True,
            )
            exact.wrap(data or model, trainer)
            for logger in loggers:
                if not isinstance(logger, CSV):  # it has nothing to add to config.yaml
                    logger.log_hyperparams(_flat(config))
            for stage in config["stages"]:
                if stage in done:
                    continue
                pl.seed_everything(config["seed"], workers=True, verbose=False)
                if stage == "fit":
                    start = newest_checkpoint(run_dir) or config["ckpt_path"]
                    trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
                    trainer.save_checkpoint(final, weights_only=True)
                else:
                    run_stage = getattr(trainer, stage)
                    weights = _weights(config, trainer, final)
                    quiet = {} if stage == "predict" else {"verbose": False}  # the end of the run prints them anyway
                    output = run_stage(model, datamodule=data, ckpt_path=weights, weights_only=True, **quiet)
                    if stage == "predict" and output is not None and trainer.is_global_zero:
                        import torch

                        torch.save(output, run_dir / "predictions.pt")
                metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
                done.append(stage)
                if record is not None:
                    record.stage_done(stage, metrics)
            for logger in loggers:
                logger.finalize("success")
    finally:
        finish_wandb()
        if ranks.global_rank() == 0:
            join_sessions(run_dir)


def _weights(config: dict[str, Any], trainer: Any, final: Path) -> str | Path | None:
    """The weights of an evaluation: those just trained, the best, or the ones the config names."""
    if "fit" not in config["stages"]:
        return config["ckpt_path"]
    if config["test_weights"] == "best":
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        if not getattr(trainer.checkpoint_callback, "monitor", None) or not best:
            raise UserError("test_weights=best needs a metric to go by: set callbacks.checkpoint.monitor")
        return best
    return final


def _optimised(config: dict[str, Any], metrics: dict[str, Any]) -> float | None:
    name = config.get("optimized_metric")
    if name in metrics:
        return float(metrics[name])
    if name is not None:
        message = f"optimized_metric is {name!r}, which this run did not log.{nearest(name, metrics)}"
        hydra: Any = HydraConfig.instance().cfg
        if hydra is not None and "BasicSweeper" not in str(OmegaConf.select(hydra, "hydra.sweeper._target_")):
            raise UserError(message)  # a search would go on blindly
        log.warning(message)
    return None


def _earlier(run_dir: Path) -> dict[str, Any] | None:
    """The record of a job of a sweep that is being continued."""
    return read_json(run_dir / RECORD) if (run_dir / RECORD).is_file() and (run_dir / CONFIG).is_file() else None


def _load_config(run_dir: Path) -> dict[str, Any]:
    return yaml.safe_load((run_dir / CONFIG).read_text(encoding="utf-8"))


def _experiment(hydra: Any) -> str:
    return str(OmegaConf.select(hydra, "runtime.choices.experiment") or "")


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    from framework.config import leaves

    return {key: value for key, value in leaves(config) if not key.startswith(("paths.", "callbacks.", "logger."))}


def _quiet() -> None:
    """Lightning's advertisements, and its advice about things that the framework settles."""
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_not_a_tip)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*not resumable.*")
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*Experiment logs directory.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*The `srun` command is available.*")
    if "lightning" in sys.modules:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def _not_a_tip(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not any(word in text for word in ("Tip:", "💡", "litlogger", "TPU available", "HPU available"))


def _release() -> None:
    """Give the memory of a finished job back before the next job of a sweep."""
    hydra: Any = HydraConfig.instance().cfg
    if hydra is None or str(OmegaConf.select(hydra, "hydra.mode")) != "RunMode.MULTIRUN":
        return  # the process is about to end
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
