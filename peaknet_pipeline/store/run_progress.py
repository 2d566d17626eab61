"""How far a run has come, and what stands in its way: told from its files, its recipes and its last failure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.provenance import read_recipe
from peaknet_pipeline.store.failures import Failure
from peaknet_pipeline.store.freshness import Freshness, replaced_files
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import CODE
from peaknet_pipeline.store.raw_root import RawRoot

Made = Mapping[str, Mapping[str, Any]]

OUTPUTS = {
    "raw_run": ".json",
    "run_statistics": ".h5",
    "classical_peaks": ".parquet",
    "classical_index": ".parquet",
    "peak_labels": ".h5",
    "peaknet_peaks": ".parquet",
    "peaknet_index": ".parquet",
    "run_metrics": ".parquet",
}
"""The stages of one run, in order, and what their outputs' names end in."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come, and what stands in its way."""

    status: str
    stage: str
    error: str


def made_of(store: Store, key: str) -> Made:
    """Return the recipe of every output of a run that was made, by stage."""
    found = {stage: read_recipe(store.file(stage, key, end)) for stage, end in OUTPUTS.items()}
    return {stage: record for stage, record in found.items() if record is not None}


@dataclass(frozen=True)
class RunState:
    """What is known of a run: its key, its raw files, the recipe of every output (see :func:`made_of`), its last failure."""

    store: Store
    key: str
    files: tuple[Path, ...]
    made: Made
    failure: Failure | None = None


def progress_of(run: RunState, raw: RawRoot, fresh: Freshness) -> Progress:
    """Return how far a run has come, and the first thing that is wrong: its files, a failure, staleness, a check."""
    progress = _progress(run.made, run.failure)
    problem = _file_problem(raw, run.key)
    if problem is None and progress.status not in ("failed", "outdated"):
        problem = stale_problem(run, fresh)
    return progress if problem is None else Progress(problem[0], progress.stage, problem[1])


def stale_problem(run: RunState, fresh: Freshness) -> tuple[str, str] | None:
    """Return which stages are stale and the cause at the root of it; None where all are current."""
    replaced = replaced_files(run.made["raw_run"], run.files) if "raw_run" in run.made else ""
    outputs = {stage: run.store.file(stage, run.key, OUTPUTS[stage]) for stage in run.made}
    for stage, output in outputs.items():
        fresh.remember(output, run.made[stage])
    problems = {stage: replaced or fresh.problem(output) for stage, output in outputs.items()}
    stale = {stage: problem for stage, problem in problems.items() if problem}
    if not stale:
        return None
    causes = ", ".join(dict.fromkeys(stale.values()))
    return "stale", f"{causes}; {', '.join(stale)} must be made again"


def _progress(made: Made, failure: Failure | None) -> Progress:
    stage = next((name for name in reversed(OUTPUTS) if name in made), "")
    doubts = [
        f"{check['name']}: {check['description']}"
        for record in made.values()
        for check in record.get("checks", [])
        if not check["passed"]
    ]
    if failure is not None:
        return Progress("failed", failure.stage, failure.error)
    old = [name for name, record in made.items() if record.get("code") != CODE[name]]
    if old:
        return Progress("outdated", stage, f"{', '.join(old)} made by an earlier version; materialize again")
    if stage == "run_metrics":
        return Progress("doubtful" if doubts else "done", stage, "; ".join(doubts))
    if doubts:
        return Progress("stopped", stage, "; ".join(doubts))
    return Progress("partial" if stage else "registered", stage, "")


def _file_problem(raw: RawRoot, key: str) -> tuple[str, str] | None:
    """Return what is wrong with a run's raw files; None where they lie there."""
    experiment = parse_key(key).experiment
    if key in raw.refused:
        return "refused", ": ".join(map(str, raw.refused[key]))
    if experiment in raw.broken:
        return "refused", raw.broken[experiment]
    if key not in raw.runs:
        return "missing", f"no file under raw/{experiment}/ bears this run's number"
    return None
