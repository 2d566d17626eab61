"""Pictures of the search for a cell."""

import numpy as np

from peaknet_pipeline.plots.distributions import CELL_NAMES, CELL_SIGNS
from peaknet_pipeline.plots.style import few_ticks, label_axes, legend_below, new_figure, to_png, whole_ticks
from peaknet_pipeline.types import BoolArray, Float64Array, UnitCell


def plot_reduced_cells(reduced: Float64Array, agreeing: BoolArray, cell: UnitCell, *, title: str) -> bytes:
    """Draw the reduced cells that single frames suggest, those that agree on one apart, and the reduced cell found.

    Frames beyond an axis are counted in its outermost bin.

    Parameters
    ----------
    reduced : (n, 6) float
        Lengths, Å, and angles, degrees, of each frame's reduced cell.
    agreeing : (n,) bool
    cell : UnitCell
        The consensus, reduced.

    """
    figure, axes = new_figure(9.6, 5.4, 2, 3)
    colours = {"agreeing": "#0072B2", "others": "#E69F00"}
    for place, column, parameter, sign in zip(axes, reduced.T, CELL_NAMES, CELL_SIGNS, strict=True):
        found = float(getattr(cell, parameter))
        low, high = np.percentile(np.append(column, found), (2, 98))
        margin = max(0.15 * (high - low), 0.005 * abs(high))
        bins = list(np.linspace(low - margin, high + margin, 61))
        for (name, colour), which in zip(colours.items(), (agreeing, ~agreeing), strict=True):
            label = f"{name} ({int(which.sum())})"
            values = np.clip(column[which], bins[0], bins[-1])
            place.hist(values, bins, histtype="step", lw=1.5, color=colour, label=label)
        place.axvline(found, color="black", lw=1.0, ls="--", label="cell found, reduced")
        label_axes(place, "", sign, "frames")
        few_ticks(place)
        whole_ticks(place.yaxis)
    figure.suptitle(f"{title}: reduced cells of {len(reduced)} frames", x=0.01, ha="left")
    legend_below(axes[0])
    return to_png(figure)
