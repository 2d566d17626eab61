"""The LCLS "droplet" finder: the rules of psana's peakFinderV4r3, which Psocake users tune.

A peak is a local maximum above a high threshold together with the pixels connected to it above a low one. The
frame should be calibrated and free of a strong background, as the thresholds are absolute. One difference: of
equal pixels that are all the highest of their square, the first in raster order is the maximum here.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, is_usable, usable_values
from peaknet_pipeline.params import Parameters, declared, parameter
from peaknet_pipeline.peaks.compilation import compiled
from peaknet_pipeline.peaks.finder import ClassicalFinder, FindPeaks
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.peaks.peakfinder8_frame import as_kernel_input, peak_table
from peaknet_pipeline.peaks.peakfinder8_search import (
    BACKGROUND,
    FS,
    INTENSITY,
    MAX_INTENSITY,
    N_COLUMNS,
    N_PIXELS,
    PANEL,
    SIGMA,
    SNR,
    SS,
)
from peaknet_pipeline.peaks.rings import Pixels
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry, IntArray


@dataclass(frozen=True)
class DropletParams(Parameters):
    """What an LCLS user tunes; the names are psana's and Psocake's."""

    thr_low: float = parameter(10.0, meaning="floor of a droplet's pixels", unit="adu", gt=0)
    thr_high: float = parameter(150.0, meaning="floor of a droplet's highest pixel", unit="adu", gt=0)
    rank: int = parameter(3, meaning="half side of the square that a peak is the maximum of", unit="px", ge=1)
    r0: float = parameter(3.0, meaning="inner radius of the background ring", unit="px", gt=0)
    dr: float = parameter(2.0, meaning="width of the background ring", unit="px", ge=0)
    npix_min: int = parameter(2, meaning="fewest pixels", unit="px", ge=1)
    npix_max: int = parameter(30, meaning="most pixels", unit="px", ge=1)
    amax_thr: float = parameter(0.0, meaning="least maximum above the background", unit="adu", ge=0)
    atot_thr: float = parameter(0.0, meaning="least total above the background", unit="adu", ge=0)
    son_min: float = parameter(6.0, meaning="least signal over noise, total / (σ √n_pixels)", ge=0)
    max_peaks: int = declared(Peakfinder8Params, "max_peaks")

    def __post_init__(self) -> None:
        """Check the ranges, and that the two thresholds are in order."""
        super().__post_init__()
        if self.thr_high < self.thr_low:
            raise ParameterError(
                "below thr_low",
                where="DropletParams.thr_high",
                expected=f"≥ {self.thr_low}",
                found=self.thr_high,
            )


class _Rules(NamedTuple):
    usable: UsableValues
    thr_low: float
    thr_high: float
    rank: int
    npix_min: int
    npix_max: int
    amax_thr: float
    atot_thr: float
    son_min: float


def find_droplets(
    frames: FrameArray,
    *,
    bad_pixels: BoolArray,
    params: DropletParams,
    first_frame: int = 0,
    n_threads: int | None = None,
    usable: UsableValues = ALL_VALUES,
) -> PeakTable:
    """Find Bragg peaks with the droplet finder.

    Parameters
    ----------
    frames : (n, n_panels, ss, fs), adu
        Calibrated intensities of any integer or floating dtype.
    bad_pixels : (n_panels, ss, fs)
        True where a pixel must not be used.
    params : DropletParams
    first_frame : int
        Number of the first frame in the run.
    n_threads : int, optional
        Frames worked on at once; all processors by default.
    usable : UsableValues
        Other values, like NaN and infinities, make a pixel unusable in that frame (`geometry.usable`).

    Returns
    -------
    PeakTable
        Sorted by frame, panel and raster order of the maxima. ``snr`` is intensity / sigma of single background
        pixels, as for every classical finder; psana's own signal over noise is that divided by √n_pixels.

    Raises
    ------
    RunError
        The frames do not fit the mask or are not numbers.

    """
    if frames.ndim != 4 or frames.shape[1:] != bad_pixels.shape:
        raise RunError("frames do not fit the mask", expected=("n", *bad_pixels.shape), found=frames.shape)
    if frames.dtype.kind not in "iuf":
        raise RunError("pixels are not numbers", expected="integers or floats", found=frames.dtype)
    p = params
    rules = _Rules(
        usable.of(frames.dtype.name), p.thr_low, p.thr_high, p.rank, p.npix_min, p.npix_max, p.amax_thr,
        p.atot_thr, p.son_min,
    )  # fmt: skip
    bad = np.ascontiguousarray(bad_pixels)
    find = partial(_find_one, bad=bad, ring=_ring_offsets(p.r0, p.dr), rules=rules, max_peaks=p.max_peaks)
    with ThreadPoolExecutor(min(n_threads or os.cpu_count() or 1, max(len(frames), 1))) as pool:
        return peak_table(list(pool.map(find, frames)), first_frame)


def _ring_offsets(r0: float, dr: float) -> npt.NDArray[np.int64]:
    """Offsets (n, 2) in ss and fs of the pixels with r0 ≤ distance < r0 + dr."""
    reach = int(np.ceil(r0 + dr))
    ss, fs = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(ss, fs)
    inside = (distance >= r0) & (distance < r0 + dr)
    return np.ascontiguousarray(np.column_stack([ss[inside], fs[inside]]))


def _find_one(
    frame: FrameArray, *, bad: BoolArray, ring: npt.NDArray[np.int64], rules: _Rules, max_peaks: int
) -> Float64Array:
    """Return the rows (n_peaks, 9) of one frame, columns as in `peakfinder8_search`."""
    rows = np.empty((max_peaks, N_COLUMNS))
    n: Any = _find_droplets(as_kernel_input(frame), bad, ring, rules, rows)
    return rows[:n]


@compiled()
def _find_droplets(frame: Pixels, bad: BoolArray, ring: Pixels, rules: _Rules, rows: Float64Array) -> int:
    """Fill ``rows`` in panel and raster order; returns how many."""
    n_panels, n_ss, n_fs = frame.shape
    side = 2 * rules.rank + 1
    marked = np.zeros((side, side), np.bool_)
    blob = np.empty((side * side, 2), np.int64)
    n = 0
    for panel in range(n_panels):
        image, mask = frame[panel], bad[panel]
        for ss in range(n_ss):
            for fs in range(n_fs):
                if not image[ss, fs] > rules.thr_high or not _is_maximum(image, mask, rules, ss, fs):
                    continue
                if n == rows.shape[0]:
                    return n
                size = _fill(image, mask, rules, ss, fs, marked, blob)
                mean, sigma = _ring_background(image, mask, rules, ring, ss, fs)
                n += _measure(image, rules, panel, blob[:size], mean, sigma, rows[n])
    return n


@compiled(inline=True)
def _is_good(image: Pixels, mask: BoolArray, rules: _Rules, ss: int, fs: int) -> bool:
    return not mask[ss, fs] and is_usable(np.float32(image[ss, fs]), rules.usable)


@compiled()
def _is_maximum(image: Pixels, mask: BoolArray, rules: _Rules, ss: int, fs: int) -> bool:
    """Whether no good pixel of the square is higher, nor an earlier one as high."""
    if not _is_good(image, mask, rules, ss, fs):
        return False
    value = image[ss, fs]
    for y in range(max(ss - rules.rank, 0), min(ss + rules.rank + 1, image.shape[0])):
        for x in range(max(fs - rules.rank, 0), min(fs + rules.rank + 1, image.shape[1])):
            earlier = y < ss or (y == ss and x < fs)
            beats = image[y, x] > value or (earlier and image[y, x] == value)
            if beats and _is_good(image, mask, rules, y, x):
                return False
    return True


@compiled()
def _fill(
    image: Pixels, mask: BoolArray, rules: _Rules, ss: int, fs: int, marked: BoolArray, blob: IntArray
) -> int:
    """List the pixels above the low threshold that edges connect to the maximum, within its square."""
    rank = rules.rank
    marked[:] = False
    marked[rank, rank] = True
    blob[0, 0], blob[0, 1] = ss, fs
    head, end = 0, 1
    while head < end:
        y, x = blob[head, 0], blob[head, 1]
        head += 1
        for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0)):
            v, u = y + dy, x + dx
            if abs(v - ss) > rank or abs(u - fs) > rank or v < 0 or u < 0:
                continue
            if v >= image.shape[0] or u >= image.shape[1] or marked[v - ss + rank, u - fs + rank]:
                continue
            if image[v, u] > rules.thr_low and _is_good(image, mask, rules, v, u):
                marked[v - ss + rank, u - fs + rank] = True
                blob[end, 0], blob[end, 1] = v, u
                end += 1
    return end


@compiled()
def _ring_background(
    image: Pixels, mask: BoolArray, rules: _Rules, ring: IntArray, ss: int, fs: int
) -> tuple[float, float]:
    """Mean and population σ of the ring's good pixels that are not above the low threshold."""
    n, total, square = 0, 0.0, 0.0
    for k in range(ring.shape[0]):
        y, x = ss + ring[k, 0], fs + ring[k, 1]
        if y < 0 or x < 0 or y >= image.shape[0] or x >= image.shape[1]:
            continue
        v = float(image[y, x])
        if v <= rules.thr_low and _is_good(image, mask, rules, y, x):
            n += 1
            total += v
            square += v * v
    if n == 0:
        return 0.0, 0.0
    mean = total / n
    return mean, np.sqrt(max(square / n - mean * mean, 0.0))


@compiled()
def _measure(
    image: Pixels, rules: _Rules, panel: int, blob: IntArray, mean: float, sigma: float, row: Float64Array
) -> int:
    """Fill ``row`` from the pixels of one droplet; returns 1 when it is a peak, else 0."""
    total, at_ss, at_fs = 0.0, 0.0, 0.0
    for k in range(blob.shape[0]):
        a = float(image[blob[k, 0], blob[k, 1]]) - mean
        total += a
        at_ss += a * blob[k, 0]
        at_fs += a * blob[k, 1]
    n, top = blob.shape[0], float(image[blob[0, 0], blob[0, 1]]) - mean
    snr = total / sigma if sigma > 0 else 0.0
    if not rules.npix_min <= n <= rules.npix_max or top < rules.amax_thr or total < rules.atot_thr:
        return 0
    if snr / np.sqrt(n) < rules.son_min or total <= 0:
        return 0
    row[PANEL], row[FS], row[SS] = panel, at_fs / total, at_ss / total
    row[INTENSITY], row[MAX_INTENSITY] = total, top
    row[BACKGROUND], row[SIGMA], row[SNR], row[N_PIXELS] = mean, sigma, snr, n
    return 1


def _prepare(params: DropletParams, geometry: Geometry, bad_pixels: BoolArray) -> FindPeaks:
    usable = usable_values(geometry)
    return lambda frames, first: find_droplets(
        frames, bad_pixels=bad_pixels, params=params, first_frame=first, usable=usable
    )


DROPLET = ClassicalFinder("droplet", "LCLS's", "droplet", DropletParams, _prepare)
