"""Pixels that a dark run gives away: what counts, stays silent or is noisy without any beam."""

import numpy as np

from peaknet_pipeline.runs.local_median import local_median
from peaknet_pipeline.types import BoolArray, Float32Array, RunStatistics

RADIUS = 3
"""Half width of the neighbourhood that a pixel is compared with, px."""


def find_dark_outliers(
    statistics: RunStatistics, bad_pixels: BoolArray, *, n_sigma: float = 8.0
) -> BoolArray:
    """Return the pixels whose mean or noise in a dark run is not that of their neighbours.

    A pixel is an outlier where its mean, or its standard deviation, lies more than ``n_sigma`` robust deviations (1.4826 MAD
    over the panel) off the median around it, and where it never changes although its neighbours do. On a counting detector
    most pixels of a dark run are zero: there only the mean is looked at, with the deviation that Poisson statistics allow.

    Parameters
    ----------
    statistics : RunStatistics
        Of the dark run, each (n_panels, ss, fs), in the detector's own unit.
    bad_pixels : (n_panels, ss, fs) bool
        Known bad pixels: not compared with, and not returned.
    n_sigma : float

    """
    known = bad_pixels | ~np.isfinite(statistics.mean)
    outlier: BoolArray = np.zeros(known.shape, dtype=np.bool_)
    for panel in range(known.shape[0]):
        one = slice(panel, panel + 1)
        mean, std, known_here = statistics.mean[one], statistics.std[one], known[one]
        counts = np.sqrt(max(abs(_median(mean, known_here)), 1 / statistics.n_frames) / statistics.n_frames)
        outlier[one] = _stands_out(mean, known_here, n_sigma, counts)
        outlier[one] |= _stands_out(std, known_here, n_sigma, np.inf)
        outlier[one] |= (std == 0) & (local_median(std, known_here, RADIUS) > 0)
    return outlier & ~known


def _stands_out(image: Float32Array, known: BoolArray, n_sigma: float, otherwise: float) -> BoolArray:
    """Return what lies off its neighbours by n_sigma of the panel's spread, or of ``otherwise`` where that is zero."""
    difference = image - local_median(image, known, RADIUS)
    middle = _median(difference, known)
    spread = 1.4826 * _median(np.abs(difference - np.float32(middle)), known)
    result: BoolArray = np.abs(difference) > n_sigma * (spread or otherwise)
    return result


def _median(image: Float32Array, known: BoolArray) -> float:
    values = image[~known & np.isfinite(image)]
    return float(np.median(values)) if values.size else 0.0
