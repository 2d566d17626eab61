"""What lies in the shadow of the beamstop or of anything else, judged by a run's mean image."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.runs.local_median import local_median
from peaknet_pipeline.runs.rings import radial_profile
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array

STEP_BINS = 8


@dataclass(frozen=True)
class ShadowParams(Parameters):
    """What counts as a shadow."""

    level: float = parameter(0.5, meaning="darker than this part of what its ring shows", gt=0, le=1)
    radius: int = parameter(2, meaning="half width over which the image is smoothed", unit="px", ge=1, le=15)
    min_size: int = parameter(50, meaning="smaller dark spots are not shadows", unit="px", ge=1)
    margin: int = parameter(2, meaning="the shadow is widened by this", unit="px", ge=0)
    bin_width: float = parameter(2.0, meaning="width of the rings that are compared", unit="px", gt=0)


def estimate_shadow(
    mean: Float32Array, radius: Float32Array, bad_pixels: BoolArray, params: ShadowParams | None = None
) -> BoolArray:
    """Return the pixels in shadow, (n_panels, ss, fs), True = shadow.

    A pixel is in shadow where the smoothed mean image is darker than ``level`` times the median of its ring,
    or than the brightest ring outside of it, when the ring lies inside the innermost maximum: there the
    beamstop covers whole rings.

    Parameters
    ----------
    mean : (n_panels, ss, fs) float32
        Mean image of the run.
    radius : (n_panels, ss, fs) float32
        Distance from the beam, pixels (``pixel_radius``).
    bad_pixels : (n_panels, ss, fs) bool
        Known bad pixels are left out of the comparison; the shadow doesn't contain them unless widened over
        them.

    """
    params = params or ShadowParams()
    smooth = local_median(mean, bad_pixels, params.radius)
    expected = _expected(smooth, radius, bad_pixels, params)
    bins = np.minimum((radius / params.bin_width).astype(np.int64), max(expected.size - 1, 0))
    if not expected.size:
        return np.zeros_like(bad_pixels)
    with np.errstate(invalid="ignore"):
        dark = (smooth < params.level * expected[bins]) & ~bad_pixels
    shadow = _large(dark, params.min_size)
    if params.margin and shadow.any():
        around = np.zeros((3, 3, 3), dtype=np.bool_)
        around[1] = True
        shadow = ndimage.binary_dilation(shadow, around, iterations=params.margin)
    result: BoolArray = np.asarray(shadow, dtype=np.bool_)
    return result


def _expected(
    smooth: Float32Array, radius: Float32Array, bad_pixels: BoolArray, params: ShadowParams
) -> Float64Array:
    """Return what each ring would show without a shadow: its median; inside a step, what is outside of it."""
    _, median, _ = radial_profile(smooth, radius, bad_pixels, params.bin_width)
    known = np.flatnonzero(np.isfinite(median))
    if not known.size:
        return np.empty(0)
    filled = np.interp(np.arange(median.size), known, median[known])
    steady = ndimage.median_filter(filled, 3, mode="nearest")
    edge = _beamstop_edge(steady, params)
    if edge:
        filled[:edge] = np.maximum(filled[:edge], np.median(steady[edge : edge + STEP_BINS]))
    expected: Float64Array = filled
    return expected


def _beamstop_edge(steady: Float64Array, params: ShadowParams) -> int:
    """Return the bin just outside of a beamstop's edge, 0 without one: the outermost step up within few bins.

    Broad rings (water) rise more slowly than a step, sharp ones fall again within the bins looked at.
    """
    for i in range(steady.size // 2, 0, -1):
        outside = steady[i : i + STEP_BINS]
        if np.median(outside) > 0 and steady[i - 1] < params.level * min(np.median(outside), outside[-1]):
            return i
    return 0


def _large(dark: BoolArray, min_size: int) -> BoolArray:
    structure = np.zeros((3, 3, 3), dtype=np.int64)
    structure[1] = 1
    labels, n = ndimage.label(dark, structure=structure)
    large = np.bincount(labels.ravel(), minlength=n + 1) >= min_size
    large[0] = False
    kept: BoolArray = large[labels]
    return kept
