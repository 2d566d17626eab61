"""peakfinder8's search: from seeds above their ring's limit to accepted peaks, one frame at a time."""

import numba as nb
import numpy as np

PANEL, FS, SS, INTENSITY, MAX_INTENSITY, BACKGROUND, SIGMA, SNR, N_PIXELS = range(9)
N_COLUMNS = 9

NO_BACKGROUND_SIGMA = 0.01
"""σ of a local background without a single pixel, adu."""


@nb.njit(cache=True, nogil=True)
def select_seeds(frame, ring, shape, limits, failed, candidates, seeds):  # type: ignore[no-untyped-def]
    """Copy to ``seeds`` the candidates above their ring's limit, off the panel's rim; returns how many."""
    n_ss, n_fs = shape[1], shape[2]
    n = 0
    for i in candidates:
        r = ring[i]
        if failed[r] or not frame[i] > limits[r, 2] or _is_rim(i, n_ss, n_fs):
            continue
        seeds[n] = i
        n += 1
    return n


@nb.njit(cache=True, nogil=True)
def append_failed_seeds(  # type: ignore[no-untyped-def]
    frame, start, pixels, shape, limits, failed, low, high, seeds, n
):
    """Add the seeds of the rings that ``failed`` names, restore raster order, return how many there are."""
    n_ss, n_fs = shape[1], shape[2]
    for r in range(failed.size):
        if not failed[r]:
            continue
        for i in pixels[start[r] : start[r + 1]]:
            if low <= frame[i] <= high and frame[i] > limits[r, 2] and not _is_rim(i, n_ss, n_fs):
                seeds[n] = i
                n += 1
    seeds[:n].sort()
    return n


@nb.njit(cache=True, nogil=True)
def scan_seeds(frame, ring, first, last, shape, limits, low, high, seeds):  # type: ignore[no-untyped-def]
    """Fill ``seeds`` by looking at every pixel from ``first`` to ``last``; returns how many."""
    n_ss, n_fs = shape[1], shape[2]
    n_rings = limits.shape[0]
    n = 0
    for i in range(first, last):
        r = ring[i]
        if r < n_rings and limits[r, 2] < frame[i] <= high and frame[i] >= low and not _is_rim(i, n_ss, n_fs):
            seeds[n] = i
            n += 1
    return n


@nb.njit(cache=True, nogil=True, inline="always")
def _is_rim(i, n_ss, n_fs):  # type: ignore[no-untyped-def]
    fs = i % n_fs
    ss = (i // n_fs) % n_ss
    return fs == 0 or ss == 0 or fs == n_fs - 1 or ss == n_ss - 1


@nb.njit(cache=True, nogil=True)
def grow_peaks(  # type: ignore[no-untyped-def]
    frame, ring, shape, limits, seeds, low, high, min_snr, min_pix, max_pix, bg_radius, used, visited, peaks
):
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
        n_visited = _flood(frame, ring, shape, limits, seed, low, high, used, visited, begin)
        n = n_visited - begin
        if min_pix <= n <= max_pix:
            blob = visited[begin:n_visited]
            n_peaks += _measure(
                frame, ring, shape, limits, blob, low, high, min_snr, bg_radius, used, peaks[n_peaks]
            )
    for i in visited[:n_visited]:
        used[i] = 0
    return n_peaks


@nb.njit(cache=True, nogil=True)
def _flood(frame, ring, shape, limits, seed, low, high, used, visited, begin):  # type: ignore[no-untyped-def]
    """Mark and list the 8-connected pixels above their own limits; returns the list's new end."""
    n_ss, n_fs = shape[1], shape[2]
    n_rings = limits.shape[0]
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
                r = ring[i]
                if used[i] or r == n_rings or not frame[i] > limits[r, 2] or not low <= frame[i] <= high:
                    continue
                used[i] = 1
                visited[end] = i
                end += 1
    return end


@nb.njit(cache=True, nogil=True)
def _measure(  # type: ignore[no-untyped-def]
    frame, ring, shape, limits, blob, low, high, min_snr, bg_radius, used, row
):
    """Fill ``row`` from the pixels of one blob; returns 1 when it is a peak, else 0."""
    n_ss, n_fs = shape[1], shape[2]
    first = blob[0] - blob[0] % (n_ss * n_fs)
    centre_fs, centre_ss = _first_centre(frame, ring, limits, blob, first, n_fs)
    if centre_fs < 0:
        return 0
    mean, sigma, highest = _local_background(
        frame, ring, shape, limits, first, centre_fs, centre_ss, low, high, bg_radius, used
    )
    raw, raw_fs, raw_ss, peak_max = 0.0, 0.0, 0.0, -np.inf
    for i in blob:
        v = float(frame[i])
        raw += v
        raw_fs += v * ((i - first) % n_fs)
        raw_ss += v * ((i - first) // n_fs)
        peak_max = max(peak_max, v - mean)
    intensity = raw - blob.size * mean
    snr = intensity / sigma if sigma > 0 else 0.0
    if snr < min_snr or peak_max < highest - mean or raw == 0:
        return 0
    fs, ss = raw_fs / raw, raw_ss / raw
    if fs < 0 or ss < 0 or fs > n_fs - 1 or ss > n_ss - 1:
        return 0
    row[PANEL], row[FS], row[SS] = first // (n_ss * n_fs), fs, ss
    row[INTENSITY], row[MAX_INTENSITY] = intensity, peak_max
    row[BACKGROUND], row[SIGMA], row[SNR], row[N_PIXELS] = mean, sigma, snr, blob.size
    return 1


@nb.njit(cache=True, nogil=True)
def _first_centre(frame, ring, limits, blob, first, n_fs):  # type: ignore[no-untyped-def]
    """Rounded centroid (fs, ss) weighted by the distance from the ring's mean; (-1, -1) without any weight.

    In single precision, like the C programs: a centroid midway between two pixels then rounds as theirs do.
    """
    weight, fs_sum, ss_sum = np.float32(0), np.float32(0), np.float32(0)
    for i in blob:
        w = abs(np.float32(frame[i]) - np.float32(limits[ring[i], 0]))
        weight += w
        fs_sum += w * np.float32((i - first) % n_fs)
        ss_sum += w * np.float32((i - first) // n_fs)
    if not weight > 0:
        return -1, -1
    return int(np.rint(fs_sum / weight)), int(np.rint(ss_sum / weight))


@nb.njit(cache=True, nogil=True)
def _local_background(  # type: ignore[no-untyped-def]
    frame, ring, shape, limits, first, centre_fs, centre_ss, low, high, bg_radius, used
):
    """Mean, population σ and maximum of the background pixels in the disc about a peak's centre."""
    n_ss, n_fs = shape[1], shape[2]
    n_rings = limits.shape[0]
    reach = 2 * bg_radius
    n, total, square, highest = 0, 0.0, 0.0, -np.inf
    for dy in range(-reach, reach):
        ss = centre_ss + dy
        if ss < 0 or ss >= n_ss:
            continue
        for dx in range(-reach, reach):
            fs = centre_fs + dx
            if fs < 0 or fs >= n_fs or dx * dx + dy * dy > reach * reach:
                continue
            i = first + ss * n_fs + fs
            r = ring[i]
            if r == n_rings or used[i] or not frame[i] < limits[r, 2] or not low <= frame[i] <= high:
                continue
            v = float(frame[i])
            n += 1
            total += v
            square += v * v
            highest = max(highest, v)
    if n == 0:
        r = ring[first + centre_ss * n_fs + centre_fs]
        mean = limits[r, 0] if r < n_rings else 0.0
        return mean, NO_BACKGROUND_SIGMA, mean
    mean = total / n
    return mean, np.sqrt(max(square / n - mean * mean, 0.0)), highest
