"""Where data files lie, and how a missing one is fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framework.errors import DataMissing

VARIABLE = "FRAMEWORK_DATA"


def data_dir() -> Path:
    """The data folder: ``paths.data`` of the run, else the variable FRAMEWORK_DATA, else the platform's cache."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("framework") / "data"


@contextmanager
def using(folder: str | None) -> Iterator[None]:
    """Make ``paths.data`` the data folder of this process, and of those it starts, for a while."""
    before = os.environ.get(VARIABLE)
    if folder:
        os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def fetch(name: str, urls: Sequence[str] = (), *, md5: str | None = None, sha256: str | None = None) -> Path:
    """The path of a data file, downloaded with a progress bar if the data folder does not hold it.

    Args:
        name: path below the data folder, e.g. ``mnist/train-images-idx3-ubyte.gz``.
        urls: official addresses, tried in turn; empty for a file that can only be put there by hand.
        md5, sha256: hex digest of the file. A download is refused unless it matches; a file already in the data
            folder is trusted as it is.

    Raises:
        DataMissing: the file is neither there nor to be had: says what to fetch, from where, and where to put it.
    """
    path = data_dir() / name
    if path.is_file():
        return path
    reasons = []
    if urls and not (md5 or sha256):
        raise ValueError(f"fetch({name!r}) needs md5 or sha256 to trust a download")
    for url in urls:
        try:
            return _download(url, path, f"sha256:{sha256}" if sha256 else f"md5:{md5}")
        except Exception as error:  # each address fails in its own way; the last word is ours
            reasons.append(f"{url}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    raise DataMissing(
        f"The data file {name!r} is missing and could not be downloaded.\n"
        + "".join(f"  tried {reason}\n" for reason in reasons)
        + (f"  Fetch {urls[0]}\n" if urls else "")
        + f"  and put it at {path}\n"
        + f"  (or point {VARIABLE}, or paths.data, to a folder that holds {name})."
    )


def _download(url: str, path: Path, known_hash: str) -> Path:
    import pooch

    path.parent.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")
    return Path(
        pooch.retrieve(
            url,
            known_hash=known_hash,
            path=path.parent,
            fname=path.name,
            progressbar=True,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=30) if url.startswith("http") else None,
        )
    )


def load_kept(path: Path) -> Any:
    """What `keep` wrote, or None; a damaged file is removed: it is worth no more than a missing one."""
    import torch

    if not path.is_file():
        return None
    try:
        return torch.load(path, weights_only=True)
    except Exception:
        path.unlink(missing_ok=True)
        return None


def keep(path: Path, value: Any) -> None:
    """Write tensors and plain containers, in one piece or not at all, whoever else writes the same file.

    Raises:
        OSError: the folder cannot be written to; nothing is left behind.
    """
    import torch

    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
