"""The loops behind ``weak_spots``, compiled: each row is read once, filtered along and across, and judged."""

from typing import Any

import numba
import numpy as np

from peaknet_pipeline.peaks.local_background import BLOCK


@numba.njit(cache=True, nogil=True, fastmath=True)
def profile_sums(good: Any, profile: Any) -> Any:
    """Return Σp and Σp² over the good pixels around each pixel, (ss, fs) float32 each."""
    n_ss, n_fs = good.shape
    reach = profile.size // 2
    squared = profile * profile
    first = np.zeros((n_ss, n_fs), dtype=np.float32)
    second = np.zeros((n_ss, n_fs), dtype=np.float32)
    for i in range(n_ss):
        for j in range(n_fs):
            for b in range(max(j - reach, 0), min(j + reach + 1, n_fs)):
                if good[i, b]:
                    first[i, j] += profile[b - j + reach]
                    second[i, j] += squared[b - j + reach]
    one = np.zeros((n_ss, n_fs), dtype=np.float32)
    two = np.zeros((n_ss, n_fs), dtype=np.float32)
    for i in range(n_ss):
        for a in range(max(i - reach, 0), min(i + reach + 1, n_ss)):
            for j in range(n_fs):
                one[i, j] += profile[a - i + reach] * first[a, j]
                two[i, j] += squared[a - i + reach] * second[a, j]
    return one, two


@numba.njit(cache=True, nogil=True)
def find_in_panel(
    image: Any, good: Any, mean: Any, variance: Any, profile: Any, p1: Any, p2: Any, photon: Any, least: Any
) -> Any:
    """Return ss, fs, significance and expected photons, (4, n), of the local maxima of the filtered panel.

    Rows pass through a window of filtered rows: each is read once, freed of its background, filtered along fs, then along
    ss; a maximum is a pixel that no pixel of its 3 × 3 neighbours exceeds.
    """
    n_ss, n_fs = image.shape
    reach = profile.size // 2
    side = profile.size
    ahead = np.zeros((side, n_fs), dtype=np.float32)
    filtered = np.zeros((3, n_fs), dtype=np.float32)
    ramp = np.empty(n_fs, dtype=np.float32)
    row = np.zeros(n_fs + 2 * reach, dtype=np.float32)
    capacity = 1024
    found = np.empty((4, capacity), dtype=np.float32)
    n_found = 0
    for i in range(n_ss + reach + 1):
        slot = i % side
        if i < n_ss:
            _interpolated_row(mean, i, ramp)
            _residual_row(image[i], good[i], ramp, row[reach : reach + n_fs])
            _filter_along(row, profile, ahead[slot])
        else:
            ahead[slot, :] = 0.0
        centre = i - reach
        if centre < 0:
            continue
        # Filtered rows stand in turn; `centre` is the newest, the one before it can now be judged.
        _filter_across(ahead, profile, centre, n_ss, filtered[centre % 3])
        judged = centre - 1
        if judged < 0 or judged >= n_ss:
            continue
        _interpolated_row(variance, judged, ramp)
        if n_found + n_fs > capacity:
            capacity = 2 * capacity + n_fs
            larger = np.empty((4, capacity), dtype=np.float32)
            larger[:, :n_found] = found[:, :n_found]
            found = larger
        n_found = _judge_row(
            filtered, judged, n_ss, good[judged], ramp, p1[judged], p2[judged], photon, least, found, n_found
        )
    return found[:, :n_found].copy()


@numba.njit(cache=True, nogil=True, fastmath=True)
def _interpolated_row(blocks: Any, i: Any, out: Any) -> Any:
    """Fill ``out`` (fs,) with the block values (with a ring around them) interpolated linearly at row ``i``."""
    place = (np.float32(i) + np.float32(0.5)) / np.float32(BLOCK) + np.float32(0.5)
    r = min(int(place), blocks.shape[0] - 2)
    t = place - np.float32(r)
    n_fs = out.size
    half = BLOCK // 2
    for c in range(blocks.shape[1] - 1):
        left = blocks[r, c] + t * (blocks[r + 1, c] - blocks[r, c])
        right = blocks[r, c + 1] + t * (blocks[r + 1, c + 1] - blocks[r, c + 1])
        step = (right - left) / np.float32(BLOCK)
        begin = c * BLOCK - half
        for j in range(max(begin, 0), min(begin + BLOCK, n_fs)):
            out[j] = left + step * (np.float32(j - begin) + np.float32(0.5))


@numba.njit(cache=True, nogil=True, fastmath=False)
def _residual_row(values: Any, good: Any, background: Any, out: Any) -> Any:
    """Fill ``out`` with the pixels above their background; bad and non-finite ones count as background."""
    for j in range(values.size):
        rest = values[j] - background[j]
        out[j] = rest if good[j] and np.isfinite(rest) else np.float32(0.0)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _filter_along(row: Any, profile: Any, out: Any) -> Any:
    n = out.size
    for j in range(n):
        out[j] = profile[0] * row[j]
    for b in range(1, profile.size):
        weight = profile[b]
        for j in range(n):
            out[j] += weight * row[j + b]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _filter_across(ahead: Any, profile: Any, centre: Any, n_ss: Any, out: Any) -> Any:
    side = profile.size
    reach = side // 2
    out[:] = 0.0
    if centre >= n_ss:
        return
    for a in range(side):
        source = centre + a - reach
        if source < 0 or source >= n_ss:
            continue
        weight = profile[a]
        line = ahead[source % side]
        for j in range(out.size):
            out[j] += weight * line[j]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _judge_row(
    filtered: Any,
    i: Any,
    n_ss: Any,
    good: Any,
    variance: Any,
    p1: Any,
    p2: Any,
    photon: Any,
    least: Any,
    found: Any,
    n: Any,
) -> Any:
    """Append the row's local maxima of at least that significance; return how many there are now."""
    above, here, below = filtered[(i - 1) % 3], filtered[i % 3], filtered[(i + 1) % 3]
    n_fs = here.size
    square = least * least
    for j in range(n_fs):
        t = here[j]
        if t <= 0.0 or t * t < square * p2[j] * variance[j] or not good[j] or p1[j] < 0.5:
            continue
        if (i > 0 and t < above[j]) or (i + 1 < n_ss and t < below[j]):
            continue
        left, right = max(j - 1, 0), min(j + 1, n_fs - 1)
        if here[left] > t or here[right] > t:
            continue
        if i > 0 and (above[left] > t or above[right] > t):
            continue
        if i + 1 < n_ss and (below[left] > t or below[right] > t):
            continue
        expected = p1[j] * p1[j] * variance[j] / (p2[j] * photon * photon)
        seen = expected + t * p1[j] / (p2[j] * photon)
        z = np.sqrt(2.0 * (seen * np.log(seen / expected) - seen + expected))
        if z < least:
            continue
        # The maximum of the parabola through three filtered pixels, at most half a pixel away.
        found[0, n] = i + (_vertex(above[j], t, below[j]) if 0 < i < n_ss - 1 else 0.0)
        found[1, n] = j + (_vertex(here[left], t, here[right]) if 0 < j < n_fs - 1 else 0.0)
        found[2, n], found[3, n] = z, expected
        n += 1
    return n


@numba.njit(cache=True, nogil=True, inline="always")
def _vertex(before: Any, top: Any, after: Any) -> Any:
    bend = 2.0 * top - before - after
    if bend <= 0.0:
        return np.float32(0.0)
    return np.float32(min(max(0.5 * (after - before) / bend, -0.5), 0.5))
