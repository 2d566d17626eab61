"""Plots of the second look's benchmark: the scores of scrambled copies, and what is indexed of real stills thinned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.indexing.second_look.acceptance import false_rate_limit
from peaknet_pipeline.plots.style import colour_of, label_axes, name_of, new_figure, to_png
from peaknet_pipeline.types import Float64Array


def plot_copies(scores: Float64Array, bars: Float64Array, path: Path) -> None:
    """Draw the share of scrambled copies that reach a score, with the 95 % limit beyond the highest, and the bars."""
    figure, (axes,) = new_figure(7.0, 4.5)
    ordered = np.sort(scores)[::-1]
    share = np.arange(1, len(ordered) + 1) / len(ordered)
    axes.step(ordered, share, where="post", label=f"{len(ordered):,} copies")
    limit = false_rate_limit(len(ordered))
    axes.axhline(limit, ls=":", color="0.4", label=f"95 % limit beyond the highest, {limit:.2%}")
    axes.axvspan(float(bars.min()), float(bars.max()), color="tab:red", alpha=0.2, label="bars of the runs")
    axes.set_yscale("log")
    label_axes(axes, "What chance reaches", "score (nats)", "share of copies that reach it")
    axes.legend()
    _write(figure, path)


def plot_thinned(sets: Sequence[dict[str, Any]], finders: tuple[str, ...], path: Path) -> None:
    """Draw, per set of stills, the share of the full frames' lattices that is found again against the photons kept."""
    names = sorted({s["name"] for s in sets})
    figure, grid = new_figure(6.0 * len(names), 4.5, 1, len(names))
    for axes, name in zip(grid, names, strict=True):
        own = sorted((s for s in sets if s["name"] == name), key=lambda s: s["share"])
        shares = [s["share"] for s in own]
        for finder in finders:
            for part, style in (("list", "--"), ("with_second_look", "-")):
                found = [s[finder][part]["frames_right"] / max(s["hits"], 1) for s in own]
                label = f"{name_of(finder)}, {'list' if part == 'list' else 'with second look'}"
                axes.plot(shares, found, style, marker="o", color=colour_of(finder), label=label)
        axes.set_xscale("log")
        axes.set_ylim(-0.03, 1.05)
        title = f"{name}, {own[-1]['hits']} stills"
        label_axes(axes, title, "share of the photons kept", "frames right / frames indexed in full")
        axes.legend()
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    with replace_atomically(path) as temporary:
        temporary.write_bytes(to_png(figure))
