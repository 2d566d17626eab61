"""The finder's parameter scan as heat maps."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from peaknet_pipeline.plots.style import label_axes, new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_scan(scan: pd.DataFrame, *, title: str, in_use: tuple[float, float] | None = None) -> bytes:
    """Draw what each threshold and SNR comes to with the best of the settings not shown: frames indexed, peaks explained.

    The table follows ``SCAN``, best setting first: a solid frame marks it, a dashed one the threshold and SNR ``in_use``.
    """
    frames = int(scan["frames"].iloc[0])
    figure, axes = new_figure(11.0, 4.0, columns=2)
    best = scan.sort_values("merit", ascending=False).groupby(["min_snr", "threshold"]).first()
    told = {
        "indexed": f"{title}: indexed of {frames} frames",
        "explained": "peaks explained (frame: best, dashed: in use)",
    }
    for part, (name, text) in zip(axes, told.items(), strict=True):
        values = best[name].unstack()
        _draw(part, values, text)
        _mark(part, values, scan["threshold"].iloc[0], scan["min_snr"].iloc[0], "solid")
        if in_use is not None:
            _mark(part, values, *in_use, "dashed")
    axes[1].set_ylabel("")
    return to_png(figure)


def _draw(axes: "Axes", values: pd.DataFrame, title: str) -> None:
    grid = values.to_numpy(np.float64)
    axes.grid(visible=False)
    top = max(float(np.nanmax(grid)), 1.0)
    axes.imshow(grid, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=top)
    thresholds = values.columns.to_numpy(np.float64)
    axes.set_xticks(range(len(thresholds)), [f"{t:.0f}" if t >= 100 else f"{t:.3g}" for t in thresholds])
    axes.set_yticks(range(grid.shape[0]), [f"{value:g}" for value in values.index])
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            shade = "black" if value > 0.6 * top else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=shade, fontsize=10)
    label_axes(axes, title, "threshold (adu)", "min_snr (σ)")


def _mark(axes: "Axes", values: pd.DataFrame, threshold: float, min_snr: float, style: str) -> None:
    from matplotlib.patches import Rectangle

    column = int(np.flatnonzero(values.columns == threshold)[0])
    row = int(np.flatnonzero(values.index == min_snr)[0])
    corner = (column - 0.47, row - 0.47)
    axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, edgecolor="red", linewidth=2.5, linestyle=style))
