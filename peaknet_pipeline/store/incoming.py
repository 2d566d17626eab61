"""New raw runs under the raw root: complete ones, ones still being written, and whatever is not taken, with the reason."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from peaknet_pipeline.errors import PeaknetError, RunError
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.provenance import read_recipe
from peaknet_pipeline.store.failures import Failure, read_failures
from peaknet_pipeline.store.freshness import replaced_files
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import manifest_path
from peaknet_pipeline.store.raw_root import read_raw_root, stamp_of, states_of

SETTLE_S = 30.0
"""Seconds since a file's last change after which it counts as complete."""

MAX_CLOCK_SKEW_S = 3600.0
"""Seconds by which a file may have been changed in the future, as two clocks that differ make it; it waits until then."""


@dataclass(frozen=True)
class SensorParams(Parameters):
    """What the sensor ``new_runs`` requests, besides new runs and those whose upload went on after a stage had failed."""

    request_stale: bool = parameter(
        False, meaning="request the ingestion of runs anew whose files were replaced after they were ingested"
    )
    infer: bool = parameter(
        False,
        meaning="request inference with the network in use, and rates, after the ingestion (the job process_run)",
    )
    settle_s: float = parameter(
        SETTLE_S, meaning="time since its last change after which a file counts as complete", unit="s", ge=0
    )
    runs_per_tick: int = parameter(20, meaning="most runs that one look requests; the rest wait", ge=1)


@dataclass
class IncomingRuns:
    """What a look at the raw root found.

    Attributes
    ----------
    complete, unsettled : list of str
        Keys of unknown runs, oldest first: those that can be read, and those still being written.
    refused : list of (path, reason)
        Everything under the raw root that could be a run and isn't taken.
    again : dict from key to reason
        Known runs, complete, whose files have changed since a stage failed on them: an upload that went on.
    stale : dict from key to reason
        Known runs, complete, whose files were replaced after they were ingested.

    """

    complete: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)
    again: dict[str, str] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)


def find_incoming_runs(store: Store, *, known: Collection[str], settle_s: float = SETTLE_S) -> IncomingRuns:
    """Look for runs that aren't in ``known``.

    A run is complete when none of its files has changed for ``settle_s`` seconds and no writer holds one open as HDF5.
    Every entry is looked at by itself: what can't be read is refused with its reason, and all others go on.
    """
    raw, failures = read_raw_root(store), read_failures(store)
    found = IncomingRuns(refused=raw.not_taken())
    changed: dict[str, float] = {}
    for key, files in raw.runs.items():
        try:
            why = _why_again(store, key, files, failures.get(key)) if key in known else ("new", "")
            if why is None:
                continue
            changed[key] = last_change(files)
            ready = is_settled(files, settle_s)
        except (OSError, PeaknetError) as error:
            found.refused.append((files[0], str(error)))
            continue
        kind, reason = why
        if kind == "new" or not ready:
            (found.complete if ready else found.unsettled).append(key)
        else:
            (found.again if kind == "again" else found.stale)[key] = reason
    for keys in (found.complete, found.unsettled):
        keys.sort(key=lambda key: (changed[key], key))
    return found


def _why_again(
    store: Store, key: str, files: tuple[Path, ...], failure: Failure | None
) -> tuple[str, str] | None:
    """Return why a known run may be made again: its files changed since it failed, or were replaced; None: they stand."""
    if failure is not None and failure.files:
        changed = stamp_of(files) != failure.files
        return ("again", f"its files changed since {failure.stage} failed") if changed else None
    record = read_recipe(manifest_path(store, key))
    replaced = "" if record is None else replaced_files(record, files)
    return ("stale", replaced) if replaced else None


def last_change(files: Collection[Path]) -> float:
    """Return when any of a run's files last changed, s since 1970; 0 for an empty folder.

    Raises
    ------
    RunError
        A file can't be read, or was changed in the future: a clock is wrong.

    """
    newest = max((state.st_mtime for _, state in states_of(files)), default=0.0)
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
        state.st_size > 0 and now - state.st_mtime >= settle_s and not _is_open_for_writing(path)
        for path, state in states
    )


def _is_open_for_writing(path: Path) -> bool:
    """Tell whether the HDF5 superblock's consistency flags say that a writer holds the file (version 2 and later)."""
    with path.open("rb") as stream:
        head = stream.read(12)
    return len(head) == 12 and head[:8] == b"\x89HDF\r\n\x1a\n" and head[8] >= 3 and bool(head[11] & 0x01)
