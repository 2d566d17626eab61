"""What failed last, per stage and run: kept beside the tables until the stage succeeds, so that the run table can tell it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.errors import PeaknetError, TableError, printable
from peaknet_pipeline.faults import explain
from peaknet_pipeline.records import make_record, read_json
from peaknet_pipeline.store.keys import RunKey, parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.raw_root import find_run_files, stamp_of
from peaknet_pipeline.tables import write_json

FOLDER = "failures"


@dataclass(frozen=True)
class Failure:
    """Why a stage of a run failed, and when."""

    stage: str
    error: str
    time: str
    files: str = ""
    """What told the run's raw files from others when the stage began; empty for stages of all runs."""


@contextmanager
def failures_recorded(store: Store, stage: str, key: str | RunKey) -> Iterator[None]:
    """Write down why the block failed, and forget an earlier failure when it succeeds; the exception goes on."""
    path, files = failure_path(store, stage, key), _stamp_of_run(store, key)
    try:
        yield
    except Exception as error:
        told = _told_of(error)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(path, {"stage": stage, "error": told, "time": when, "files": files})
        raise
    path.unlink(missing_ok=True)


def _stamp_of_run(store: Store, key: str | RunKey) -> str:
    try:
        return stamp_of(find_run_files(store, parse_key(str(key))))
    except PeaknetError:  # all runs together, or a run without files, which is told as the failure itself
        return ""


def _told_of(error: Exception) -> str:
    if isinstance(error, PeaknetError):
        return str(error)
    known = explain(error)
    return printable(f"{type(error).__name__}: {known[0] if known is not None else error}")


def failure_path(store: Store, stage: str, key: str | RunKey) -> Path:
    """Return where the failure of a stage is kept."""
    return store.file(f"{FOLDER}/{stage}", key, ".json")


def read_failures(store: Store) -> dict[str, Failure]:
    """Return the latest failure of every run that has one, by partition key."""
    failures: dict[str, Failure] = {}
    for path in (store.root / "store" / FOLDER).glob("*/*.json"):
        failure = _read_failure(path)
        if path.stem not in failures or failure.time > failures[path.stem].time:
            failures[path.stem] = failure
    return failures


def _read_failure(path: Path) -> Failure:
    """Read one record; a damaged one is a failure too."""
    try:
        return make_record(Failure, read_json(path, error=TableError), where=path, error=TableError)
    except TableError as error:
        return Failure(path.parent.name, f"failed, and the record of why is damaged: {error}", "")
