"""The comparison of simulated with real frames, as one plot and as figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.bench.realism_measure import SHELL, Measurement, measure, median_over_frames
from peaknet_pipeline.bench.realism_sources import (
    INDEPENDENT,
    REAL,
    finder_for,
    lysozyme_twin,
    open_source,
    simulated_set,
    thaumatin_twin,
)
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.simulate.catalogue import DETECTORS
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.types import Float64Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("tab:red", "tab:orange", "tab:brown", "tab:blue", "tab:cyan", "tab:green", "tab:olive")


def compare(realdata: Path, plot: Path, *, n_draws: int = 32, seed: int = 100) -> dict[str, Any]:
    """Measure real, independently simulated, twin and random frames, and draw them side by side.

    Returns
    -------
    dict
        Per source medians, and per quantity the random experiments' range with the real sources outside.

    """
    named = [
        measure(open_source(s, realdata), Peakfinder8Params(threshold=s.threshold))
        for s in (*REAL, *INDEPENDENT)
    ]
    twins = [(thaumatin_twin(realdata), "thaumatin twin", 3), (lysozyme_twin(realdata), "lysozyme twin", 10)]
    same = Peakfinder8Params(threshold=5.0)
    named += [measure(simulated_set(e, n, seed=seed, name=name), same) for e, name, n in twins]
    draws = measure_draws(n_draws, seed=seed)
    draw_comparison(named, draws, plot)
    return {
        "sources": {m.name: summarise(m) for m in named},
        "draws": find_ranges(named[: len(REAL)], draws),
        "plot": str(plot),
    }


def find_ranges(real: Sequence[Measurement], draws: Sequence[Measurement]) -> dict[str, dict[str, Any]]:
    """Return the range of the random experiments in every quantity, and the real sources outside of it."""
    drawn, found = [summarise(m) for m in draws], {m.name: summarise(m) for m in real}
    ranges = {}
    for quantity in drawn[0]:
        values = [d[quantity] for d in drawn]
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        outside = [name for name, values_ in found.items() if not low <= values_[quantity] <= high]
        ranges[quantity] = {"low": low, "high": high, "outside": outside}
    return ranges


def measure_draws(n_draws: int, *, seed: int) -> list[Measurement]:
    """Measure random experiments, every detector but the largest in turn, two hits each."""
    names = [name for name in DETECTORS if name != "eiger16m"]
    experiments = [draw_experiment(seed + n, detector=names[n % len(names)]) for n in range(n_draws)]
    return [measure(simulated_set(e, 2, seed=seed), finder_for(e)) for e in experiments]


def summarise(m: Measurement) -> dict[str, float]:
    """Return the quantities that random experiments ought to bracket."""
    level = median_over_frames(m.background)
    known = np.isfinite(level)
    at = np.interp([1 / 6.0, 1 / 3.3], m.inv_d[known], level[known])
    percent = np.percentile(m.intensities, [10, 50, 90]) if len(m.intensities) else np.full(3, np.nan)
    return {
        "background_6A": float(at[0]),
        "background_3A3": float(at[1]),
        "width_px": float(np.median(m.widths)) if len(m.widths) else float("nan"),
        "intensity_10": float(percent[0]),
        "intensity_50": float(percent[1]),
        "intensity_90": float(percent[2]),
        "n_peaks": float(np.median(m.n_peaks)),
    }


def draw_comparison(named: Sequence[Measurement], draws: Sequence[Measurement], path: Path) -> None:
    """Draw every measurement: named sources in colour, random experiments in grey."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(17, 10), constrained_layout=True)
    styled = [(m, {"color": "0.75", "lw": 0.9, "zorder": 1}) for m in draws]
    styled += [
        (m, {"color": c, "lw": 1.8, "label": m.name, "zorder": 2})
        for m, c in zip(named, COLOURS, strict=True)
    ]
    panels = (
        _draw_background,
        _draw_noise,
        _draw_widths,
        _draw_counts,
        _draw_intensities,
        _draw_peak_numbers,
    )
    for axis, panel in zip(axes.flat, panels, strict=True):
        for measurement, style in styled:
            panel(axis, measurement, style)
    axes.flat[0].plot([], [], color="0.75", label=f"{len(draws)} random experiments")
    axes.flat[0].legend(fontsize=8)
    figure.suptitle("Real frames, an independent simulation, twins of both, and random experiments")
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")
    plt.close(figure)


def _draw_background(axis: "Axes", m: Measurement, style: dict[str, Any]) -> None:
    axis.semilogy(m.inv_d, np.maximum(median_over_frames(_shown(m.background)), 1e-3), **style)
    axis.set(
        xlabel="1/d (Å⁻¹)",
        ylabel="photons per pixel",
        title="background level",
        xlim=(0, 0.8),
        ylim=(0.01, 3000),
    )


def _draw_noise(axis: "Axes", m: Measurement, style: dict[str, Any]) -> None:
    level, variance = _shown(m.background).ravel(), _shown(m.variance).ravel()
    kept = np.isfinite(level) & (level > 0.02)
    axis.loglog(level[kept], variance[kept], ".", ms=2, color=style["color"], zorder=style["zorder"])
    axis.set(
        xlabel="background (photons)",
        ylabel="variance (photons²)",
        title="background variance (line: Poisson)",
    )
    axis.plot([0.02, 3000], [0.02, 3000], "k", lw=0.5)


def _draw_widths(axis: "Axes", m: Measurement, style: dict[str, Any]) -> None:
    _draw_cumulative(axis, m.widths, style)
    axis.set(
        xlabel="rms width of strong peaks (px)", ylabel="fraction below", title="spot size", xlim=(0.3, 2.0)
    )


def _draw_counts(axis: "Axes", m: Measurement, style: dict[str, Any]) -> None:
    edges = np.arange(0, 0.8, 5 * SHELL)
    counts = np.histogram(m.peak_inv_d, edges)[0] / max(len(m.n_peaks), 1)
    axis.plot((edges[1:] + edges[:-1]) / 2, np.maximum(counts, 0.05), **style)
    axis.set(
        xlabel="1/d (Å⁻¹)",
        ylabel="peaks per frame and 0.05 Å⁻¹",
        title="peaks against resolution",
        yscale="log",
    )


def _draw_intensities(axis: "Axes", m: Measurement, style: dict[str, Any]) -> None:
    _draw_cumulative(axis, np.log10(np.maximum(m.intensities, 1)), style)
    axis.set(
        xlabel="log₁₀ intensity of peaks (photons)",
        ylabel="fraction below",
        title="peak intensities",
        xlim=(0.3, 6),
    )


def _draw_peak_numbers(axis: "Axes", m: Measurement, style: dict[str, Any]) -> None:
    _draw_cumulative(axis, np.log10(np.maximum(m.n_peaks.astype(np.float64), 1)), style)
    axis.set(xlabel="log₁₀ peaks in a frame", ylabel="fraction of frames below", title="peaks per frame")


def _draw_cumulative(axis: "Axes", values: Float64Array, style: dict[str, Any]) -> None:
    if len(values):
        axis.step(np.sort(values), np.linspace(0, 1, len(values)), where="post", **style)


def _shown(values: Float64Array) -> Float64Array:
    """Leave out the first shells, which the beamstop covers."""
    shown = values.copy()
    shown[:, :4] = np.nan
    return shown
