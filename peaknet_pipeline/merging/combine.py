"""Runs, each scaled by itself, on one scale: two numbers a run, so that a new run costs the new run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.merging.run_sums import RunSums, move_sums
from peaknet_pipeline.merging.symmetry import Symmetry, indices_of, inverse_spacing
from peaknet_pipeline.types import Float64Array, IntArray, UnitCell

MIN_COMMON = 20
"""Common reflections from which a run has a B factor of its own beside its scale."""


@dataclass(frozen=True)
class RunScale:
    """How a run was brought onto the common scale: I / (k exp(−B s²/2)), and the setting that was chosen."""

    scale: float
    b_factor: float
    setting: int
    correlation: float


def combine_runs(
    runs: Sequence[RunSums], *, cell: UnitCell, symmetry: Symmetry
) -> tuple[RunSums, list[RunScale]]:
    """Return the sums of all runs on one scale, in one setting, and how each run was brought there.

    The run with the most observations comes first; each other is compared with those before it. Scale and B factor are fitted
    to ln I by weighted least squares over the common reflections; of the settings the one that correlates best is taken.

    Raises
    ------
    TableError
        No run has an accepted crystal.

    """
    order = sorted(range(len(runs)), key=lambda n: -runs[n].sums[:, 3].sum())
    order = [n for n in order if runs[n].sums[:, 3].sum() > 0]
    if not order:
        raise TableError(
            "no crystal was accepted",
            where="merge",
            expected="crystals that correlate with each other",
            found=f"{len(runs)} runs without",
            remedy="Look at the reasons in the table of crystals; more frames may be needed.",
        )
    all_keys = np.unique(
        np.concatenate([move_sums(run, s, symmetry).keys for run in runs for s in symmetry.settings])
    )
    s2 = inverse_spacing(indices_of(all_keys), cell) ** 2
    total = np.zeros((2, runs[0].sums.shape[1], len(all_keys)))
    scales = [RunScale(1.0, 0.0, 0, float("nan"))] * len(runs)
    for n in order:
        trials = [_spread(move_sums(runs[n], s, symmetry), all_keys) for s in symmetry.settings]
        fits = [_fit(sums, total, s2) for sums in trials]
        best = int(np.argmax([fit[2] for fit in fits])) if len(trials) > 1 else 0
        log_scale, b_factor, correlation = fits[best]
        g = np.exp(log_scale - 0.5 * b_factor * s2)
        total += trials[best] * np.stack([g * g, g, np.ones_like(g), np.ones_like(g)])
        scales[n] = RunScale(float(np.exp(log_scale)), b_factor, best, correlation)
    seen = total[:, 3].sum(axis=0) > 0
    return RunSums(all_keys[seen], total[:, :, seen], runs[order[0]].crystals), scales


def _spread(sums: RunSums, keys: IntArray) -> Float64Array:
    spread = np.zeros((*sums.sums.shape[:2], len(keys)))
    spread[:, :, np.searchsorted(keys, sums.keys)] = sums.sums
    return spread


def _fit(sums: Float64Array, total: Float64Array, s2: Float64Array) -> tuple[float, float, float]:
    """Return ln k, B and the correlation of a run with the total; 0, 0, 0 without common reflections.

    The weight of a reflection is 1/(σ₁² + σ₂²) in units of the mean of both, of those with I/σ > 2 in both: their logarithms
    are finite and hardly biased.
    """
    (a0, a1), (b0, b1) = sums[:, :2].sum(axis=0), total[:, :2].sum(axis=0)
    common = (a0 > 0) & (b0 > 0)
    if common.sum() < 3:
        return 0.0, 0.0, 0.0
    a, b = a1[common] / a0[common], b1[common] / b0[common]
    sa, sb = a0[common] ** -0.5, b0[common] ** -0.5
    strong = (a > 2 * sa) & (b > 2 * sb)
    s2 = s2[common]
    correlation = _correlation(a, b, sa, sb, s2)
    if strong.sum() < 3:
        return float(np.log(max(a.sum(), 1e-12) / max(b.sum(), 1e-12))), 0.0, correlation
    ratio = np.log(a[strong] / b[strong])
    weight = 1.0 / ((sa / a)[strong] ** 2 + (sb / b)[strong] ** 2 + 0.01)
    design = np.stack([np.ones(strong.sum()), -0.5 * s2[strong]], axis=1)
    if strong.sum() < MIN_COMMON:
        return float(np.average(ratio, weights=weight)), 0.0, correlation
    normal = design.T @ (weight[:, None] * design)
    log_scale, b_factor = np.linalg.solve(normal, design.T @ (weight * ratio))
    return float(log_scale), float(b_factor), correlation


def _correlation(
    a: Float64Array, b: Float64Array, sa: Float64Array, sb: Float64Array, s2: Float64Array
) -> float:
    """Return the correlation of two sets of intensities over a straight fall-off with s², weighted by their noise."""

    def flat(values: Float64Array, sigma: Float64Array) -> Float64Array:
        n_bins = max(1, min(20, len(values) // 20))
        edges = np.quantile(s2, np.linspace(0, 1, n_bins + 1)[1:-1])
        bins = np.searchsorted(edges, s2)
        mean = np.bincount(bins, weights=values) / np.maximum(np.bincount(bins), 1)
        unit = np.maximum(mean, 1e-3 * np.abs(mean).max() + 1e-12)[bins]
        return np.stack([values / unit, sigma / unit])

    (x, sx), (y, sy) = flat(a, sa), flat(b, sb)
    w = 1.0 / (1.0 + sx**2 + sy**2)
    x, y = (np.clip(v, -6.0, 6.0) for v in (x, y))
    x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
    below = np.sqrt((w * x * x).sum() * (w * y * y).sum())
    return float((w * x * y).sum() / below) if below > 0 else 0.0
