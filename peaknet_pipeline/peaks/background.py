"""Radial background: which pixels belong to which ring, and the clipped statistics of every ring.

peakfinder8 clips each ring's mean and σ in five passes over the frame. The kernels here give the same
statistics from a single pass: a small sample of each ring tells where the *core* of its values surely lies,
one pass sums the core and sets the few remaining pixels (candidates) aside, and the five clipping rounds then
run over the candidates alone. A ring whose limits turn out to cut into its core is gathered and clipped the
plain way, so the result never depends on the sample. Every pixel above its ring's final limit is a candidate,
so that the peak search needs no pass of its own.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array

Int32Array = npt.NDArray[np.int32]

N_ROUNDS = 5
"""Clipping rounds, fixed in every published peakfinder8."""

START_LIMIT = 1e9
"""Values beyond ± this never enter the first round."""

CORE_FRACTION = 0.7
"""Half width of a ring's core, as a part of the clipping distance that its sample suggests."""

EMPTY_LOWER = -START_LIMIT
"""Lower limit that an emptied ring starts its next round with."""


@dataclass(frozen=True)
class RingPlan:
    """What a radius map and a mask fix once for all frames; pixels are counted over the flattened stack.

    ``ring`` is each pixel's ring number (``n_rings`` where the pixel is unusable). The pixels of ring r, in
    raster order, are ``pixels[start[r]:start[r + 1]]``; ``sample[sample_start[r]:sample_start[r + 1]]`` is an
    even choice of them.
    """

    shape: tuple[int, int, int]
    n_rings: int
    ring: Int32Array
    start: Int32Array
    pixels: Int32Array
    sample_start: Int32Array
    sample: Int32Array


def plan_rings(
    radius: Float32Array, bad_pixels: BoolArray, *, min_radius: float, max_radius: float, sample_size: int
) -> RingPlan:
    """Sort the usable pixels into rings one pixel wide.

    Parameters
    ----------
    radius : (n_panels, ss, fs), px
        Distance of each pixel from the beam.
    bad_pixels : (n_panels, ss, fs)
        True where the pixel may not be used.
    min_radius, max_radius : float, px
        Usable pixels lie strictly between them; 0 switches a limit off.
    sample_size : int
        Pixels per ring in the sample.

    Raises
    ------
    ParameterError
        The two stacks differ in shape or are not stacks.

    """
    if radius.ndim != 3 or radius.shape != bad_pixels.shape:
        raise ParameterError(
            "radius map and mask are not stacks of one shape", expected=radius.shape, found=bad_pixels.shape
        )
    usable = ~bad_pixels & np.isfinite(radius)
    if min_radius > 0:
        usable &= radius > min_radius
    if max_radius > 0:
        usable &= radius < max_radius
    ring = np.where(usable, np.rint(np.where(usable, radius, 0)), -1).astype(np.int32).ravel()
    n_rings = int(ring.max(initial=-1)) + 1
    ring[ring < 0] = n_rings
    start, pixels = _sort_by_ring(ring, n_rings)
    sample_start, sample = _draw_sample(start, pixels, sample_size)
    n_panels, n_ss, n_fs = radius.shape
    return RingPlan((n_panels, n_ss, n_fs), n_rings, ring, start, pixels, sample_start, sample)


@nb.njit(cache=True, nogil=True)
def _sort_by_ring(ring: Int32Array, n_rings: int) -> tuple[Int32Array, Int32Array]:
    """Counting sort: pixel numbers ordered by ring, raster order kept within a ring."""
    start = np.zeros(n_rings + 1, np.int32)
    for r in ring:
        if r < n_rings:
            start[r + 1] += 1
    for r in range(n_rings):
        start[r + 1] += start[r]
    cursor = start.copy()
    pixels = np.empty(start[n_rings], np.int32)
    for i in range(ring.size):
        r = ring[i]
        if r < n_rings:
            pixels[cursor[r]] = i
            cursor[r] += 1
    return start, pixels


@nb.njit(cache=True, nogil=True)
def _draw_sample(start: Int32Array, pixels: Int32Array, size: int) -> tuple[Int32Array, Int32Array]:
    """Choose up to ``size`` pixels of each ring, evenly spread over the ring's raster order."""
    n_rings = start.size - 1
    sample_start = np.zeros(n_rings + 1, np.int32)
    for r in range(n_rings):
        sample_start[r + 1] = sample_start[r] + min(start[r + 1] - start[r], size)
    sample = np.empty(sample_start[n_rings], np.int32)
    for r in range(n_rings):
        n = start[r + 1] - start[r]
        m = sample_start[r + 1] - sample_start[r]
        for j in range(m):
            sample[sample_start[r] + j] = pixels[start[r] + (j * n) // m]
    return sample_start, sample


@nb.njit(cache=True, nogil=True, inline="always")
def _limits(
    n: float, total: float, square: float, min_snr: float, threshold: float
) -> tuple[float, float, float]:
    """Mean, lower and upper limit from count, sum and sum of squares; an empty ring has no upper limit."""
    if n == 0:
        return 0.0, EMPTY_LOWER, np.inf
    mean = total / n
    sigma = np.sqrt(max(square / n - mean * mean, 0.0))
    return mean, mean - min_snr * sigma, max(mean + min_snr * sigma, threshold)


@nb.njit(cache=True, nogil=True)
def clip_values(values: Float64Array, min_snr: float, threshold: float) -> tuple[float, float, float]:
    """Clip one ring's values in five rounds, the plain way; returns mean, lower and upper limit."""
    mean, lower, upper = 0.0, -START_LIMIT, START_LIMIT
    for _ in range(N_ROUNDS):
        n, total, square = 0, 0.0, 0.0
        for v in values:
            if lower < v < upper:
                n += 1
                total += v
                square += v * v
        before_lower, before_upper = lower, upper
        mean, lower, upper = _limits(n, total, square, min_snr, threshold)
        if lower == before_lower and upper == before_upper:
            break
    return mean, lower, upper


@nb.njit(cache=True, nogil=True)
def _gather(frame, pixels, low, high, values):  # type: ignore[no-untyped-def]
    """Copy the usable values of the listed pixels; returns how many."""
    n = 0
    for i in pixels:
        v = float(frame[i])
        if low <= v <= high:
            values[n] = v
            n += 1
    return n


@nb.njit(cache=True, nogil=True)
def clip_sampled(frame, start, pixels, low, high, min_snr, threshold, limits):  # type: ignore[no-untyped-def]
    """Fill ``limits`` (n_rings, 3: mean, lower, upper) from the listed pixels of each ring alone."""
    n_rings = start.size - 1
    longest = 0
    for r in range(n_rings):
        longest = max(longest, start[r + 1] - start[r])
    values = np.empty(longest, np.float64)
    for r in range(n_rings):
        n = _gather(frame, pixels[start[r] : start[r + 1]], low, high, values)
        limits[r, 0], limits[r, 1], limits[r, 2] = clip_values(values[:n], min_snr, threshold)


@nb.njit(cache=True, nogil=True)
def choose_core(limits, start, sample_start, low, high, threshold, core):  # type: ignore[no-untyped-def]
    """Set ``core`` (n_rings + 1, 2): the open interval of values that no clipping round is expected to cut.

    A sample without spread gives a core of one value. A ring that its sample holds completely keeps its
    limits, and its core is all that is not above them. The last row, for unusable pixels, takes every value.
    """
    n_rings = limits.shape[0]
    below_low, above_high = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
    for r in range(n_rings):
        mean, lower, upper = limits[r]
        if start[r + 1] - start[r] == sample_start[r + 1] - sample_start[r]:
            core[r, 0], core[r, 1] = -np.inf, upper
        elif lower < mean:
            half = CORE_FRACTION * (mean - lower)
            core[r, 0], core[r, 1] = mean - half, max(mean + half, threshold)
        else:
            core[r, 0], core[r, 1] = np.nextafter(mean, -np.inf), np.nextafter(mean, np.inf)
        core[r, 0] = max(core[r, 0], below_low, -START_LIMIT)
        core[r, 1] = min(core[r, 1], above_high, START_LIMIT)
    core[n_rings, 0], core[n_rings, 1] = -np.inf, np.inf


@nb.njit(cache=True, nogil=True)
def sum_core(frame, ring, first, last, core, low, high, sums, outside, candidates):  # type: ignore[no-untyped-def]
    """Pass over pixels ``first`` to ``last``: sum each ring's core, list the usable rest, return its length.

    ``sums`` (n_rings + 1, 2) gains Σv and Σv², ``outside`` the number of pixels that are not core,
    ``candidates`` the usable ones among them.
    """
    n_rings = core.shape[0] - 1
    n = 0
    for i in range(first, last):
        r = ring[i]
        v = float(frame[i])
        if core[r, 0] < v < core[r, 1]:
            sums[r, 0] += v
            sums[r, 1] += v * v
        elif r < n_rings:
            outside[r] += 1
            if low <= v <= high:
                candidates[n] = i
                n += 1
    return n


@nb.njit(cache=True, nogil=True)
def clip_candidates(  # type: ignore[no-untyped-def]
    frame, ring, start, sample_start, core, sums, outside, candidates, min_snr, threshold, limits, failed
):
    """Run the five rounds over core sums and candidates; ``failed`` marks rings whose core was cut into."""
    n_rings = core.shape[0] - 1
    exact = limits.copy()
    work = np.empty((n_rings, 3), np.float64)
    values = np.empty(candidates.size, np.float64)
    for j in range(candidates.size):
        values[j] = float(frame[candidates[j]])
    for r in range(n_rings):
        failed[r] = False
        limits[r, 0], limits[r, 1], limits[r, 2] = 0.0, -START_LIMIT, START_LIMIT
    for _ in range(N_ROUNDS):
        _begin_round(core, start, sums, outside, limits, work, failed)
        for j in range(candidates.size):
            r = ring[candidates[j]]
            v = values[j]
            if limits[r, 1] < v < limits[r, 2]:
                work[r, 0] += 1
                work[r, 1] += v
                work[r, 2] += v * v
        if not _end_round(work, min_snr, threshold, limits):
            break
    _begin_round(core, start, sums, outside, limits, work, failed)
    for r in range(n_rings):
        if start[r + 1] - start[r] == sample_start[r + 1] - sample_start[r]:
            failed[r] = False
            limits[r] = exact[r]


@nb.njit(cache=True, nogil=True)
def _begin_round(core, start, sums, outside, limits, work, failed):  # type: ignore[no-untyped-def]
    """Start every ring's sums with its core, where the limits take it; mark the rings whose core they cut."""
    for r in range(work.shape[0]):
        n_core = start[r + 1] - start[r] - outside[r]
        value = np.nextafter(core[r, 0], np.inf)
        inside = limits[r, 1] <= core[r, 0] and core[r, 1] <= limits[r, 2]
        if np.nextafter(value, np.inf) == core[r, 1]:
            inside = limits[r, 1] < value < limits[r, 2]
            failed[r] |= value > limits[r, 2] and n_core > 0
        elif not inside and n_core > 0:
            failed[r] = True
        work[r, 0] = n_core if inside else 0
        work[r, 1] = sums[r, 0] if inside else 0.0
        work[r, 2] = sums[r, 1] if inside else 0.0


@nb.njit(cache=True, nogil=True)
def _end_round(work, min_snr, threshold, limits):  # type: ignore[no-untyped-def]
    """Move every ring's limits; returns whether any moved."""
    moved = False
    for r in range(work.shape[0]):
        mean, lower, upper = _limits(work[r, 0], work[r, 1], work[r, 2], min_snr, threshold)
        moved |= lower != limits[r, 1] or upper != limits[r, 2]
        limits[r, 0], limits[r, 1], limits[r, 2] = mean, lower, upper
    return moved


@nb.njit(cache=True, nogil=True)
def clip_failed(frame, start, pixels, low, high, min_snr, threshold, failed, limits):  # type: ignore[no-untyped-def]
    """Gather and clip the rings that ``failed`` names, the plain way; returns how many there were."""
    n_failed, longest = 0, 0
    for r in range(failed.size):
        if failed[r]:
            n_failed += 1
            longest = max(longest, start[r + 1] - start[r])
    values = np.empty(longest, np.float64)
    for r in range(failed.size):
        if failed[r]:
            n = _gather(frame, pixels[start[r] : start[r + 1]], low, high, values)
            limits[r, 0], limits[r, 1], limits[r, 2] = clip_values(values[:n], min_snr, threshold)
    return n_failed
