"""Median of the good pixels around each pixel, within its panel."""

import numba
import numpy as np

from peaknet_pipeline.types import BoolArray, Float32Array


def local_median(stack: Float32Array, bad_pixels: BoolArray, radius: int) -> Float32Array:
    """Return the median over the square of ±``radius`` pixels around each pixel, the pixel itself left out.

    Parameters
    ----------
    stack : (n_panels, ss, fs) float32
    bad_pixels : (n_panels, ss, fs) bool
        Left out, as is NaN; windows end at the panel's border.
    radius : int
        Pixels.

    Returns
    -------
    (n_panels, ss, fs) float32, NaN where no good pixel is near. Equal to ``numpy.nanmedian`` over each
    window.

    """
    usable = ~bad_pixels & np.isfinite(stack)
    return _local_median(np.ascontiguousarray(stack, dtype=np.float32), usable, radius)


@numba.njit(parallel=True, cache=True, nogil=True)
def _local_median(stack: Float32Array, usable: BoolArray, radius: int) -> Float32Array:
    n_panels, height, width = stack.shape
    result = np.full(stack.shape, np.nan, dtype=np.float32)
    for row in numba.prange(n_panels * height):
        panel, ss = row // height, row % height
        window = np.empty((2 * radius + 1) ** 2, dtype=np.float32)
        for fs in range(width):
            n = 0
            for y in range(max(ss - radius, 0), min(ss + radius + 1, height)):
                for x in range(max(fs - radius, 0), min(fs + radius + 1, width)):
                    if usable[panel, y, x] and not (y == ss and x == fs):
                        window[n] = stack[panel, y, x]
                        n += 1
            if n:
                result[panel, ss, fs] = _median(window, n)
    return result


@numba.njit(cache=True, nogil=True)
def _median(values: Float32Array, n: int) -> float:
    """Return the median of the first ``n`` values, reordering them (Hoare's selection)."""
    upper = n // 2
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if upper <= j:
            high = j
        elif upper >= i:
            low = i
        else:
            break
    if n % 2:
        return float(values[upper])
    below = values[0]
    for k in range(1, upper):
        below = max(below, values[k])
    return 0.5 * (float(below) + float(values[upper]))
