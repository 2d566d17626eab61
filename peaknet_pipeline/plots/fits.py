"""Pictures of the labels' material: the fits behind them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from peaknet_pipeline.plots.style import (
    GREY,
    colour_of,
    label_axes,
    legend_below,
    new_figure,
    say_nothing,
    to_png,
)
from peaknet_pipeline.schemas import DataEngineTable, FitTable, LabelQualityTable
from peaknet_pipeline.types import Float64Array

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


def plot_label_quality(table: LabelQualityTable, *, title: str) -> bytes:
    """Draw precision and recall of labels per SNR band and resolution shell, and the centre error per shell.

    Intervals are 95 %; dotted lines are what is asked for (0.98, 0.95 above 5σ, 0.15 px).
    """
    figure, (snr, shell, centre) = new_figure(13.0, 4.4, 1, 3)
    for axes, kind, name, unit in ((snr, "snr", "SNR", "1"), (shell, "shell", "1/d", "Å⁻¹")):
        rows = table[table["kind"] == kind].reset_index(drop=True)
        for what, colour, whole in (("precision", "#009E73", "n_labels"), ("recall", "#0072B2", "n_true")):
            _draw_share(axes, rows, what, colour, whole)
        axes.axhline(0.98, color="#009E73", lw=0.8, ls=":")
        axes.axhline(0.95, color="#0072B2", lw=0.8, ls=":")
        axes.set_ylim(-0.03, 1.03)
        label_axes(axes, f"{title}: labels against truth", f"{name} / {unit}, n = true reflections", "share")
        _name_bands(axes, rows)
    rows = table[table["kind"] == "shell"].reset_index(drop=True)
    centre.plot(rows.index, rows["centre_error_px"], "o-", color="#0072B2")
    centre.axhline(0.15, color="#0072B2", lw=0.8, ls=":")
    centre.set_ylim(0.0, 0.3)
    label_axes(centre, "distance from the true centre", "1/d / Å⁻¹, n = true reflections", "median / px")
    _name_bands(centre, rows)
    legend_below(snr)
    return to_png(figure)


def plot_data_engine(table: DataEngineTable) -> bytes:
    """Draw labelled reflections, and the share of fits that label, per resolution shell and experiment."""
    figure, (counts, shares) = new_figure(10.0, 4.2, 1, 2)
    for number, (experiment, rows) in enumerate(table.groupby("experiment", sort=True)):
        shells = rows.groupby("inv_d_low")[["n_fitted", "n_accepted"]].sum()
        middle = (rows["inv_d_low"] + rows["inv_d_high"]).to_numpy(np.float64)[: len(shells)] / 2
        style: dict[str, Any] = {
            "marker": "o",
            "ms": 4,
            "color": colour_of("", number),
            "label": str(experiment),
        }
        counts.plot(middle, shells["n_accepted"], **style)
        shares.plot(middle, shells["n_accepted"] / shells["n_fitted"].replace(0, np.nan), **style)
    label_axes(counts, "training set", "1/d / Å⁻¹", "labelled reflections")
    label_axes(shares, "fits that label", "1/d / Å⁻¹", "labelled / fitted")
    shares.set_ylim(-0.03, 1.03)
    if len(table):
        legend_below(counts)
    else:
        say_nothing(counts)
    return to_png(figure)


def _draw_share(axes: "Axes", rows: LabelQualityTable, what: str, colour: str, whole: str) -> None:
    known = rows[whole].to_numpy() > 0
    value = rows[what].to_numpy(np.float64)
    spread = np.abs(rows[[f"{what}_low", f"{what}_high"]].to_numpy(np.float64).T - value)
    x = np.arange(len(rows))[known] + (0.08 if what == "recall" else -0.08)
    axes.errorbar(x, value[known], spread[:, known], marker="o", ms=4, capsize=2, color=colour, label=what)
    if not known.any():
        say_nothing(axes, "no labels")


def _name_bands(axes: "Axes", rows: LabelQualityTable) -> None:
    names = [
        f"{low:.2g}–{high:.2g}\n{n}" if np.isfinite(high) else f"≥{low:.2g}\n{n}"
        for low, high, n in zip(rows["low"], rows["high"], rows["n_true"], strict=True)
    ]
    axes.set_xticks(range(len(names)), names, fontsize=6)


def _draw(axes: "Axes", fits: FitTable, values: Float64Array, top: float) -> None:
    for accepted, colour, label in KINDS:
        chosen = values[(fits["accepted"].to_numpy(bool) == accepted) & np.isfinite(values)]
        edges = list(np.linspace(0, top, 51))
        axes.hist(np.clip(chosen, 0, top), edges, alpha=0.65, color=colour, label=f"{label} ({len(chosen)})")
    if not np.isfinite(values).any():
        say_nothing(axes, "no fits")
