"""Weak spots: every place where a frame's pixels, filtered with the spot's shape, stand out a little from the local background.

A matched filter is the best linear test for a spot of known shape (Turin 1960). Its sum T = Σ p·(k − b), with the spot's
profile p (Σp = 1), the pixels k and the background b, has the variance Σ p²·v. Where photons are rare T is not normal, so
the sum is read as a number of photons: with P1 = Σ p and P2 = Σ p² over good pixels, N − B = T·P1 / P2 photons are seen above
B = P1²·v / (P2·photon²) expected ones, a Poisson variable with the right mean and variance. Its deviance gives the
significance,
z = √(2·(N ln(N/B) − N + B)), which for many photons is T / √(P2·v), as in a Gaussian matched filter, and for few of them is not
misled by chance coincidences of two or three.

Nothing is decided here: most weak spots are noise. The indexer weighs them all together.
"""

from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, flag_unusable
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.peaks.local_background import background_maps, block_background
from peaknet_pipeline.peaks.weak_spot_kernels import find_in_panel, profile_sums
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, FrameArray, IntArray


@dataclass(frozen=True)
class WeakSpotParams(Parameters):
    """What counts as a weak spot."""

    spot_sigma: float = parameter(
        0.8, meaning="standard deviation of the spot's shape that is looked for", unit="px", gt=0.2, le=4.0
    )
    min_significance: float = parameter(
        2.0, meaning="least significance of a weak spot, in standard deviations", ge=1.0, le=10.0
    )


@dataclass(frozen=True)
class WeakSpots:
    """The weak spots of one frame, and what noise looks like there.

    ``panel``, ``ss``, ``fs`` (n,) pixels, centre of the first pixel = 0.0; ``significance`` (n,) standard deviations;
    ``background`` (n,) photons expected in the spot's footprint, B; ``footprint`` the pixels of a spot, (Σp)² / Σp².
    """

    panel: IntArray
    ss: Float64Array
    fs: Float64Array
    significance: Float32Array
    background: Float32Array
    footprint: float

    def __len__(self) -> int:
        """Return the number of spots."""
        return len(self.panel)

    def take(self, which: IntArray | BoolArray) -> "WeakSpots":
        """Return the spots at these positions."""
        return WeakSpots(
            self.panel[which],
            self.ss[which],
            self.fs[which],
            self.significance[which],
            self.background[which],
            self.footprint,
        )


class WeakSpotFinder:
    """Finds the weak spots of frames of one detector; made once per run, since the mask decides where the filter is cut off.

    Parameters
    ----------
    bad_pixels : (n_panels, ss, fs) bool
    adu_per_photon : (n_panels,) float
        What one photon adds to a pixel. Where it isn't known 1 is safe: the evidence is then Gaussian.
    params : WeakSpotParams, optional
    usable : UsableValues
        Values that are measurements; others are bad in their frame.

    """

    def __init__(
        self,
        bad_pixels: BoolArray,
        adu_per_photon: Float64Array,
        params: WeakSpotParams | None = None,
        *,
        usable: UsableValues = ALL_VALUES,
    ) -> None:
        self.params = params or WeakSpotParams()
        self.usable = usable
        self.good = ~bad_pixels
        self.adu_per_photon = np.asarray(adu_per_photon, dtype=np.float64)
        self.profile = spot_profile(self.params.spot_sigma)
        weights = self.profile.astype(np.float32)
        self._sums = [profile_sums(panel, weights) for panel in self.good]

    @property
    def footprint(self) -> float:
        """Pixels of a spot, (Σp)² / Σp², with all pixels good."""
        return float(1.0 / (self.profile**2).sum() ** 2)

    def find(self, frame: FrameArray) -> WeakSpots:
        """Return the weak spots of a frame (n_panels, ss, fs), ordered by panel, ss and fs."""
        parts = []
        flagged = flag_unusable(frame[None], self.usable)
        for number, panel in enumerate(frame):
            good = self.good[number] if flagged is None else self.good[number] & ~flagged[0, number]
            native = np.ascontiguousarray(panel, dtype=np.float32)
            photon = float(self.adu_per_photon[number])
            whole, squares = self._sums[number]
            mean, variance = block_background(native, good, photon)
            found = find_in_panel(
                native,
                good,
                _with_ring(mean),
                _with_ring(variance),
                self.profile.astype(np.float32),
                whole,
                squares,
                np.float32(photon),
                np.float32(self.params.min_significance),
            )
            parts.append((np.full(found.shape[1], number, dtype=np.int64), found))
        panels = np.concatenate([panel for panel, _ in parts])
        ss, fs, significance, background = np.concatenate([found for _, found in parts], axis=1)
        return WeakSpots(
            panels,
            ss.astype(np.float64),
            fs.astype(np.float64),
            significance,
            background,
            self.footprint,
        )


def draw_noise(finder: WeakSpotFinder, frame: FrameArray, generator: np.random.Generator) -> Float32Array:
    """Return a frame (n_panels, ss, fs) without a spot: Poisson noise with the background and variance that ``frame`` has."""
    noise = np.zeros(frame.shape, dtype=np.float32)
    means, variances = background_maps(frame, finder.good, finder.adu_per_photon)
    for number, (mean, variance) in enumerate(zip(means, variances, strict=True)):
        photon = float(finder.adu_per_photon[number])
        noise[number] = mean + photon * _draw_excess(variance / photon**2, generator)
    return noise


def _draw_excess(expected: Float32Array, generator: np.random.Generator) -> Float64Array:
    """Return Poisson variables less their ``expected`` values; of many photons, which have no integer, normal ones."""
    many = 1e9
    few = np.minimum(expected, many)
    normal = np.sqrt(expected.astype(np.float64)) * generator.standard_normal(expected.shape)
    return np.asarray(np.where(expected < many, generator.poisson(few) - few, normal), dtype=np.float64)


def spot_profile(sigma: float) -> Float64Array:
    """Return one side of the separable spot shape, (2r + 1,), Σ = 1: a Gaussian integrated over each pixel."""
    from scipy.special import erf

    reach = int(np.ceil(3.0 * sigma))
    edges = (np.arange(-reach, reach + 2) - 0.5) / (np.sqrt(2.0) * sigma)
    weights = np.diff(erf(edges))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _with_ring(blocks: Float32Array) -> Float32Array:
    """Return blocks with a ring of copies around them, so that interpolation needs no edge cases."""
    return np.ascontiguousarray(np.pad(blocks, 1, mode="edge"))
