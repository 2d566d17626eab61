"""Rings: which powder rings (ice, salt) a run shows, and masks that leave them out."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array

ICE_RINGS_ANGSTROM = (3.90, 3.67, 3.44, 2.67, 2.25, 2.07, 1.95, 1.92, 1.88, 1.72)
"""Resolution of hexagonal ice's rings, Å."""


@dataclass(frozen=True)
class RingParams(Parameters):
    """Which rings are left out, and what counts as a ring."""

    rings_angstrom: tuple[float, ...] = parameter((), meaning="resolution of rings to leave out", unit="Å")
    exclude_ice: bool = parameter(False, meaning="leave out the rings of hexagonal ice")
    half_width: float = parameter(0.004, meaning="half width of a left-out ring in 1/d", unit="Å⁻¹", gt=0)
    bin_width: float = parameter(0.001, meaning="bin of the radial profile in 1/d", unit="Å⁻¹", gt=0)
    background_width: float = parameter(
        0.04, meaning="width over which the background is taken; broader rings belong to it", unit="Å⁻¹", gt=0
    )
    max_d: float = parameter(20.0, meaning="rings are looked for up to this resolution", unit="Å", gt=0)
    n_sigma: float = parameter(
        6.0, meaning="a ring rises above the background by more than this", unit="σ", gt=0
    )
    min_rise: float = parameter(0.1, meaning="a ring rises above the background by this part of it", gt=0)

    @property
    def any(self) -> bool:
        """Whether any ring is left out."""
        return bool(self.rings_angstrom) or self.exclude_ice


@dataclass(frozen=True)
class Ring:
    """A ring that a run shows: resolution, height relative to the background, whether ice makes it."""

    d_angstrom: float
    rise: float
    n_sigma: float
    is_ice: bool


def ring_pixels(inv_d: Float32Array, params: RingParams) -> BoolArray:
    """Return what lies on the rings to leave out, of the shape of ``inv_d``, the map (or list) of 1/d in Å⁻¹."""
    rings = params.rings_angstrom + (ICE_RINGS_ANGSTROM if params.exclude_ice else ())
    bad: BoolArray = np.zeros(inv_d.shape, dtype=np.bool_)
    for d in rings:
        bad |= np.abs(inv_d - 1.0 / d) < params.half_width
    return bad


def drop_ring_peaks(peaks: PeakTable, params: RingParams) -> PeakTable:
    """Return the peaks that lie on no left-out ring, by their ``inv_d``; a peak of unknown resolution stays."""
    if not params.any:
        return peaks
    on_ring = ring_pixels(peaks["inv_d"].to_numpy(np.float32), params)
    return peaks[~on_ring].reset_index(drop=True)


def radial_profile(
    image: Float32Array, coordinate: Float32Array, bad_pixels: BoolArray, bin_width: float
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return bin centres, median and standard error of the median over each bin of a radial coordinate.

    Parameters
    ----------
    image, coordinate : (n_panels, ss, fs) float32
        Intensity and, for instance, 1/d or the radius.
    bad_pixels : (n_panels, ss, fs) bool
        Left out, as is NaN.
    bin_width : float
        In the coordinate's unit; empty bins are NaN.

    """
    good = ~bad_pixels & np.isfinite(image)
    bins = (coordinate[good] / bin_width).astype(np.int64)
    values = image[good].astype(np.float64)
    n_bins = int(bins.max()) + 1 if bins.size else 0
    order = np.argsort(bins, kind="stable")
    edges = np.searchsorted(bins[order], np.arange(n_bins + 1))
    median, error = np.full(n_bins, np.nan), np.full(n_bins, np.nan)
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        if high > low:
            quarter, median[i], three_quarters = np.percentile(values[order[low:high]], (25, 50, 75))
            error[i] = 1.2533 * (three_quarters - quarter) / 1.349 / np.sqrt(high - low)
    centres = np.arange(0.5, n_bins, dtype=np.float64) * bin_width
    return centres, median, error


def find_rings(
    mean: Float32Array, inv_d: Float32Array, bad_pixels: BoolArray, params: RingParams | None = None
) -> tuple[Ring, ...]:
    """Find sharp rings in a run's mean image: maxima of the radial profile above its running median.

    Parameters
    ----------
    mean : (n_panels, ss, fs) float32
        Mean image of the run.
    inv_d : (n_panels, ss, fs) float32
        Resolution map, Å⁻¹.
    bad_pixels : (n_panels, ss, fs) bool

    Returns
    -------
    Rings by resolution, low to high; broad rings (water, LCP) are background and are not among them.

    """
    params = params or RingParams()
    centres, median, error = radial_profile(mean, inv_d, bad_pixels, params.bin_width)
    known = np.isfinite(median) & (centres > 1.0 / params.max_d)
    n_smooth = max(5, round(params.background_width / params.bin_width))
    if known.sum() < n_smooth:
        return ()
    centres, median, error = centres[known], median[known], error[known]
    from scipy import ndimage

    background = ndimage.median_filter(median, n_smooth, mode="nearest")
    rise = median - background
    scatter = 1.4826 * np.median(np.abs(rise))
    significance = rise / np.maximum(np.hypot(error, scatter), 1e-12)
    high = (significance > params.n_sigma) & (rise > params.min_rise * background) & (background > 0)
    labels, n = ndimage.label(high)
    tops = [int(np.argmax(np.where(labels == i, significance, -np.inf))) for i in range(1, n + 1)]
    return tuple(
        _ring(centres[i], rise[i] / max(abs(background[i]), 1e-12), significance[i], params) for i in tops
    )


def _ring(inv_d: float, rise: float, n_sigma: float, params: RingParams) -> Ring:
    distances = np.abs(1.0 / np.array(ICE_RINGS_ANGSTROM) - inv_d)
    return Ring(float(1.0 / inv_d), float(rise), float(n_sigma), bool(distances.min() < params.half_width))


def ring_summary(rings: Sequence[Ring]) -> str:
    """Return the rings in words, for diagnoses and plots."""
    if not rings:
        return "no sharp rings"
    return ", ".join(f"{r.d_angstrom:.2f} Å{' (ice)' if r.is_ice else ''} +{r.rise:.0%}" for r in rings)
