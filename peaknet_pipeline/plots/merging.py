"""Pictures of merged data: figures by shell with their standard errors, and the Wilson plot."""

from typing import TYPE_CHECKING

import numpy as np

from peaknet_pipeline.merging.figures import Wilson
from peaknet_pipeline.plots.style import GREY, label_axes, new_figure, say_nothing, to_png
from peaknet_pipeline.schemas import MergeShellTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"


def plot_merging(shells: MergeShellTable, wilson: Wilson, *, title: str) -> bytes:
    """Draw CC₁/₂, CC* and R_split, completeness, multiplicity and I/σ against resolution, and the Wilson plot."""
    figure, axes = new_figure(11.0, 7.2, 2, 2)
    _draw(
        axes[0],
        shells,
        {"cc_half": ("CC₁/₂", BLUE), "cc_star": ("CC*", GREEN), "r_split": ("R_split", VERMILION)},
    )
    label_axes(axes[0], title, "1/d (Å⁻¹)", "correlation, R (1)")
    axes[0].set_ylim(-0.1, 1.1)
    _draw(axes[1], shells, {"completeness": ("completeness", BLUE)})
    label_axes(axes[1], "Measured of all unique reflections", "1/d (Å⁻¹)", "completeness (1)")
    axes[1].set_ylim(0.0, 1.05)
    _draw(axes[2], shells, {"multiplicity": ("multiplicity", BLUE), "mean_snr": ("I/σ", VERMILION)})
    label_axes(axes[2], "Observations a reflection, and signal", "1/d (Å⁻¹)", "mean (1)")
    _draw_wilson(axes[3], wilson)
    return to_png(figure)


def _draw(axes: "Axes", shells: MergeShellTable, columns: dict[str, tuple[str, str]]) -> None:
    rows = shells.iloc[:-1]
    if not len(rows):
        say_nothing(axes)
        return
    x = (rows["inv_d_low"] + rows["inv_d_high"]).to_numpy(dtype=np.float64) / 2.0
    for name, (label, colour) in columns.items():
        error = rows[f"{name}_error"].to_numpy() if f"{name}_error" in rows else None
        axes.errorbar(
            x, rows[name].to_numpy(), yerr=error, color=colour, marker="o", ms=4, lw=1.2, label=label
        )
    if len(columns) > 1:
        axes.legend(frameon=False)


def _draw_wilson(axes: "Axes", wilson: Wilson) -> None:
    label_axes(
        axes,
        f"Wilson plot: B = {wilson.b_factor:.1f} ± {wilson.b_error:.1f} Å²",
        "1/d² (Å⁻²)",
        "ln⟨I/ε⟩/Σf² (1)",
    )
    if not len(wilson.s2):
        say_nothing(axes)
        return
    axes.plot(wilson.s2, wilson.log_ratio, "o", ms=4, color=BLUE)
    if np.isfinite(wilson.b_factor):
        level = np.mean(wilson.log_ratio + 0.5 * wilson.b_factor * wilson.s2)
        axes.plot(wilson.s2, level - 0.5 * wilson.b_factor * wilson.s2, color=GREY, lw=1.2)
