"""Pictures of the labels' material: the fits behind them."""

from typing import TYPE_CHECKING

import numpy as np

from peaknet_pipeline.plots.style import GREY, label_axes, legend_below, new_figure, say_nothing, to_png
from peaknet_pipeline.types import FitTable, Float64Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ((True, "#009E73", "accepted"), (False, GREY, "ignored"))
TOP_CHI2, TOP_WIDTH = 5.0, 4.0


def plot_labels(fits: FitTable, *, title: str) -> bytes:
    """Draw the reduced χ² and the widths of the fits: those that label pixels, and those that are ignored."""
    figure, (left, right) = new_figure(9.6, 3.8, 1, 2)
    sigma_ss, sigma_fs = (np.abs(fits[name].to_numpy(np.float64)) for name in ("sigma_ss", "sigma_fs"))
    _draw(left, fits, fits["reduced_chi2"].to_numpy(np.float64), TOP_CHI2)
    _draw(right, fits, np.sqrt(sigma_ss * sigma_fs), TOP_WIDTH)
    label_axes(left, f"{title}: {len(fits)} fits", f"reduced χ² (1), {TOP_CHI2:g} = more", "reflections")
    label_axes(right, "spot size", f"σ / px, {TOP_WIDTH:g} = more", "reflections")
    legend_below(left)
    return to_png(figure)


def _draw(axes: "Axes", fits: FitTable, values: Float64Array, top: float) -> None:
    for accepted, colour, label in KINDS:
        chosen = values[(fits["accepted"].to_numpy(bool) == accepted) & np.isfinite(values)]
        edges = list(np.linspace(0, top, 51))
        axes.hist(np.clip(chosen, 0, top), edges, alpha=0.65, color=colour, label=f"{label} ({len(chosen)})")
    if not np.isfinite(values).any():
        say_nothing(axes, "no fits")
