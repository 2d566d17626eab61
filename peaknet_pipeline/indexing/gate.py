"""The acceptance gate: how much rarer than chance is it that a lattice explains that many spots?

A random point lies within the tolerance of some lattice point with a probability p, the tolerance's volume times the
lattice's volume. That k or more of n spots do so has a binomial probability; times the number of independent
orientations that a search can try, it is the expected number of such lattices in a frame of noise. Its negative log10 is
the *significance*. It needs no fraction of explained spots, so it judges weak frames, several lattices and large cells
alike; the scrambled-azimuth control measures what it is worth on a run.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.types import BoolArray, Float64Array, IntArray

MOST = 300.0
"""Rarities beyond 10⁻³⁰⁰ are not told apart."""

TOLERANCE_STEPS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Fractions of the final tolerance that are tried; the most significant one counts and says what is explained."""

LARGEST_SHARE = 0.3
"""Largest tolerance as a share of the shortest reciprocal-lattice vector: beyond it indices mean little."""


@dataclass(frozen=True)
class Verdict:
    """Judgement of lattices, one entry each: ``accepted``, ``significance``, ``n_explained``, ``residual`` (Å⁻¹).

    ``explained`` (n, m) are the spots within the tolerance that makes the lattice most significant.
    """

    accepted: BoolArray
    significance: Float64Array
    n_explained: IntArray
    residual: Float64Array
    explained: BoolArray


def judge(
    misfit: Float64Array,
    used: BoolArray,
    reach: Float64Array,
    *,
    volume: float,
    spacing: float,
    n_rotations: int,
    params: IndexParams,
    first: bool = True,
) -> Verdict:
    """Judge lattices by their spots' misfits.

    Parameters
    ----------
    misfit : (n, m) float, Å⁻¹
        Distance of each spot from its lattice point.
    used : (n, m) bool
        Spots that exist and are not explained by an earlier lattice.
    reach : (n,) float, Å⁻¹
        Typical |q| of the spots: what a small rotation moves them by.
    volume, spacing : float
        Of the primitive cell, Å³, and its shortest reciprocal-lattice vector, Å⁻¹.
    first : bool
        The least fraction is asked of a frame's first lattice only.

    """
    levels = np.minimum(np.array(TOLERANCE_STEPS) * params.final_tolerance, LARGEST_SHARE * spacing)
    found = np.stack([_significance(misfit, used, reach, t, volume, n_rotations) for t in levels])
    best = np.argmax(found, axis=0)
    explained = used & (misfit <= levels[best][:, None])
    n_explained = explained.sum(axis=1)
    squares = np.where(explained, misfit**2, 0.0).sum(axis=1)
    residual = np.sqrt(squares / np.maximum(n_explained, 1))
    significance = found.max(axis=0) - np.log10(len(levels))
    accepted = (significance >= params.min_significance) & (n_explained >= params.min_explained)
    accepted &= residual <= params.max_residual
    if first:
        accepted &= n_explained >= params.min_fraction * used.sum(axis=1)
    return Verdict(accepted, significance, n_explained.astype(np.int64), residual, explained)


def _significance(
    misfit: Float64Array,
    used: BoolArray,
    reach: Float64Array,
    tolerance: float,
    volume: float,
    n_rotations: int,
) -> Float64Array:
    inside = (used & (misfit <= tolerance)).sum(axis=1)
    chance = min(4.0 / 3.0 * np.pi * tolerance**3 * volume, 0.999)
    # P(k or more of n) when each spot is near a lattice point with the chance of the tolerance's volume.
    rarity = -stats.binom.logsf(inside - 1, used.sum(axis=1), chance) / np.log(10.0)
    # Orientations that can be told apart: the rotation group's volume 8π² (fewer by the lattice's own rotations) over that of
    # the turns, (tolerance/|q|)³, which move a typical spot by less than the tolerance.
    trials = 8.0 * np.pi**2 / n_rotations * (np.maximum(reach, tolerance) / tolerance) ** 3
    return np.asarray(np.minimum(rarity, MOST) - np.log10(np.maximum(trials, 1.0)), dtype=np.float64)
