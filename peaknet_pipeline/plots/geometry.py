"""Pictures of a refined geometry."""

from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.plots.style import label_axes, legend_below, new_figure, to_png, whole_ticks


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
