"""Plots as PNG bytes: tables and arrays in, one figure out; every axis with its unit."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from peaknet_pipeline.types import (
    FitTable,
    Float32Array,
    Float64Array,
    IndexTable,
    PeakTable,
    Scores,
    UnitCell,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"classical": "#0072b2", "peaknet": "#d55e00", "truth": "#009e73", "neutral": "#555555"}
"""Okabe and Ito's colour-blind safe palette."""


class _Canvas:
    """A figure whose PNG is kept after the block that draws it."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure
        self.png = b""


@contextmanager
def _canvas(width: float = 6.4, height: float = 3.8) -> Iterator[_Canvas]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = _Canvas(Figure(figsize=(width, height), dpi=80, layout="constrained"))
    FigureCanvasAgg(canvas.figure)
    yield canvas
    stream = io.BytesIO()
    canvas.figure.savefig(stream, format="png")
    canvas.png = stream.getvalue()


def plot_image(image: Float32Array, *, title: str, unit: str = "adu") -> bytes:
    """Draw an assembled image, (rows, columns) with the laboratory's +y up, on a robust logarithmic-like scale."""
    with _canvas(6.0, 5.2) as canvas:
        axes = canvas.figure.add_subplot()
        good = image[np.isfinite(image)]
        low, high = np.percentile(good, [1, 99.7]) if good.size else (0.0, 1.0)
        drawn = axes.imshow(
            _shrink(image), vmin=low, vmax=max(high, low + 1e-9), cmap="viridis", interpolation="nearest"
        )
        canvas.figure.colorbar(drawn, ax=axes, label=f"intensity ({unit})", shrink=0.85)
        _label(axes, title, "x (px)", "y (px)")
        axes.set_xticks([])
        axes.set_yticks([])
    return canvas.png


def plot_mask(image: Float32Array, *, title: str) -> bytes:
    """Draw an assembled mask: bad pixels dark, gaps light grey."""
    with _canvas(5.2, 5.2) as canvas:
        axes = canvas.figure.add_subplot()
        axes.set_facecolor("#dddddd")
        axes.imshow(_shrink(image), vmin=0, vmax=1, cmap="Greys", interpolation="nearest")
        _label(axes, title, "x (px)", "y (px)")
        axes.set_xticks([])
        axes.set_yticks([])
    return canvas.png


def plot_peaks(peaks: PeakTable, n_frames: int, *, title: str) -> bytes:
    """Draw peaks per frame over the run, and the peakogram: highest pixel against resolution."""
    with _canvas(8.6, 3.4) as canvas:
        left, right = canvas.figure.subplots(1, 2)
        counts = np.bincount(peaks["frame"].to_numpy(), minlength=n_frames)
        left.plot(np.arange(n_frames), counts, ".", color=COLOURS["classical"], markersize=4)
        _label(left, f"{title}: peaks per frame", "frame", "peaks")
        known = peaks[np.isfinite(peaks["inv_d"]) & (peaks["max_intensity"] > 0)]
        if len(known):
            drawn = right.hexbin(
                known["inv_d"], known["max_intensity"], gridsize=40, yscale="log", bins="log", mincnt=1
            )
            canvas.figure.colorbar(drawn, ax=right, label="peaks")
        _label(right, "peakogram", "resolution 1/d (Å⁻¹)", "highest pixel (adu)")
    return canvas.png


def plot_labels(fits: FitTable, *, title: str) -> bytes:
    """Draw the reduced χ² and the widths of the fits, accepted and rejected."""
    with _canvas(8.6, 3.2) as canvas:
        left, right = canvas.figure.subplots(1, 2)
        for accepted, colour, label in (
            (True, COLOURS["truth"], "accepted"),
            (False, COLOURS["neutral"], "ignored"),
        ):
            rows = fits[(fits["accepted"] == accepted) & np.isfinite(fits["reduced_chi2"])]
            if len(rows):
                left.hist(
                    np.clip(rows["reduced_chi2"], 0, 5),
                    bins=40,
                    alpha=0.6,
                    color=colour,
                    label=f"{label} ({len(rows)})",
                )
                widths = np.sqrt(rows["sigma_ss"] * rows["sigma_fs"])
                right.hist(np.clip(widths, 0, 4), bins=40, alpha=0.6, color=colour, label=label)
        _label(left, f"{title}: fits", "reduced χ²", "reflections", legend=True)
        _label(right, "spot size", "σ (px)", "reflections")
    return canvas.png


def plot_losses(history: Sequence[Mapping[str, Any]], *, title: str) -> bytes:
    """Draw the training loss and, where it was measured, the validation F1 against the step."""
    with _canvas() as canvas:
        axes = canvas.figure.add_subplot()
        axes.semilogy([h["step"] for h in history], [h["loss"] for h in history], color="#bbbbbb", lw=0.7)
        smooth = pd.Series([h["loss"] for h in history]).rolling(25, min_periods=1).median()
        axes.semilogy(
            [h["step"] for h in history], smooth, color=COLOURS["classical"], label="loss, running median"
        )
        _label(axes, f"{title}: learning curve", "step", "training loss")
        scored = [(h["step"], h["scores"]["f1"]) for h in history if h.get("scores")]
        if scored:
            other = axes.twinx()
            other.plot(*zip(*scored, strict=True), "o-", color=COLOURS["peaknet"], label="validation F1")
            other.set(ylabel="validation F1", ylim=(0, 1.02))
            other.legend(loc="lower right", fontsize=8)
        axes.legend(loc="upper right", fontsize=8)
    return canvas.png


def plot_recall(recalls: Mapping[str, pd.DataFrame], *, title: str) -> bytes:
    """Draw recall per band of expected SNR with 95 % intervals; tables as ``metrics.recall_table`` gives them."""
    with _canvas() as canvas:
        axes = canvas.figure.add_subplot()
        for shift, (finder, table) in enumerate(recalls.items()):
            known = table[table["n_true"] > 0]
            places = known.index.to_numpy() + 0.12 * (shift - 0.5)
            below, above = known["recall"] - known["recall_low"], known["recall_high"] - known["recall"]
            axes.errorbar(places, known["recall"], yerr=[below.clip(0), above.clip(0)], fmt="o-", capsize=3,
                          color=COLOURS.get(finder, "black"), label=finder)  # fmt: skip
            axes.set_xticks(table.index, [f"{r.low:g}–{r.high:g}" for r in table.itertuples()], fontsize=8)
        axes.set_ylim(0, 1.02)
        _label(
            axes,
            f"{title}: recall against the simulated truth",
            "expected SNR of the reflection",
            "recall",
            legend=True,
        )
    return canvas.png


def plot_cells(lattices: IndexTable, cell: UnitCell, *, title: str) -> bytes:
    """Draw the distributions of the lattices' cell parameters, the given cell's as lines."""
    with _canvas(8.6, 4.2) as canvas:
        axes = canvas.figure.subplots(2, 3).ravel()
        for place, (name, values) in enumerate(_cell_parameters(lattices).items()):
            unit = "Å" if place < 3 else "°"
            middle = getattr(cell, name)
            half = 1.05 * max(float(np.abs(values - middle).max()), 1e-3 * middle)
            bins = np.linspace(middle - half, middle + half, 31)
            axes[place].hist(values, bins=bins, color=COLOURS["classical"])
            axes[place].axvline(middle, color=COLOURS["peaknet"], lw=1)
            _label(axes[place], "", f"{name} ({unit})", "lattices" if place % 3 == 0 else "")
        canvas.figure.suptitle(f"{title}: {len(lattices)} lattices, the given cell in orange", fontsize=10)
    return canvas.png


def _cell_parameters(lattices: IndexTable) -> dict[str, Float64Array]:
    names = [f"{axis}star_{xyz}" for axis in "abc" for xyz in "xyz"]
    rows = np.linalg.inv(lattices[names].to_numpy().reshape(-1, 3, 3)).swapaxes(1, 2)
    lengths = np.linalg.norm(rows, axis=2)
    pairs = ((1, 2), (0, 2), (0, 1))
    cosines = [(rows[:, i] * rows[:, j]).sum(axis=1) / (lengths[:, i] * lengths[:, j]) for i, j in pairs]
    angles = [np.degrees(np.arccos(np.clip(c, -1, 1))) for c in cosines]
    return dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), [*lengths.T, *angles], strict=True))


def plot_rates(scores: Scores) -> bytes:
    """Draw hit rate and indexing yield over the runs, a line per finder."""
    with _canvas(7.6, 3.8) as canvas:
        axes = canvas.figure.add_subplot()
        runs = list(dict.fromkeys(scores["run"]))
        for finder, rows in scores.groupby("finder"):
            places = [runs.index(run) for run in rows["run"]]
            colour = COLOURS.get(str(finder), "black")
            axes.plot(places, rows["indexing_yield"], "o-", color=colour, label=f"{finder}: indexing yield")
            axes.plot(places, rows["hit_rate"], "s--", color=colour, alpha=0.5, label=f"{finder}: hit rate")
        axes.set_xticks(
            range(len(runs)),
            runs,
            rotation=30 if len(runs) > 4 else 0,
            ha="right" if len(runs) > 4 else "center",
        )
        axes.set_ylim(0, 1.02)
        _label(axes, "Rates over runs", "run", "share of the frames processed", legend=True)
    return canvas.png


def _label(axes: "Axes", title: str, x: str, y: str, *, legend: bool = False) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.title.set_fontsize(10)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _shrink(image: Float32Array, most: int = 900) -> Float32Array:
    """Take the maximum of blocks, so that spots stay visible in a small picture."""
    step = -(-max(image.shape) // most)
    if step == 1:
        return image
    rows, columns = (n // step * step for n in image.shape)
    blocks = image[:rows, :columns].reshape(rows // step, step, columns // step, step)
    return np.asarray(np.fmax.reduce(np.fmax.reduce(blocks, axis=3), axis=1), dtype=np.float32)
