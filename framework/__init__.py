"""A plugin-based experiment framework: one line from YAML to a recorded, resumable run.

Nothing heavy is imported here: help, listings and config errors never load torch.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Study", "data_dir", "fetch", "load_run", "save_figure"]

_HOMES = {
    "Study": "framework.study",
    "data_dir": "framework.data",
    "fetch": "framework.data",
    "load_run": "framework.runs",
    "save_figure": "framework.figures",
}

if TYPE_CHECKING:
    from framework.data import data_dir, fetch
    from framework.figures import save_figure
    from framework.runs import load_run
    from framework.study import Study


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'framework' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
