"""A new plugin package, written from templates: it installs, runs and passes its own tests unedited."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from framework import __version__, plugins
from framework.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"


def write(name: str, folder: Path) -> None:
    """Write the package of a plugin called ``name`` into a new folder.

    Raises:
        UserError: the name is not usable as a package's, or the folder is not empty. Nothing is written then.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"{name!r} cannot name a plugin: use lower-case letters, digits and underscores.")
    if any(p.name == name for p in plugins.discover()) or importlib.util.find_spec(name) is not None:
        raise UserError(f"The name {name!r} is taken by an installed package: choose another.")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: choose a folder that does not exist yet.")
    for template in sorted(TEMPLATES.rglob("*.template")):
        path = folder / str(template.relative_to(TEMPLATES)).replace("NAME", name).removesuffix(".template")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = template.read_text(encoding="utf-8")
        path.write_text(text.replace("{{name}}", name).replace("{{version}}", __version__), encoding="utf-8")
