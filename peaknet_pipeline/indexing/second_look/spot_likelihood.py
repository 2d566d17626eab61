"""How much more likely a reflection makes what is seen at its place: tables of log-likelihood ratios for one frame.

What is seen near a place is the highest significance of a weak spot within reach of it, in a few bins. If nothing diffracts
there, its distribution is that of random good places of the same frame and resolution ring, other spots and hot pixels
included: no formula for noise has to hold, and a single bright spot can carry only so much (about 9 nats). If a
reflection lies there, its intensity
is exponentially distributed (Wilson statistics of acentric reflections, blurred further by partiality) with the mean μ
photons, its
photons are Poisson distributed on top of the background, and what is seen is the larger of that and of the noise.
The ratio of the two, per ring, mean and bin, is the evidence in nats. Under noise its exponential has the mean 1, so
that a sum of t
nats at one fixed orientation is reached by chance with a probability of at most e⁻ᵗ.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from peaknet_pipeline.indexing.second_look.flat_detector import UNCOVERED, FlatDetector
from peaknet_pipeline.types import Float32Array, Float64Array, IntArray, UInt8Array

N_RINGS = 6
"""Resolution rings of equal area that have statistics of their own."""

LEAST_SIGNIFICANCE, BIN_WIDTH, N_BINS = 2.0, 0.5, 18
"""Bin 0 means no weak spot, bin b ≥ 1 a significance from 2.0 + 0.5 · (b − 1); the last one is open."""

REACH = 1.8
"""Distance, cells of the flat detector, within which a weak spot counts for a reflection."""

N_MEANS, LEAST_MEAN = 30, 2.0**-8
"""Mean intensities μ = LEAST_MEAN · 2^m photons, m = 0 … N_MEANS − 1."""

MISPLACED, EFFICIENCY = 0.1, 0.9
"""Share of reflections whose photons are not where they are expected, and the share of the photons that the filter sees."""

SAMPLES_PER_RING = 20_000
_BACKGROUNDS = 2.0 ** np.arange(-14, 25)
_DRAWS = 3000


@dataclass(frozen=True)
class Rings:
    """Rings of the flat detector: upper ``edges`` (N_RINGS,) of the radius, cells, and sampled cells (N_RINGS, n) as
    flat indices."""

    edges: Float64Array
    samples: IntArray


def make_rings(flat: FlatDetector, generator: np.random.Generator) -> Rings:
    """Divide the good cells into rings of equal number and draw the places at which noise is sampled."""
    index = np.flatnonzero(flat.template.reshape(-1) != UNCOVERED)
    y, x = np.divmod(index, 2 * flat.half)
    radius = np.hypot(x - flat.half + 0.5, y - flat.half + 0.5)
    edges = np.quantile(radius, np.arange(1, N_RINGS + 1) / N_RINGS) if index.size else np.ones(N_RINGS)
    ring = np.minimum(np.searchsorted(edges, radius, side="left"), N_RINGS - 1)
    samples = np.zeros((N_RINGS, SAMPLES_PER_RING), dtype=np.int64)
    for number in range(N_RINGS):
        inside = index[ring == number]
        if inside.size:
            samples[number] = generator.choice(inside, SAMPLES_PER_RING)
    return Rings(np.asarray(edges, dtype=np.float64), samples)


def draw_map(flat: FlatDetector, places: Float64Array, significance: Float32Array) -> UInt8Array:
    """Return the bin of the highest weak spot within reach of each cell, (y, x) uint8; ``UNCOVERED`` where no pixel is good."""
    bins = significance_bins(significance)
    seen = flat.template.copy()
    _stamp(seen, places, bins, flat.half, REACH)
    return seen


def significance_bins(significance: Float32Array) -> UInt8Array:
    """Return the bins, (n,) uint8, of significances (n,)."""
    number = np.floor((significance - LEAST_SIGNIFICANCE) / BIN_WIDTH) + 1.0
    return np.asarray(np.clip(number, 0, N_BINS - 1), dtype=np.uint8)


@numba.njit(cache=True, nogil=True)
def _stamp(seen: Any, places: Any, bins: Any, half: Any, reach: Any) -> Any:
    side = seen.shape[0]
    around = int(np.ceil(reach))
    for i in range(places.shape[0]):
        x, y, value = places[i, 0], places[i, 1], bins[i]
        column, row = int(np.floor(x)) + half, int(np.floor(y)) + half
        for a in range(max(row - around, 0), min(row + around + 1, side)):
            for b in range(max(column - around, 0), min(column + around + 1, side)):
                dy, dx = a - half + 0.5 - y, b - half + 0.5 - x
                if dx * dx + dy * dy <= reach * reach and seen[a, b] < value:
                    seen[a, b] = value


def likelihood_tables(seen: UInt8Array, rings: Rings, background: Float64Array) -> Float32Array:
    """Return the log-likelihood ratios of one frame, (N_RINGS, N_BINS, N_MEANS) nats.

    Parameters
    ----------
    seen : (y, x) uint8
        From :func:`draw_map`.
    rings : Rings
    background : (N_RINGS,) float
        Photons expected in a spot's footprint, per ring.

    """
    values = seen.reshape(-1)[rings.samples]
    tables = np.zeros((N_RINGS, N_BINS, N_MEANS), dtype=np.float32)
    nearest = np.argmin(np.abs(np.log(_BACKGROUNDS)[:, None] - np.log(np.maximum(background, 1e-9))), axis=0)
    signal = signal_distributions()[nearest]
    for ring in range(N_RINGS):
        counts = np.bincount(values[ring][values[ring] != UNCOVERED], minlength=N_BINS)[:N_BINS]
        noise = (counts + 0.5) / (counts.sum() + 0.5 * N_BINS)
        # The larger of two independent values has the product of their distribution functions.
        both = np.cumsum(noise)[None, :] * signal[ring]
        with_signal = np.diff(both, axis=1, prepend=0.0)
        mixed = (1.0 - MISPLACED) * with_signal + MISPLACED * noise
        tables[ring] = np.log(mixed / noise).T
    return tables


@lru_cache(maxsize=1)
def signal_distributions() -> Float64Array:
    """Return P(significance of a reflection's own photons is in bin ≤ b), (backgrounds, means, bins), by seeded sampling."""
    generator = np.random.default_rng(20260101)
    unit = generator.exponential(1.0, _DRAWS)
    normal = generator.standard_normal(_DRAWS)
    means = LEAST_MEAN * 2.0 ** np.arange(N_MEANS)
    result = np.zeros((len(_BACKGROUNDS), N_MEANS, N_BINS))
    for i, expected in enumerate(_BACKGROUNDS):
        strength = EFFICIENCY * means[:, None] * unit + expected
        few = np.minimum(strength, 1e6)
        seen = np.where(few < 1000.0, generator.poisson(few), strength + np.sqrt(strength) * normal)
        bins = significance_bins(poisson_significance(seen, expected).astype(np.float32))
        for m in range(N_MEANS):
            result[i, m] = np.cumsum(np.bincount(bins[m], minlength=N_BINS)) / _DRAWS
    return result


def poisson_significance(seen: Float64Array, expected: float) -> Float64Array:
    """Return the signed root of the Poisson deviance of ``seen`` photons where ``expected`` ones are; see
    ``peaks.weak_spots``."""
    seen = np.maximum(seen, 0.0)
    ratio = np.maximum(seen, 1e-300) / expected
    deviance = 2.0 * (np.where(seen > 0, seen * np.log(ratio), 0.0) - seen + expected)
    return np.asarray(np.sign(seen - expected) * np.sqrt(np.maximum(deviance, 0.0)), dtype=np.float64)
