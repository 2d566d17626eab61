"""Pictures of figures against steps, runs, bands or time."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.metrics import wilson_interval
from peaknet_pipeline.plots.style import (
    GREY,
    colour_of,
    label_axes,
    legend_below,
    name_of,
    new_figure,
    say_nothing,
    to_png,
)
from peaknet_pipeline.schemas import PeakTable, Scores
from peaknet_pipeline.types import Float64Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_RUNS = 40
"""Runs that are drawn one by one; more are lines (``plot_rates_over_runs``)."""


def plot_losses(history: Sequence[Mapping[str, Any]], *, title: str) -> bytes:
    """Draw loss, learning rate and validation scores over training steps.

    Parameters
    ----------
    history : sequence of mappings
        Rows with ``step``, ``loss``, ``learning_rate``, and on validation steps ``scores`` (``precision``,
        ``recall``, ``f1``), as training returns them.

    """
    figure, axes = new_figure(10.0, 3.6, 1, 2)
    steps = np.array([row["step"] for row in history], dtype=np.float64)
    losses = np.array([row["loss"] for row in history], dtype=np.float64)
    label_axes(axes[0], f"{title}: training loss", "step", "loss (1)")
    if len(steps):
        axes[0].plot(steps, losses, color="#BBBBBB", lw=0.8, label="each entry")
        axes[0].plot(steps, _running_median(losses), color="#0072B2", lw=1.6, label="running median")
        if (losses > 0).all():
            axes[0].set_yscale("log")
        axes[0].legend(frameon=False)
    else:
        say_nothing(axes[0])
    _draw_validation(axes[1], [row for row in history if row.get("scores")], title)
    return to_png(figure)


def plot_rates(scores: Scores, *, title: str = "Rates with 95 % intervals") -> bytes:
    """Draw hit rate, indexing rate and indexing yield of the last 40 runs and each finder, with 95 % intervals."""
    runs = list(dict.fromkeys(scores["run"]))[-MOST_RUNS:]
    scores = scores[scores["run"].isin(runs)]
    figure, axes = new_figure(max(7.0, 2.6 + 0.45 * len(runs)), 7.2, 3, 1, sharex=True)
    panels = (
        ("hit rate", "hits", "frames"),
        ("indexing rate", "indexed", "hits"),
        ("indexing yield", "indexed", "frames"),
    )
    for place, (name, part, whole) in zip(axes, panels, strict=True):
        _draw_rate(place, scores, runs, name.replace(" ", "_"), part, whole)
        label_axes(place, "" if place is not axes[0] else title, "", f"{name}\n({part} / {whole})")
        place.set_ylim(-0.03, 1.03)
    axes[-1].set_xticks(range(len(runs)), runs, rotation=90 if len(runs) > 8 else 0, fontsize=10)
    axes[-1].set_xlabel("run")
    if not runs:
        say_nothing(axes[0], "no runs")
    legend_below(axes[0])
    return to_png(figure)


def plot_recall(
    bands: Mapping[str, pd.DataFrame], *, title: str, axis: str = "expected SNR of the spot", unit: str = "1"
) -> bytes:
    """Draw recall per band, with 95 % intervals and the number of true spots.

    Parameters
    ----------
    bands : mapping of finder to DataFrame
        ``low, high, n_true, recall, recall_low, recall_high`` per band (``metrics.TruthScores.by_snr`` or
        ``by_shell``).

    """
    figure, (axes,) = new_figure(7.4, 4.4)
    names: list[str] = []
    for number, (finder, table) in enumerate(bands.items()):
        x = np.arange(len(table)) + 0.12 * (number - (len(bands) - 1) / 2)
        known = table["n_true"].to_numpy() > 0
        values = table["recall"].to_numpy(np.float64)
        spread = np.abs(table[["recall_low", "recall_high"]].to_numpy(np.float64).T - values)
        axes.errorbar(
            x[known],
            values[known],
            spread[:, known],
            marker="o",
            ms=5,
            capsize=2,
            color=colour_of(finder, number),
            label=name_of(finder),
        )
        pairs = zip(table["low"], table["high"], table["n_true"], strict=True)
        names = [
            f"{low:.3g}–{high:.3g}\nn={n}" if np.isfinite(high) else f"≥ {low:.3g}\nn={n}"
            for low, high, n in pairs
        ]
    axes.set_xticks(range(len(names)), names, fontsize=10)
    axes.set_ylim(-0.03, 1.03)
    label_axes(axes, title, f"{axis} / {unit}, n = true spots", "recall (found / true spots)")
    if names:
        axes.legend(loc="lower right", frameon=False)
    else:
        say_nothing(axes)
    return to_png(figure)


def plot_hit_rate_over_time(
    peaks: Mapping[str, PeakTable], *, n_frames: int, min_peaks: int, title: str, window: int = 0
) -> bytes:
    """Draw the hit rate along a run, over windows of ``window`` frames (by itself: about 40 windows)."""
    figure, (axes,) = new_figure(8.4, 3.6)
    size = window or max(1, -(-n_frames // 40))
    starts = np.arange(0, n_frames, size)
    for number, (finder, table) in enumerate(peaks.items()):
        hits = np.zeros(n_frames, dtype=np.bool_)
        found = hit_frames(table, min_peaks=min_peaks)
        hits[found[found < n_frames]] = True
        rates = [hits[s : s + size].mean() for s in starts]
        axes.step(starts, rates, where="post", color=colour_of(finder, number), lw=1.5, label=name_of(finder))
        axes.axhline(hits.mean() if n_frames else 0.0, color=colour_of(finder, number), lw=0.8, ls=":")
    axes.set_ylim(-0.03, 1.03)
    label_axes(axes, title, "frame", f"hit rate (hits / {size} frames)")
    if n_frames and peaks:
        legend_below(axes)
    else:
        say_nothing(axes, "no frames")
    return to_png(figure)


def plot_rates_over_runs(scores: Scores, *, title: str) -> bytes:
    """Draw hit rate and indexing yield as lines over runs, with bands of 95 %; for few runs or many."""
    figure, axes = new_figure(9.0, 5.0, 2, 1, sharex=True)
    order = {run: i for i, run in enumerate(dict.fromkeys(scores["run"]))}
    for number, (finder, rows) in enumerate(scores.groupby("finder", sort=True)):
        for place, part in zip(axes, ("hits", "indexed"), strict=True):
            _draw_line(place, rows, order, part, colour_of(str(finder), number), name_of(str(finder)))
    label_axes(axes[0], title, "", "hit rate\n(hits / frames)")
    label_axes(axes[1], "", "run", "indexing yield\n(indexed / frames)")
    shown = list(order)[:: max(1, -(-len(order) // 20))]
    axes[1].set_xticks(
        [order[run] for run in shown], shown, rotation=90 if len(order) > 8 else 0, fontsize=10
    )
    for place in axes:
        place.set_ylim(-0.03, 1.03)
    if order:
        legend_below(axes[0])
    else:
        say_nothing(axes[0], "no runs")
    return to_png(figure)


def _draw_line(
    axes: "Axes", rows: Scores, order: Mapping[str, int], part: str, colour: str, name: str
) -> None:
    x = rows["run"].map(dict(order)).to_numpy(np.float64)
    counts = [(int(a), int(b)) for a, b in zip(rows[part], rows["frames"], strict=True)]
    bounds = np.array([wilson_interval(a, b) for a, b in counts]).reshape(-1, 2)
    values = np.array([a / b if b else np.nan for a, b in counts])
    axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=colour, alpha=0.15, lw=0)
    axes.plot(x, values, marker="o", ms=4, color=colour, lw=1.4, label=name)


def _draw_validation(axes: "Axes", rows: Sequence[Mapping[str, Any]], title: str) -> None:
    steps = [row["step"] for row in rows]
    styles = (("precision", "#56B4E9", "s"), ("recall", "#E69F00", "o"), ("f1", "#000000", "D"))
    for name, colour, marker in styles:
        values = [row["scores"].get(name, np.nan) for row in rows]
        axes.plot(steps, values, marker=marker, ms=4, color=colour, label="F1" if name == "f1" else name)
    label_axes(axes, f"{title}: validation peaks", "step", "score (1)")
    axes.set_ylim(-0.03, 1.03)
    if rows:
        axes.legend(loc="lower right", frameon=False)
    else:
        say_nothing(axes, "no validation")


def _draw_rate(axes: "Axes", scores: Scores, runs: list[str], rate: str, part: str, whole: str) -> None:
    finders = sorted(set(scores["finder"]))
    for number, finder in enumerate(finders):
        rows = scores[scores["finder"] == finder]
        values = rows[rate].to_numpy(np.float64)
        n_whole = rows[whole].to_numpy(np.int64)
        # The rate's own numerator: for the indexing rate it is the indexed hits, not all indexed frames.
        n_part = np.rint(np.nan_to_num(values) * n_whole).astype(int)
        bounds = np.array(
            [wilson_interval(int(a), int(b)) for a, b in zip(n_part, n_whole, strict=True)]
        ).reshape(-1, 2)
        spread = np.clip(np.abs(bounds.T - values), 0, None)
        x = np.array([runs.index(run) for run in rows["run"]]) + 0.16 * (number - (len(finders) - 1) / 2)
        known = np.isfinite(values)
        axes.errorbar(
            x[known],
            values[known],
            spread[:, known],
            fmt="o",
            ms=6,
            capsize=3,
            color=colour_of(finder, number),
            label=name_of(finder),
        )
    axes.axhline(0.0, color=GREY, lw=0.6)


def _running_median(values: Float64Array) -> Float64Array:
    size = max(1, len(values) // 25)
    return pd.Series(values).rolling(2 * size + 1, center=True, min_periods=1).median().to_numpy(np.float64)
