"""The table of runs: one row per run, from registered to scored, with its error where it failed."""

import math
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.params import did_you_mean
from peaknet_pipeline.report import ReportTable
from peaknet_pipeline.schemas import RUNS, RunTable, Scores
from peaknet_pipeline.store.failures import read_failures
from peaknet_pipeline.store.freshness import Freshness
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.raw_root import RawRoot, read_raw_root, states_of
from peaknet_pipeline.store.run_progress import Progress, RunState, made_of, progress_of
from peaknet_pipeline.store.scores import read_all_scores
from peaknet_pipeline.tables import empty_table, make_table

SCORED = ("hits", "indexed", "hit_rate", "indexing_rate", "indexing_yield", "mean_peaks", "resolution",
          "finder", "model", "label_manifest", "parameters", "code_version")  # fmt: skip

NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("hits", "indexed_hits", "indexed", "classical_hits", "classical_indexed"), 0),
    **dict.fromkeys(("hit_rate", "indexing_rate", "indexing_yield", "mean_peaks", "resolution"), math.nan),
    **dict.fromkeys(("finder", "model", "label_manifest", "parameters", "code_version"), ""),
}
"""What is told of a run before any peaks were found."""

NOT_PRINTED = "–"


def run_table(
    store: Store, keys: Iterable[str] = (), *, scores: Scores | None = None, raw: RawRoot | None = None
) -> RunTable:
    """Return a row for every run that is registered (``keys``), lies under the raw root, or was ever worked on.

    A run whose files can't be used is ``refused``, one whose files are gone ``missing``, one with outputs that were made
    from what has changed since ``stale``.

    The rates are the network's where it has been scored, before that the classical finder's as far as they are known:
    hits as soon as peaks were found, indexed frames as soon as they were indexed.
    ``scores`` are those of ``read_all_scores``, ``raw`` what ``read_raw_root`` found, where they were read already.
    """
    failures = read_failures(store)
    raw = read_raw_root(store) if raw is None else raw
    known = {*keys, *failures, *raw.runs, *raw.refused, *made_runs(store)}
    runs = [
        RunState(store, key, raw.runs.get(key, ()), made_of(store, key), failures.get(key))
        for key in sorted(known)
        if _is_key(key)
    ]
    scores = read_all_scores(store) if scores is None else scores
    by_run = dict(iter(scores.groupby("run"))) if len(scores) else {}
    fresh = Freshness()
    rows = [_row(run, by_run.get(run.key), progress_of(run, raw, fresh)) for run in runs]
    if not rows:
        return empty_table(RUNS)
    return make_table(RUNS, {name: [row[name] for row in rows] for name in rows[0]})


def check_known(experiment: str, known: Collection[str], store: Store) -> None:
    """Raise PeaknetError unless an experiment has runs.

    Raises
    ------
    PeaknetError
        No run of that name is known.

    """
    if experiment in known:
        return
    raise PeaknetError(
        f"no run of experiment {experiment!r}",
        where=store.root,
        expected=f"one of {', '.join(sorted(known))}" if known else None,
        remedy=did_you_mean(experiment, known) or "`peaknet runs` lists what there is.",
    )


def made_runs(store: Store) -> set[str]:
    """Return the keys of all manifests."""
    return {path.name.split(".")[0] for path in store.file("raw_run", "all", "").parent.glob("*.json")}


def _is_key(text: str) -> bool:
    try:
        parse_key(text)
    except PeaknetError:
        return False
    return True


def _row(run: RunState, scores: pd.DataFrame | None, progress: Progress) -> dict[str, Any]:
    figures = {stage: record.get("figures", {}) for stage, record in run.made.items()}
    statistics = figures.get("run_statistics", {})
    return {
        "run": run.key,
        "experiment": parse_key(run.key).experiment,
        "date": _written(run.files),
        "status": progress.status,
        "stage": progress.stage,
        "frames": int(figures.get("raw_run", {}).get("frames", 0)),
        "frames_without_resolution": int(figures.get("raw_run", {}).get("frames_without_resolution", 0)),
        **(_classical(figures) if scores is None or scores.empty else _scored(scores)),
        "background": float(statistics.get("mean_intensity", math.nan)),
        "bad_pixels": float(statistics.get("bad_fraction", math.nan)),
        "seconds": float(sum(record.get("seconds", 0.0) for record in run.made.values())),
        "error": progress.error,
    }


def _scored(scores: pd.DataFrame) -> dict[str, Any]:
    """Return the network's rates where it was scored, with the classical counts beside them."""
    rows = scores.set_index("finder", drop=False)
    used = rows.loc["peaknet" if "peaknet" in rows.index else rows.index[0]]
    classical = rows.loc["classical"] if "classical" in rows.index else None
    rate = used["indexing_rate"]
    return {
        **{name: used[name] for name in SCORED},
        "indexed_hits": round(rate * used["hits"]) if rate == rate else 0,
        "classical_hits": 0 if classical is None else classical["hits"],
        "classical_indexed": 0 if classical is None else classical["indexed"],
    }


def _classical(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is known before a run is scored: the classical finder's hits, and how many of them index."""
    peaks, index = figures.get("classical_peaks", {}), figures.get("classical_index", {})
    frames, hits = peaks.get("frames", 0), peaks.get("hits")
    if not frames or hits is None:
        return dict(NOTHING)
    found = {
        "finder": "classical",
        "hits": hits,
        "hit_rate": hits / frames,
        "mean_peaks": peaks.get("mean_peaks_per_frame", math.nan),
        "classical_hits": hits,
    }
    if "indexed_hits" in index:
        indexed, indexed_hits = index["indexed"], index["indexed_hits"]
        found |= {"indexed": indexed, "indexed_hits": indexed_hits, "classical_indexed": indexed}
        found |= {
            "indexing_rate": indexed_hits / hits if hits else math.nan,
            "indexing_yield": indexed / frames,
        }
    return {**NOTHING, **found}


def _written(files: Collection[Path]) -> str:
    """Return when a run's files were last written, ISO 8601 in UTC; nothing where that can't be told."""
    try:
        newest = max(state.st_mtime for _, state in states_of(files))
        return datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OSError, ValueError, OverflowError, PeaknetError):
        return ""


def format_runs(table: RunTable) -> str:
    """Return the table for a terminal of 120 columns: counts beside rates, then what went wrong, run by run.

    *hits* and their *rate* (hits / frames), indexed hits *of hits*, *indexed* frames and their *yield* (indexed / frames),
    *classical*: indexed frames of the classical finder.
    """
    if table.empty:
        return "no run is known; put runs under raw/<experiment>/ of the data root, then register them with `peaknet register`"
    header = ("run", "date", "status", "frames", "hits", "rate", "of hits", "indexed", "yield", "classical",
              "peaks", "d / Å", "model")  # fmt: skip
    rows = [_printed(row) for row in table.to_dict("records")]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    left = (0, 1, 2, 12)
    lines = [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
    wrong = table[table["error"] != ""].to_dict("records")
    notes = [
        f"{r['run']}  {_told_incomplete(r)}"
        for r in table.to_dict("records")
        if r["frames_without_resolution"]
    ]
    notes += [f"{r['run']}  {r['status']} at {r['stage'] or 'the start'}: {r['error']}" for r in wrong]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *([""] if notes else []), *notes])


def _told_incomplete(row: Mapping[Any, Any]) -> str:
    return (
        f"{row['frames_without_resolution']} of {row['frames']} frames have no possible photon energy or camera length: "
        "they keep their peaks and are not indexed"
    )


def _printed(row: Mapping[Any, Any]) -> tuple[str, ...]:
    found, indexed = row["finder"] != "", row["indexing_yield"] == row["indexing_yield"]

    def text(name: str, style: str, *, known: bool = found) -> str:
        return format(row[name], style) if known and row[name] == row[name] else NOT_PRINTED

    return (
        row["run"],
        row["date"][:10],
        row["status"],
        str(row["frames"]) if row["frames"] else NOT_PRINTED,
        text("hits", "d"),
        text("hit_rate", ".1%"),
        text("indexed_hits", "d", known=indexed),
        text("indexed", "d", known=indexed),
        text("indexing_yield", ".1%"),
        text("classical_indexed", "d", known=indexed),
        text("mean_peaks", ".1f"),
        text("resolution", ".2f"),
        row["model"] or NOT_PRINTED,
    )


def runs_report(table: RunTable) -> ReportTable:
    """Return the table for the report: what is printed, with each rate's counts, bad pixels and time."""
    columns = (
        "run", "date (UTC)", "status", "frames", "without energy or distance",
        "hit rate (hits / frames)", "indexing rate (indexed hits / hits)", "indexing yield (indexed / frames)",
        "classical yield", "peaks / frame", "d / Å", "background / adu", "bad pixels", "time / s", "model",
    )  # fmt: skip
    rows = tuple(_reported(row) for row in table.to_dict("records"))
    caption = (
        "One row per run. Rates are the network’s where it was scored, else the classical finder’s; "
        "d: 5 % of the peaks in indexed frames lie beyond."
    )
    return ReportTable(columns, rows, caption, n_text=3)


def problems_report(table: RunTable) -> ReportTable | None:
    """Return what is wrong with each run that has a problem; None where no run has one."""
    wrong = table[table["error"] != ""].to_dict("records")
    rows = tuple((row["run"], row["status"], row["stage"] or "the start", row["error"]) for row in wrong)
    return ReportTable(("run", "status", "at", "why"), rows, n_text=4) if rows else None


def _reported(row: Mapping[Any, Any]) -> tuple[str, ...]:
    found, indexed = row["finder"] != "", row["indexing_yield"] == row["indexing_yield"]
    frames = int(row["frames"])

    def share(part: str, whole: int, known: bool) -> str:
        return f"{row[part] / whole:.1%} ({row[part]} / {whole})" if known and whole else NOT_PRINTED

    def number(name: str, style: str) -> str:
        return format(row[name], style) if row[name] == row[name] else NOT_PRINTED

    counts = (
        share("hits", frames, found),
        share("indexed_hits", int(row["hits"]), indexed),
        share("indexed", frames, indexed),
        share("classical_indexed", frames, indexed),
    )
    figures = (number("mean_peaks", ".1f"), number("resolution", ".2f"), number("background", ".1f"))
    rest = (number("bad_pixels", ".2%"), number("seconds", ".0f"), row["model"] or NOT_PRINTED)
    date = row["date"][:16].replace("T", " ")
    without = str(row["frames_without_resolution"]) if frames else NOT_PRINTED
    return (row["run"], date, row["status"], str(frames or NOT_PRINTED), without, *counts, *figures, *rest)
