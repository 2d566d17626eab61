"""From one panel's logits to measured peaks, on the CPU: threshold, components, splitting, photometry."""

import numba
import numpy as np

from peaknet_pipeline.infer.labelling import append_run, join_runs

FS, SS, INTENSITY, MAX_INTENSITY, BACKGROUND, SIGMA, SNR, N_PIXELS, LOGIT, NEIGHBOUR = range(10)
"""Columns of a table of measured peaks; NEIGHBOUR: the lower of the highest pixel and the highest around it, in sigma."""

N_COLUMNS = 10
STRETCH = 32
"""Pixels of a row that are looked at together."""

MAX_CENTRED_PIXELS = 25
"""Peaks of more pixels keep the centre of mass of their own."""

WINDOW, WINDOW_STEPS, MAX_SHIFT, SHARP, LEAST_LIGHT = 4, 4, 2.0, 0.901, 0.1
"""Half width (px) and steps of the windowed centroid, the farthest (px) that it goes, what makes a spot sharp, and the share
of the window's absolute values that must remain as light: in noise alone a centroid would be a matter of rounding."""

MIN_BACKGROUND_PIXELS = 12
"""Pixels that a local background needs; with fewer, the disc grows once to twice its radius."""


@numba.njit(cache=True, nogil=True)
def measure_panel(frame, logits, bad, cut, limits):  # type: ignore[no-untyped-def]
    """Measure every component of one panel.

    Parameters
    ----------
    frame : (ss, fs), any real dtype
        Raw values; non-finite ones count as bad.
    logits : (ss, fs) float32
        Pixels at or above ``cut`` that are not bad belong to peaks.
    bad : (ss, fs) bool
        True = bad.
    cut : float
        Threshold on the logit.
    limits : tuple of int
        min_pix, max_pix, background radius, guard, split distance.

    Returns
    -------
    (n, 10) float64
        The columns named above, components in raster order of their first pixel.

    """
    min_pix, max_pix, radius, guard, split_distance = limits
    runs, n_runs = _find_runs(frame, logits, bad, cut)
    if n_runs == 0:
        return np.empty((0, N_COLUMNS))
    n_components = join_runs(runs, n_runs)
    rows, columns, starts = _list_pixels(runs, n_runs, n_components)
    marked = _mark_peaks(runs, n_runs, guard, frame.shape)
    if split_distance > 0:
        rows, columns, starts = _split(logits, rows, columns, starts, split_distance)
    peaks = np.empty((starts.size - 1, N_COLUMNS))
    n_peaks = 0
    for i in range(starts.size - 1):
        a, b = starts[i], starts[i + 1]
        if min_pix <= b - a <= max_pix:
            _measure(frame, logits, bad, marked, rows[a:b], columns[a:b], radius, peaks[n_peaks])
            n_peaks += 1
    return peaks[:n_peaks]


@numba.njit(cache=True, nogil=True)
def _find_runs(frame, logits, bad, cut):  # type: ignore[no-untyped-def]
    """List the runs of peak pixels in raster order; NaN logits are no peaks."""
    runs = np.empty((64, 4), np.int32)
    n_runs = 0
    height, width = frame.shape
    for row in range(height):
        # Most rows, and most stretches of the others, are empty: they are told without a branch per pixel.
        if not _any_above(logits[row], 0, width, cut):
            continue
        start = -1
        for first in range(0, width, STRETCH):
            last = min(first + STRETCH, width)
            if start < 0 and not _any_above(logits[row], first, last, cut):
                continue
            for column in range(first, last):
                inside = (
                    logits[row, column] >= cut
                    and not bad[row, column]
                    and np.isfinite(np.float64(frame[row, column]))
                )
                if inside and start < 0:
                    start = column
                elif not inside and start >= 0:
                    runs = append_run(row, start, column, runs, n_runs)
                    n_runs += 1
                    start = -1
        if start >= 0:
            runs = append_run(row, start, width, runs, n_runs)
            n_runs += 1
    return runs, n_runs


@numba.njit(cache=True, nogil=True)
def _any_above(line, first, last, cut):  # type: ignore[no-untyped-def]
    n_above = 0
    for column in range(first, last):
        n_above += line[column] >= cut
    return n_above > 0


@numba.njit(cache=True, nogil=True)
def _list_pixels(runs, n_runs, n_components):  # type: ignore[no-untyped-def]
    """List the pixels by component, each in raster order; component i has starts[i]:starts[i + 1]."""
    starts = np.zeros(n_components + 1, np.int64)
    for i in range(n_runs):
        starts[runs[i, 3] + 1] += runs[i, 2] - runs[i, 1]
    starts = np.cumsum(starts)
    rows, columns = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.int64)
    filled = starts[:-1].copy()
    for i in range(n_runs):
        for column in range(runs[i, 1], runs[i, 2]):
            k = filled[runs[i, 3]]
            rows[k], columns[k] = runs[i, 0], column
            filled[runs[i, 3]] += 1
    return rows, columns, starts


@numba.njit(cache=True, nogil=True)
def _mark_peaks(runs, n_runs, guard, shape):  # type: ignore[no-untyped-def]
    marked = np.zeros(shape, np.bool_)
    for i in range(n_runs):
        for row in range(max(runs[i, 0] - guard, 0), min(runs[i, 0] + guard + 1, shape[0])):
            marked[row, max(runs[i, 1] - guard, 0) : min(runs[i, 2] + guard, shape[1])] = True
    return marked


@numba.njit(cache=True, nogil=True)
def _split(logits, rows, columns, starts, distance):  # type: ignore[no-untyped-def]
    """Divide components by climbing: a pixel belongs to the maximum it reaches in steps of ``distance``."""
    new_rows, new_columns = np.empty_like(rows), np.empty_like(columns)
    new_starts = np.empty(rows.size + 1, np.int64)
    new_starts[0] = 0
    n_new, k = 0, 0
    for i in range(starts.size - 1):
        a, b = starts[i], starts[i + 1]
        top = _climb(logits, rows[a:b], columns[a:b], distance)
        for summit in range(b - a):
            if top[summit] == summit:
                for p in range(b - a):
                    if top[p] == summit:
                        new_rows[k], new_columns[k] = rows[a + p], columns[a + p]
                        k += 1
                n_new += 1
                new_starts[n_new] = k
    return new_rows, new_columns, new_starts[: n_new + 1]


@numba.njit(cache=True, nogil=True)
def _climb(logits, rows, columns, distance):  # type: ignore[no-untyped-def]
    top = np.arange(rows.size)
    for p in range(rows.size):
        best = logits[rows[p], columns[p]]
        first, last = p, p
        # Pixels are in raster order, so those within reach are a contiguous stretch around p.
        while first > 0 and rows[first - 1] >= rows[p] - distance:
            first -= 1
        while last < rows.size - 1 and rows[last + 1] <= rows[p] + distance:
            last += 1
        for q in range(first, last + 1):
            value = logits[rows[q], columns[q]]
            near = abs(columns[q] - columns[p]) <= distance
            if near and (value > best or (value == best and q < top[p])):
                best, top[p] = value, q
    for p in range(rows.size):
        while top[top[p]] != top[p]:
            top[p] = top[top[p]]
    return top


@numba.njit(cache=True, nogil=True)
def _measure(frame, logits, bad, marked, rows, columns, radius, peak):  # type: ignore[no-untyped-def]
    n = rows.size
    row = min(max(int(np.rint(rows.mean())), 0), frame.shape[0] - 1)
    column = min(max(int(np.rint(columns.mean())), 0), frame.shape[1] - 1)
    mean, sigma, n_background = _background(frame, bad, marked, row, column, radius)
    if n_background < MIN_BACKGROUND_PIXELS:
        mean, sigma, n_background = _background(frame, bad, marked, row, column, 2 * radius)
    total, highest, logit, top = 0.0, -np.inf, -np.inf, 0
    weight, sum_ss, sum_fs = 0.0, 0.0, 0.0
    for k in range(n):
        value = np.float64(frame[rows[k], columns[k]]) - mean
        total += value
        if value > highest:
            highest, top = value, k
        logit = max(logit, np.float64(logits[rows[k], columns[k]]))
        positive = max(value, 0.0)
        weight += positive
        sum_ss += positive * rows[k]
        sum_fs += positive * columns[k]
    peak[FS] = sum_fs / weight if weight > 0 else columns.mean()
    peak[SS] = sum_ss / weight if weight > 0 else rows.mean()
    if n <= MAX_CENTRED_PIXELS:
        _centre(frame, bad, mean, rows[top], columns[top], peak)
    peak[INTENSITY], peak[MAX_INTENSITY] = total, highest
    peak[BACKGROUND], peak[SIGMA] = mean, sigma
    peak[SNR] = total / sigma if sigma > 0 else 0.0
    peak[N_PIXELS], peak[LOGIT] = n, logit
    # The lower of the two: a dim pixel beside a hot one is no pair.
    neighbour = min(highest, _highest_neighbour(frame, bad, rows[top], columns[top]) - mean)
    # On a background without a single photon any light is significant.
    peak[NEIGHBOUR] = neighbour / sigma if sigma > 0 else (np.inf if neighbour > 0 else 0.0)


@numba.njit(cache=True, nogil=True)
def _centre(frame, bad, mean, row, column, peak):  # type: ignore[no-untyped-def]
    """Set a peak's centre from the pixels around its highest one, whether they belong to it or not.

    Of a sharp spot, whose 3x3 pixels hold ``SHARP`` of what 5x5 hold, the centre of mass of the 3x3. Of others the
    windowed centroid (Bertin, SExtractor's XWIN): c ← c + 2 Σ w·v·(x − c) / Σ w·v with a Gaussian w of 1 px about c.
    """
    values = np.zeros((2 * WINDOW + 1, 2 * WINDOW + 1))
    inner, outer, weight, sum_ss, sum_fs = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(-WINDOW, WINDOW + 1):
        for j in range(-WINDOW, WINDOW + 1):
            r, c = row + i, column + j
            if r < 0 or c < 0 or r >= frame.shape[0] or c >= frame.shape[1] or bad[r, c]:
                continue
            value = np.float64(frame[r, c])
            if not np.isfinite(value):
                continue
            value -= mean
            values[i + WINDOW, j + WINDOW] = value
            if abs(i) <= 2 and abs(j) <= 2:
                outer += value
            if abs(i) <= 1 and abs(j) <= 1:
                inner += value
                weight += max(value, 0.0)
                sum_ss += max(value, 0.0) * i
                sum_fs += max(value, 0.0) * j
    if inner >= SHARP * outer:
        if weight > 0:
            peak[SS], peak[FS] = row + sum_ss / weight, column + sum_fs / weight
        return
    ss, fs = 0.0, 0.0
    for _ in range(WINDOW_STEPS):
        total, absolute, step_ss, step_fs = 0.0, 0.0, 0.0, 0.0
        for i in range(2 * WINDOW + 1):
            for j in range(2 * WINDOW + 1):
                d_ss, d_fs = i - WINDOW - ss, j - WINDOW - fs
                share = np.exp(-0.5 * (d_ss * d_ss + d_fs * d_fs)) * values[i, j]
                total += share
                absolute += abs(share)
                step_ss += share * d_ss
                step_fs += share * d_fs
        if total <= LEAST_LIGHT * absolute:
            return
        ss += min(max(2 * step_ss / total, -1.0), 1.0)
        fs += min(max(2 * step_fs / total, -1.0), 1.0)
    if max(abs(ss), abs(fs)) <= MAX_SHIFT:
        peak[SS], peak[FS] = row + ss, column + fs


@numba.njit(cache=True, nogil=True)
def _highest_neighbour(frame, bad, row, column):  # type: ignore[no-untyped-def]
    """Highest good pixel of the eight around one; -inf if none is good."""
    highest = -np.inf
    for r in range(max(row - 1, 0), min(row + 2, frame.shape[0])):
        for c in range(max(column - 1, 0), min(column + 2, frame.shape[1])):
            value = np.float64(frame[r, c])
            if not bad[r, c] and np.isfinite(value) and not (r == row and c == column):
                highest = max(highest, value)
    return highest


@numba.njit(cache=True, nogil=True)
def _background(frame, bad, marked, row, column, radius):  # type: ignore[no-untyped-def]
    """Mean and population deviation of the good, unmarked pixels within ``radius``; 0, 0 without any."""
    total, squares, n, origin = 0.0, 0.0, 0, 0.0
    for r in range(max(row - radius, 0), min(row + radius + 1, frame.shape[0])):
        for c in range(max(column - radius, 0), min(column + radius + 1, frame.shape[1])):
            inside = (r - row) ** 2 + (c - column) ** 2 <= radius**2
            value = np.float64(frame[r, c])
            if inside and not bad[r, c] and not marked[r, c] and np.isfinite(value):
                if n == 0:
                    origin = value
                n += 1
                total += value - origin
                squares += (value - origin) ** 2
    if n == 0:
        return 0.0, 0.0, 0
    mean = total / n
    return origin + mean, np.sqrt(max(squares / n - mean * mean, 0.0)), n
