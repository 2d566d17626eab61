"""New raw runs under the raw root: complete ones, ones still being written, and whatever is not taken, with the reason."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.raw_root import read_raw_root, states_of

SETTLE_S = 30.0
"""Seconds since a file's last change after which it counts as complete."""

MAX_CLOCK_SKEW_S = 3600.0
"""Seconds by which a file may have been changed in the future, as two clocks that differ make it; it waits until then."""


@dataclass
class IncomingRuns:
    """What a look at the raw root found.

    Attributes
    ----------
    complete, unsettled : list of str
        Keys of unknown runs, oldest first: those that can be read, and those still being written.
    refused : list of (path, reason)
        Everything under the raw root that could be a run and isn't taken.

    """

    complete: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)


def find_incoming_runs(store: Store, *, known: Collection[str], settle_s: float = SETTLE_S) -> IncomingRuns:
    """Look for runs that aren't in ``known``.

    A run is complete when none of its files has changed for ``settle_s`` seconds and no writer holds one open as HDF5.
    Every entry is looked at by itself: what can't be read is refused with its reason, and all others go on.
    """
    raw = read_raw_root(store)
    found = IncomingRuns(refused=raw.not_taken())
    changed: dict[str, float] = {}
    for key, files in raw.runs.items():
        if key in known:
            continue
        try:
            changed[key] = last_change(files)
            ready = is_settled(files, settle_s)
        except (OSError, RunError) as error:
            found.refused.append((files[0], str(error)))
            continue
        (found.complete if ready else found.unsettled).append(key)
    for keys in (found.complete, found.unsettled):
        keys.sort(key=lambda key: (changed[key], key))
    return found


def last_change(files: Collection[Path]) -> float:
    """Return when any of a run's files last changed, s since 1970; 0 for an empty folder.

    Raises
    ------
    RunError
        A file can't be read, or was changed in the future: a clock is wrong.

    """
    newest = max((changed for _, changed, _ in states_of(files)), default=0.0)
    if newest - time.time() > MAX_CLOCK_SKEW_S:
        remedy = "Set the clock that is wrong, then touch the file."
        raise RunError("was last changed in the future", found=_date(newest), remedy=remedy)
    return newest


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s since 1970"


def is_settled(files: Collection[Path], settle_s: float) -> bool:
    """Tell whether a run is complete: it has files, none empty, none changed lately, none held open by a writer."""
    states = list(states_of(files))
    now = time.time()
    return bool(states) and all(
        size > 0 and now - changed >= settle_s and not _is_open_for_writing(path)
        for path, changed, size in states
    )


def _is_open_for_writing(path: Path) -> bool:
    """Tell whether the HDF5 superblock's consistency flags say that a writer holds the file (version 2 and later)."""
    with path.open("rb") as stream:
        head = stream.read(12)
    return len(head) == 12 and head[:8] == b"\x89HDF\r\n\x1a\n" and head[8] >= 3 and bool(head[11] & 0x01)
