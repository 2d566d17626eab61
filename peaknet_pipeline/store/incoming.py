"""New raw runs under the raw root: complete ones, ones still being written, and ones that cannot be named."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.store.keys import RunKey, parse_key, run_number
from peaknet_pipeline.store.layout import Store

SETTLE_S = 30.0
"""Seconds since a file's last change after which it counts as complete."""


@dataclass(frozen=True)
class IncomingRuns:
    """What a look at the raw root found, unknown runs only."""

    complete: list[str]
    unsettled: list[str]
    refused: list[tuple[Path, str]]


def find_incoming_runs(store: Store, *, known: Collection[str], settle_s: float = SETTLE_S) -> IncomingRuns:
    """Look for runs that aren't in ``known``; oldest first.

    A file is complete when it has not changed for ``settle_s`` seconds and no writer holds it open as HDF5.
    """
    found: dict[str, list[Path]] = {}
    refused: list[tuple[Path, str]] = []
    for folder in (
        sorted(p for p in store.raw_root.glob("*") if p.is_dir()) if store.raw_root.is_dir() else []
    ):
        for path in sorted(folder.iterdir()):
            number = run_number(path)
            if number is None:
                continue
            try:
                key = str(parse_key(str(RunKey(folder.name, number))))
            except ParameterError as error:
                refused.append((path, str(error)))
                continue
            if key not in known:
                found.setdefault(key, []).append(path)
    ready = {key: all(_is_complete(path, settle_s) for path in paths) for key, paths in found.items()}
    order = sorted(found, key=lambda key: (max(p.stat().st_mtime for p in found[key]), key))
    return IncomingRuns([k for k in order if ready[k]], [k for k in order if not ready[k]], refused)


def _is_complete(path: Path, settle_s: float) -> bool:
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file()]
        return bool(files) and all(_is_complete(file, settle_s) for file in files)
    state = path.stat()
    return state.st_size > 0 and time.time() - state.st_mtime >= settle_s and not _is_open_for_writing(path)


def _is_open_for_writing(path: Path) -> bool:
    """Tell whether the HDF5 superblock's consistency flags say that a writer holds the file (version 2 and later)."""
    with path.open("rb") as stream:
        head = stream.read(12)
    return len(head) == 12 and head[:8] == b"\x89HDF\r\n\x1a\n" and head[8] >= 3 and bool(head[11] & 0x01)
