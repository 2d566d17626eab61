"""Which run files lie under a folder, and which of them are complete."""

import os
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.files import open_hdf5

SUFFIXES = (".h5", ".hdf5", ".hdf", ".cxi", ".nxs")
MAX_DEPTH = 6
GIVE_UP_S = 3600.0


@dataclass(frozen=True)
class RunFile:
    """A run file: ``complete``, still being ``written``, or ``broken`` (``reason`` says why)."""

    path: Path
    size_bytes: int
    modified_s: float
    state: Literal["complete", "written", "broken"]
    reason: str = ""


def list_runs(
    root: Path,
    *,
    settle_s: float = 10.0,
    now_s: float | None = None,
    known: Container[Path] = (),
    more_roots: Sequence[Path] = (),
) -> list[RunFile]:
    """List the run files under a folder, sorted by path.

    A file counts as still being written while it is younger than ``settle_s``, locked by its writer, marked
    as open for writing, or shorter than HDF5 says it is. Hidden files, the numbered data files of a master
    file, and links that leave the folder are left out.

    Parameters
    ----------
    root : Path
    settle_s : float
        Seconds without change before a file is looked into.
    now_s : float, optional
        Present time, seconds since 1970; for tests.
    known : container of Path
        Files to leave out, for instance those registered already: they are not opened again.
    more_roots : sequence of Path
        Folders that links may lead into, besides ``root``.

    Raises
    ------
    RunError
        The folder doesn't exist.

    """
    root = Path(root)
    if not root.is_dir():
        raise RunError("no such folder of raw runs", where=root, remedy="Create it, or configure another.")
    now = time.time() if now_s is None else now_s
    return [
        _inspect(path, now, settle_s) for path in sorted(_candidates(root, more_roots)) if path not in known
    ]


def _candidates(root: Path, more_roots: Sequence[Path]) -> Iterator[Path]:
    allowed = [one.resolve() for one in (root, *more_roots)]
    for folder, folders, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = [] if depth >= MAX_DEPTH else [f for f in folders if not f.startswith(".")]
        for name in names:
            path = Path(folder) / name
            if _is_run_name(path) and any(map(path.resolve().is_relative_to, allowed)):
                yield path


def _is_run_name(path: Path) -> bool:
    if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
        return False
    stem, _, number = path.stem.rpartition("_data_")
    is_linked_data = bool(stem) and number.isdigit()
    return not is_linked_data


def _inspect(path: Path, now_s: float, settle_s: float) -> RunFile:
    try:
        stat = path.stat()
    except OSError as error:
        return RunFile(path, 0, 0.0, "broken", f"cannot be read ({error.strerror})")
    state, reason = _state(path, now_s - stat.st_mtime, settle_s)
    return RunFile(path, stat.st_size, stat.st_mtime, state, reason)


def _state(path: Path, age_s: float, settle_s: float) -> tuple[Literal["complete", "written", "broken"], str]:
    if age_s < settle_s:
        return "written", "changed a moment ago"
    try:
        open_hdf5(path).close()
    except RunError as error:
        unfinished = any(word in error.what for word in ("truncated", "empty")) and age_s < GIVE_UP_S
        return ("written" if unfinished or "being written" in error.what else "broken"), str(error)
    except OSError as error:
        return "broken", str(error)
    return "complete", ""
