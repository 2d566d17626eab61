"""Pictures of a refined geometry."""

from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.plots.style import (
    label_axes,
    legend_below,
    new_figure,
    say_nothing,
    to_png,
    whole_ticks,
)


def plot_geometry_refinement(panels: pd.DataFrame, *, title: str) -> bytes:
    """Draw each panel's rms residual before and after, and how far it moved; the table follows ``PANEL_RESIDUALS``."""
    figure, (left, right) = new_figure(10.4, 4.2, 1, 2)
    place, entries = np.arange(len(panels)), dict[str, Any]()
    for offset, name, colour in ((-0.2, "before", "#E69F00"), (0.2, "after", "#0072B2")):
        entries[name] = left.bar(place + offset, panels[f"{name}_px"].fillna(0.0), 0.4, color=colour)
    label_axes(left, f"{title}: spots against their rays", "panel", "rms distance / px")
    for name, marker, colour in (("shift_x_px", "o", "#0072B2"), ("shift_y_px", "s", "#D55E00")):
        (entries[f"shift in {name[6]}"],) = right.plot(place, panels[name], marker, color=colour)
    right.axhline(0.0, color="black", lw=0.8)
    label_axes(right, "panels against the detector", "panel", "shift / px")
    for axes in (left, right):
        axes.set_xlim(-0.6, max(len(panels), 1) - 0.4)
        whole_ticks(axes.xaxis)
    legend_below(left, entries)
    return to_png(figure)


def plot_geometry_trend(trend: pd.DataFrame, *, title: str) -> bytes:
    """Draw the detector's shift, distance and tilt over an experiment's runs; the table follows ``GEOMETRY_TREND``."""
    figure, axes = new_figure(10.4, 3.8, 1, 3)
    place = np.arange(len(trend))
    for one, name, unit, columns in (
        (axes[0], "shift", "mm", ("shift_x_mm", "shift_y_mm")),
        (axes[1], "distance", "mm", ("shift_z_mm",)),
        (axes[2], "tilt", "deg", ("tilt_x_deg", "tilt_y_deg")),
    ):
        label_axes(one, f"{title}: {name}", "run", f"{name} from the first geometry / {unit}")
        entries: dict[str, Any] = {}
        for column, colour in zip(columns, ("#0072B2", "#D55E00"), strict=False):
            (entries[column.split("_")[1]],) = one.plot(place, trend[column], "o-", color=colour, lw=1.0)
        one.axhline(0.0, color="black", lw=0.8)
        one.set_xticks(place, [run.rpartition("-")[2] for run in trend["run"]], rotation=90)
        if len(entries) > 1:
            legend_below(one, entries)
        if not len(trend):
            say_nothing(one)
    return to_png(figure)
