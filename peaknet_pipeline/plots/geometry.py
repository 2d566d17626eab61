"""Pictures of a refined geometry."""

import numpy as np
import pandas as pd

from peaknet_pipeline.plots.style import label_axes, legend_below, new_figure, to_png


def plot_geometry_refinement(panels: pd.DataFrame, *, title: str) -> bytes:
    """Draw each panel's rms residual before and after, and how far it moved; the table follows ``PANEL_RESIDUALS``."""
    figure, (left, right) = new_figure(10.4, 4.2, 1, 2)
    place = np.arange(len(panels))
    for offset, name, colour in ((-0.2, "before", "#E69F00"), (0.2, "after", "#0072B2")):
        left.bar(place + offset, panels[f"{name}_px"].fillna(0.0), 0.4, color=colour, label=name)
    label_axes(left, f"{title}: spots against their rays", "panel", "rms distance / px")
    for name, marker, colour in (("shift_x_px", "o", "#0072B2"), ("shift_y_px", "s", "#D55E00")):
        right.plot(place, panels[name], marker, color=colour, label=f"{name[6]}")
    right.axhline(0.0, color="black", lw=0.8)
    label_axes(right, "panels against the detector", "panel", "shift / px")
    legend_below(left)
    legend_below(right)
    return to_png(figure)
