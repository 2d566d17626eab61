"""peakfinder8's search: from seeds above their ring's limit to accepted peaks, one frame at a time."""

import numpy as np

from peaknet_pipeline.geometry.usable import is_usable
from peaknet_pipeline.peaks.background import MEAN, UPPER
from peaknet_pipeline.peaks.compilation import REASSOCIATE, compiled
from peaknet_pipeline.peaks.rings import BLOCK, Int32Array, Pixels, RingPlan, Rules, UInt16Array
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, UInt8Array

PANEL, FS, SS, INTENSITY, MAX_INTENSITY, BACKGROUND, SIGMA, SNR, N_PIXELS = range(9)
NAMES = ("panel", "fs", "ss", "intensity", "max_intensity", "background", "sigma", "snr", "n_pixels")
N_COLUMNS = len(NAMES)

NO_BACKGROUND_SIGMA = 0.01
"""σ of a local background without a single pixel, adu."""


@compiled()
def select_seeds(
    frame: Pixels,
    plan: RingPlan,
    rules: Rules,
    limits: Float64Array,
    failed: BoolArray,
    candidates: Int32Array,
    values: Float32Array,
    seeds: Int32Array,
) -> int:
    """Copy to ``seeds``, in raster order, what exceeds its ring's limit off the rim; returns how many.

    The seeds of a ring that ``failed`` names may be missing among the candidates; the ring is searched.
    """
    n = 0
    for j in range(candidates.size):
        r = plan.ring[candidates[j]]
        if not failed[r] and values[j] > limits[UPPER, r] and not _is_rim(candidates[j], plan.shape):
            seeds[n] = candidates[j]
            n += 1
    for r in np.flatnonzero(failed):
        for i in plan.pixels[plan.start[r] : plan.start[r + 1]]:
            v = np.float32(frame[i])
            if is_usable(v, rules.usable) and v > limits[UPPER, r] and not _is_rim(i, plan.shape):
                seeds[n] = i
                n += 1
    seeds[:n].sort()
    return n


@compiled()
def scan_seeds(frame: Pixels, plan: RingPlan, rules: Rules, limits: Float64Array, seeds: Int32Array) -> int:
    """Fill ``seeds`` by looking at every pixel; returns how many.

    A block is looked at pixel by pixel only if some value in it exceeds the lowest limit of all its rings.
    """
    upper = limits[UPPER]
    n = 0
    for b in range(plan.block_rings.shape[0]):
        lowest, highest = plan.block_rings[b]
        if lowest > highest:
            continue
        values = frame[b * BLOCK : (b + 1) * BLOCK]
        if _count_above(values, _lowest(upper[lowest : highest + 1])) == 0:
            continue
        for i in range(b * BLOCK, b * BLOCK + values.size):
            r, v = plan.ring[i], np.float32(frame[i])
            if (
                r < plan.n_rings
                and v > upper[r]
                and is_usable(v, rules.usable)
                and not _is_rim(i, plan.shape)
            ):
                seeds[n] = i
                n += 1
    return n


@compiled(fastmath=REASSOCIATE | {"nnan"})
def _lowest(values: Float64Array) -> float:
    lowest = np.float64(1e300)
    for k in range(values.size):
        lowest = values[k] if values[k] < lowest else lowest
    return lowest


@compiled(fastmath=REASSOCIATE)
def _count_above(values: Pixels, limit: float) -> np.float32:
    """Count the values above ``limit`` rounded down to single precision; NaN is not above."""
    bound = np.float32(limit)
    if bound > limit:
        bound = np.nextafter(bound, np.float32(-np.inf))
    n = np.float32(0)
    for k in range(values.size):
        n += np.float32(1) if np.float32(values[k]) > bound else np.float32(0)
    return n


@compiled(inline=True)
def _is_rim(i: int, shape: tuple[int, int, int]) -> bool:
    """Whether a pixel lies in its panel's outermost rows or columns."""
    n_ss, n_fs = shape[1], shape[2]
    fs = i % n_fs
    ss = (i // n_fs) % n_ss
    return fs == 0 or ss == 0 or fs == n_fs - 1 or ss == n_ss - 1


@compiled()
def grow_peaks(
    frame: Pixels,
    plan: RingPlan,
    rules: Rules,
    limits: Float64Array,
    seeds: Int32Array,
    used: UInt8Array,
    visited: Int32Array,
    peaks: Float64Array,
) -> int:
    """Flood-fill from every unused seed and keep what qualifies, in raster order; returns how many.

    ``used`` (one byte per pixel) must be all zero and is so again afterwards; ``visited`` is scratch of that
    length. ``peaks`` (max_peaks, 9) receives one row per peak.
    """
    n_peaks, n_visited = 0, 0
    for seed in seeds:
        if n_peaks == peaks.shape[0]:
            break
        if used[seed]:
            continue
        begin = n_visited
        n_visited = _flood(frame, plan, rules, limits, seed, used, visited, begin)
        n = n_visited - begin
        if rules.min_pix <= n <= rules.max_pix:
            blob = visited[begin:n_visited]
            n_peaks += _measure(frame, plan, rules, limits, blob, peaks[n_peaks])
    for i in visited[:n_visited]:
        used[i] = 0
    return n_peaks


@compiled()
def _flood(
    frame: Pixels,
    plan: RingPlan,
    rules: Rules,
    limits: Float64Array,
    seed: int,
    used: UInt8Array,
    visited: Int32Array,
    begin: int,
) -> int:
    """Mark and list the 8-connected pixels above their own limits; returns the list's new end."""
    ring, n_rings, n_ss, n_fs = plan.ring, plan.n_rings, plan.shape[1], plan.shape[2]
    first = seed - seed % (n_ss * n_fs)
    visited[begin] = seed
    used[seed] = 1
    head, end = begin, begin + 1
    while head < end:
        local = visited[head] - first
        head += 1
        fs, ss = local % n_fs, local // n_fs
        for s in range(max(ss - 1, 0), min(ss + 2, n_ss)):
            for f in range(max(fs - 1, 0), min(fs + 2, n_fs)):
                i = first + s * n_fs + f
                r, v = ring[i], np.float32(frame[i])
                if r < n_rings and v > limits[UPPER, r] and is_usable(v, rules.usable) and not used[i]:
                    used[i] = 1
                    visited[end] = i
                    end += 1
    return end


@compiled()
def _measure(
    frame: Pixels, plan: RingPlan, rules: Rules, limits: Float64Array, blob: Int32Array, row: Float64Array
) -> int:
    """Fill ``row`` from the pixels of one blob; returns 1 when it is a peak, else 0."""
    n_ss, n_fs = plan.shape[1], plan.shape[2]
    first = blob[0] - blob[0] % (n_ss * n_fs)
    centre_fs, centre_ss = _first_centre(frame, plan.ring, limits, blob, first, n_fs)
    if centre_fs < 0:
        return 0
    mean, sigma, highest = _local_background(frame, plan, rules, limits, first, centre_fs, centre_ss)
    raw, raw_fs, raw_ss, peak_max = 0.0, 0.0, 0.0, -np.inf
    for i in blob:
        v = float(np.float32(frame[i]))
        raw += v
        raw_fs += v * ((i - first) % n_fs)
        raw_ss += v * ((i - first) // n_fs)
        peak_max = max(peak_max, v - mean)
    intensity = raw - blob.size * mean
    snr = intensity / sigma if sigma > 0 else 0.0
    if snr < rules.min_snr or peak_max < highest - mean or raw == 0:
        return 0
    fs, ss = raw_fs / raw, raw_ss / raw
    if fs < 0 or ss < 0 or fs > n_fs - 1 or ss > n_ss - 1:
        return 0
    row[PANEL], row[FS], row[SS] = first // (n_ss * n_fs), fs, ss
    row[INTENSITY], row[MAX_INTENSITY] = intensity, peak_max
    row[BACKGROUND], row[SIGMA], row[SNR], row[N_PIXELS] = mean, sigma, snr, blob.size
    return 1


@compiled()
def _first_centre(
    frame: Pixels, ring: UInt16Array, limits: Float64Array, blob: Int32Array, first: int, n_fs: int
) -> tuple[int, int]:
    """Rounded centroid (fs, ss) weighted by the distance from the ring's mean; (-1, -1) without any weight.

    In single precision, like the C programs: a centroid midway between two pixels then rounds as theirs do.
    """
    weight, fs_sum, ss_sum = np.float32(0), np.float32(0), np.float32(0)
    for i in blob:
        w = abs(np.float32(frame[i]) - np.float32(limits[MEAN, ring[i]]))
        weight += w
        fs_sum += w * np.float32((i - first) % n_fs)
        ss_sum += w * np.float32((i - first) // n_fs)
    if not weight > 0:
        return -1, -1
    return int(np.rint(fs_sum / weight)), int(np.rint(ss_sum / weight))


@compiled()
def _local_background(
    frame: Pixels,
    plan: RingPlan,
    rules: Rules,
    limits: Float64Array,
    first: int,
    centre_fs: int,
    centre_ss: int,
) -> tuple[float, float, float]:
    """Mean, population σ and maximum of the background pixels in the disc about a peak's centre.

    A pixel below its ring's limit cannot have been marked, so that marks need not be looked at.
    """
    ring, n_rings, n_ss, n_fs = plan.ring, plan.n_rings, plan.shape[1], plan.shape[2]
    reach = 2 * rules.local_bg_radius
    n, total, square, highest = 0, 0.0, 0.0, -np.inf
    for ss in range(max(centre_ss - reach, 0), min(centre_ss + reach, n_ss)):
        half = int(np.sqrt(reach * reach - (ss - centre_ss) ** 2))
        row = first + ss * n_fs
        last = min(centre_fs + min(half, reach - 1), n_fs - 1)
        for i in range(row + max(centre_fs - half, 0), row + last + 1):
            r, v = ring[i], float(np.float32(frame[i]))
            if r < n_rings and v < limits[UPPER, r] and is_usable(v, rules.usable):
                n += 1
                total += v
                square += v * v
                highest = max(highest, v)
    if n == 0:
        r = ring[first + centre_ss * n_fs + centre_fs]
        mean = limits[MEAN, r] if r < n_rings else 0.0
        return mean, NO_BACKGROUND_SIGMA, mean
    mean = total / n
    return mean, np.sqrt(max(square / n - mean * mean, 0.0)), highest
