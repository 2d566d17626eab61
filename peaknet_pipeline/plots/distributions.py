"""Pictures of distributions: peakogram, resolution, cells, orientations, residuals."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from peaknet_pipeline.hits import hit_peaks
from peaknet_pipeline.plots.style import (
    IMAGE_COLOURS,
    OTHER_COLOURS,
    colour_of,
    few_ticks,
    label_axes,
    legend_below,
    name_of,
    new_figure,
    say_nothing,
    to_png,
    whole_ticks,
)
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.types import Float64Array, UnitCell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL_NAMES = ("a", "b", "c", "alpha", "beta", "gamma")
CELL_SIGNS = ("a / Å", "b / Å", "c / Å", "α / °", "β / °", "γ / °")


def plot_peakogram(
    peaks: PeakTable, *, title: str, unit: str = "adu", saturation: float | None = None
) -> bytes:
    """Draw the peaks' highest pixel against resolution: saturation is an edge, ice and salt are columns."""
    figure, (axes,) = new_figure(7.4, 5.0)
    _draw_peakogram(axes, peaks, title, unit)
    if saturation is not None:
        axes.axhline(saturation, color="#D55E00", lw=1.2, label="saturation")
        legend_below(axes)
    return to_png(figure)


def plot_peaks(peaks: PeakTable, n_frames: int, *, title: str, unit: str = "adu") -> bytes:
    """Draw a run's peaks at a glance: how many in each frame, and the peakogram."""
    figure, (left, right) = new_figure(10.4, 3.9, 1, 2)
    counts = np.bincount(peaks["frame"].to_numpy(np.int64), minlength=n_frames)
    left.plot(np.arange(len(counts)), counts, ".", ms=4, color="#0072B2")
    label_axes(left, f"{title}: {len(peaks)} peaks in {n_frames} frames", "frame", "peaks in the frame")
    _draw_peakogram(right, peaks, "peakogram", unit)
    return to_png(figure)


def _draw_peakogram(axes: "Axes", peaks: PeakTable, title: str, unit: str) -> None:
    from matplotlib.colors import LogNorm

    known = np.isfinite(peaks["inv_d"]) & (peaks["max_intensity"] > 0)
    x, y = (peaks.loc[known, name].to_numpy(np.float64) for name in ("inv_d", "max_intensity"))
    label_axes(axes, f"{title} ({len(x)} peaks)", "resolution 1/d / Å⁻¹", f"highest pixel / {unit}")
    if not len(x):
        say_nothing(axes, "no peaks with a resolution")
        return
    n_bins = int(np.clip(1.2 * np.sqrt(len(x)), 24, 110))  # fewer bins for fewer peaks, or all bins hold one
    heights = np.geomspace(y.min(), max(y.max(), y.min() * 1.01), n_bins)
    bins = [np.linspace(0, x.max() * 1.02, n_bins), heights]
    shown = axes.hist2d(x, y, bins=bins, norm=LogNorm(), cmap=IMAGE_COLOURS, cmin=1)
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.colorbar(shown[3], ax=axes, label="peaks per bin", format="%g")
    axes.set_yscale("log")


def plot_resolution(peaks: Mapping[str, PeakTable], *, title: str) -> bytes:
    """Draw how many peaks each finder has per shell of 1/d."""
    figure, (axes,) = new_figure(7.4, 4.0)
    values = {name: table["inv_d"].dropna().to_numpy(np.float64) for name, table in peaks.items()}
    top = max((v.max() for v in values.values() if v.size), default=0.0)
    for number, (name, inv_d) in enumerate(values.items()):
        if top > 0:
            label = f"{name_of(name)} ({len(inv_d)} peaks)"
            axes.hist(
                inv_d,
                list(np.linspace(0, top, 61)),
                histtype="step",
                lw=1.6,
                color=colour_of(name, number),
                label=label,
            )
    label_axes(axes, title, "resolution 1/d / Å⁻¹", f"peaks per {top / 60:.2g} Å⁻¹")
    if top > 0:
        _add_d_axis(axes)
        legend_below(axes)
    else:
        say_nothing(axes, "no peaks with a resolution")
    return to_png(figure)


def plot_peaks_per_frame(
    peaks: Mapping[str, PeakTable], *, n_frames: int, min_peaks: int, title: str
) -> bytes:
    """Draw how many frames have how many peaks that count for a hit; the hit limit is marked."""
    figure, (axes,) = new_figure(7.4, 4.0)
    counts = {
        k: np.bincount(hit_peaks(t)["frame"].to_numpy(np.int64), minlength=n_frames) for k, t in peaks.items()
    }
    top = max([min_peaks + 1, *(int(c.max()) for c in counts.values() if c.size)])
    for number, (name, count) in enumerate(counts.items()):
        edges = list(np.arange(0, top + 2, max(1, top // 60)) - 0.5)
        axes.hist(count, edges, histtype="step", lw=1.6, color=colour_of(name, number), label=name_of(name))
    axes.axvline(min_peaks - 0.5, color="black", lw=1.0, ls="--", label=f"hit: ≥ {min_peaks} peaks")
    axes.set_yscale("symlog", linthresh=1.0)
    label_axes(axes, f"{title} ({n_frames} frames)", "peaks in a frame", "frames")
    legend_below(axes)
    return to_png(figure)


def plot_cells(lattices: Mapping[str, IndexTable], reference: UnitCell | None = None, *, title: str) -> bytes:
    """Draw the six cell parameters' distributions over the lattices; the known cell is marked.

    Lattices beyond an axis are counted in its outermost bin.
    """
    figure, axes = new_figure(9.6, 5.4, 2, 3)
    cells = {name: cell_parameters(table) for name, table in lattices.items()}
    for place, parameter, sign in zip(axes, CELL_NAMES, CELL_SIGNS, strict=True):
        together = np.concatenate([table[parameter].to_numpy() for table in cells.values()] or [np.empty(0)])
        label_axes(place, "", sign, "lattices")
        if not together.size:
            say_nothing(place, "no lattices")
            continue
        low, high = np.percentile(together, (1, 99))
        margin = max(0.15 * (high - low), 0.002 * abs(high))
        for number, (name, table) in enumerate(cells.items()):
            bins = list(np.linspace(low - margin, high + margin, 41))
            axes_colour = colour_of(name, number)
            values = np.clip(table[parameter], bins[0], bins[-1])
            place.hist(values, bins, histtype="step", lw=1.5, color=axes_colour, label=name_of(name))
        few_ticks(place)
        whole_ticks(place.yaxis)
        if reference is not None:
            place.axvline(getattr(reference, parameter), color="black", lw=1.0, ls="--", label="known cell")
    figure.suptitle(
        f"{title} ({', '.join(f'{name_of(k)} {len(v)}' for k, v in cells.items())} lattices)",
        x=0.01,
        ha="left",
    )
    legend_below(axes[0])
    return to_png(figure)


def plot_orientations(lattices: Mapping[str, IndexTable], *, title: str) -> bytes:
    """Draw where each lattice's a* and c* point: the upper hemisphere around the beam, equal areas.

    Randomly oriented crystals fill the disc evenly; preferred orientation shows as a cluster or a belt.
    """
    figure, axes = new_figure(9.2, 4.9, 1, 2)
    for place, axis in zip(axes, ("a", "c"), strict=True):
        for number, (name, table) in enumerate(lattices.items()):
            x, y = _equal_area(table[[f"{axis}star_{xyz}" for xyz in "xyz"]].to_numpy(np.float64))
            place.scatter(
                x,
                y,
                s=14,
                alpha=0.6,
                lw=0,
                color=colour_of(name, number),
                label=f"{name_of(name)} ({len(x)})",
            )
        angle = np.linspace(0, 2 * np.pi, 181)
        place.plot(np.cos(angle), np.sin(angle), color="black", lw=0.8)
        place.set_aspect("equal")
        label_axes(place, f"{title}: {axis}*", "towards +x (equal-area, 1)", "towards +y (equal-area, 1)")
        few_ticks(place)
    legend_below(axes[0])
    return to_png(figure)


def plot_panel_residuals(residuals: pd.DataFrame, *, title: str) -> bytes:
    """Draw, per panel, how far found peaks lie from predicted reflections: a shifted panel stands out.

    Parameters
    ----------
    residuals : DataFrame
        ``panel, d_fs, d_ss``: found minus predicted, pixels, one row per pair.

    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(9.0, 5.2, 2, 1, sharex=True)
    for place, name, colour in zip(axes, ("d_fs", "d_ss"), OTHER_COLOURS[:2], strict=True):
        grouped = residuals.groupby("panel")[name]
        panels = np.array(list(grouped.groups), dtype=np.int64)
        middle = grouped.median().to_numpy(np.float64)
        low, high = (grouped.quantile(q).to_numpy(np.float64) for q in (0.16, 0.84))
        place.errorbar(panels, middle, (middle - low, high - middle), fmt="o", ms=5, capsize=2, color=colour)
        place.axhline(0.0, color="black", lw=0.8)
        label_axes(place, "", "", f"found − predicted,\n{name[2:]} / px")
        if not len(panels):
            say_nothing(place, "no pairs")
    axes[0].set_title(f"{title}: median and central 68 % of {len(residuals)} pairs", loc="left")
    axes[1].set_xlabel("panel")
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return to_png(figure)


def cell_parameters(lattices: IndexTable) -> pd.DataFrame:
    """Return a, b, c (Å) and α, β, γ (degrees) of each lattice from its reciprocal axes."""
    columns = [f"{axis}star_{xyz}" for axis in "abc" for xyz in "xyz"]
    reciprocal = lattices[columns].to_numpy(np.float64).reshape(-1, 3, 3)
    real = np.swapaxes(np.linalg.inv(reciprocal), 1, 2)
    lengths = np.linalg.norm(real, axis=2)
    cosines = [
        np.einsum("ni,ni->n", real[:, i], real[:, j]) / (lengths[:, i] * lengths[:, j])
        for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    angles = np.degrees(np.arccos(np.clip(np.array(cosines).reshape(3, -1), -1, 1)))
    return pd.DataFrame(dict(zip(CELL_NAMES, (*lengths.T, *angles), strict=True)))


def _equal_area(directions: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Project directions, up to their sign, onto the unit disc: Lambert's equal-area projection about +z."""
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    unit = np.where(unit[:, 2:] < 0, -unit, unit)
    scale = np.sqrt(1.0 / (1.0 + unit[:, 2]))
    return unit[:, 0] * scale, unit[:, 1] * scale


def _add_d_axis(axes: "Axes") -> None:
    """Add d in Å along the top."""
    low, high = axes.get_xlim()
    twin = axes.twiny()
    twin.set_xlim(low, high)
    ticks = [d for d in (20, 10, 6, 4, 3, 2.5, 2, 1.8, 1.6, 1.4, 1.2, 1.0) if 0 < 1 / d < high]
    twin.set_xticks([1 / d for d in ticks], [f"{d:g}" for d in ticks], fontsize=10)
    twin.set_xlabel("d / Å", fontsize=11)
    twin.grid(visible=False)
