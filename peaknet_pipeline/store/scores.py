"""The rates that were made, read back and printed; light enough for a command that only looks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from peaknet_pipeline.provenance import read_recipe
from peaknet_pipeline.schemas import SCORES, Scores
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import CODE
from peaknet_pipeline.tables import empty_table, read_table


def metrics_path(store: Store, key: str) -> Path:
    """Return where a run's rates lie."""
    return store.table("run_metrics", key)


def read_all_scores(store: Store) -> Scores:
    """Return the rates of every run that this version of the stage has scored, in the order of their keys."""
    folder = metrics_path(store, "x-r0001").parent
    current = [p for p in sorted(folder.glob("*.parquet")) if is_of_this_version(p)]
    parts = [read_table(path, SCORES) for path in current]
    return pd.concat(parts, ignore_index=True) if parts else empty_table(SCORES)


def is_of_this_version(table: Path) -> bool:
    """Tell whether a table of rates was made by this version of ``run_metrics``; others have other columns."""
    return (read_recipe(table) or {}).get("code") == CODE["run_metrics"]


def format_scores(scores: Scores) -> str:
    """Return the rates as a table for a terminal: a row per run and finder, counts beside every rate."""
    rows = [_format_row(row) for row in scores.to_dict("records")]
    header = ("run", "subset", "finder", "frames", "hits", "indexed", "hit rate", "indexing rate", "yield",
              "false index", "precision", "recall", "frames/s")  # fmt: skip
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.rjust(w) if i > 2 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
             for row in [header, *rows]]  # fmt: skip
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]) if rows else "no run has been scored yet"


def _format_row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    def rate(name: str) -> str:
        return f"{100 * row[name]:.1f} %" if row[name] == row[name] else "–"

    speed = f"{row['frames_per_second']:.1f}" if row["frames_per_second"] == row["frames_per_second"] else "–"
    counts = tuple(str(row[name]) for name in ("frames", "hits", "indexed"))
    rates = tuple(rate(n) for n in ("hit_rate", "indexing_rate", "indexing_yield"))
    control = f"{rate('false_index_rate')} of {row['scrambled']}"
    return (
        row["run"],
        row["subset"],
        row["finder"],
        *counts,
        *rates,
        control,
        rate("precision"),
        rate("recall"),
        speed,
    )
