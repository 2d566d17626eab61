"""Background rate and variance of a panel, block by block, for sparse photons and for bright backgrounds alike.

The mean and the variance of each block of pixels are taken without what stands out (Bragg spots, hot pixels). Where a
block holds few photons its own mean means little, so it is drawn towards that of a wider neighbourhood, with the weight
that a gamma prior of ``PRIOR_PHOTONS`` photons has. A panel with thousands of photons in each block is hardly drawn; one
with a photon in a hundred pixels is nearly smoothed to its neighbourhood's rate.
"""

from typing import Any

import numba
import numpy as np

from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, FrameArray

BLOCK = 16
"""Side of a block, pixels."""

CLIP_SIGMA, CLIP_PHOTONS, CLIP_ROUNDS = 4.0, 2.5, 3
"""Pixels further than so many σ, and than so many photons, above the mean are left out, in so many rounds."""

PRIOR_PHOTONS = 10.0
"""What the wider neighbourhood's rate counts for, photons."""


LEAST_RATE = 1e-6
"""Photons in a pixel below which no background is believed."""


def block_background(
    panel: FrameArray, good: BoolArray, adu_per_photon: float
) -> tuple[Float32Array, Float32Array]:
    """Return mean and variance of a panel's background, one value per block.

    Parameters
    ----------
    panel : (ss, fs) real
    good : (ss, fs) bool
    adu_per_photon : float
        What one photon adds to a pixel.

    Returns
    -------
    mean, variance : (⌈ss / BLOCK⌉, ⌈fs / BLOCK⌉) float32, ADU and ADU²
        Finite everywhere; 0 and the least variance where a panel has no good pixel at all.

    """
    n_good, total, squares = _clipped_sums(panel, good, np.float32(adu_per_photon))
    photon = abs(adu_per_photon)
    whole = max(n_good.sum(), 1.0)
    rate = np.full_like(total, total.sum() / whole)
    spread = np.full_like(total, squares.sum() / whole - (total.sum() / whole) ** 2)
    for reach in (2, 1):
        n, s, q = (_box_sum(part, reach) for part in (n_good, total, squares))
        # Gamma prior: PRIOR_PHOTONS photons seen in the area in which the wider rate expects them.
        area = PRIOR_PHOTONS * photon / np.maximum(np.abs(rate), LEAST_RATE * photon)
        area = np.minimum(area, 50.0 * (2 * reach + 1) ** 2 * BLOCK**2)
        new_rate = (s + area * rate) / (n + area)
        within = q - 2.0 * new_rate * s + n * new_rate**2
        spread = (within + area * spread) / (n + area)
        rate = new_rate
    least = LEAST_RATE * photon**2
    most = np.finfo(np.float32).max  # squares of what is no count, such as 1e30, are beyond it
    return rate.astype(np.float32), np.clip(spread, least, most).astype(np.float32)


def background_maps(
    frame: FrameArray, good: BoolArray, adu_per_photon: Float64Array
) -> tuple[Float32Array, Float32Array]:
    """Return mean and variance of a frame's background at each pixel, (n_panels, ss, fs) each: that of its block."""
    mean, variance = np.empty(frame.shape, np.float32), np.empty(frame.shape, np.float32)
    n_ss, n_fs = frame.shape[1:]
    for number, panel in enumerate(frame):
        values = np.ascontiguousarray(panel, dtype=np.float32)
        blocks = block_background(values, good[number], float(adu_per_photon[number]))
        for whole, block in zip((mean, variance), blocks, strict=True):
            whole[number] = block.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[:n_ss, :n_fs]
    return mean, variance


def _box_sum(values: Float64Array, reach: int) -> Float64Array:
    """Return the sum over (2 · reach + 1)² blocks around each one, fewer at the edge."""
    padded = np.pad(values, reach + 1, constant_values=0.0).cumsum(axis=0).cumsum(axis=1)
    side = 2 * reach + 1
    sums = padded[side:, side:] - padded[:-side, side:] - padded[side:, :-side] + padded[:-side, :-side]
    return np.asarray(sums[: values.shape[0], : values.shape[1]], dtype=np.float64)


@numba.njit(cache=True, nogil=True)
def _clipped_sums(panel: Any, good: Any, photon: Any) -> Any:
    """Return number, sum and sum of squares of each block's pixels that do not stand out."""
    n_ss, n_fs = panel.shape
    rows, columns = (n_ss + BLOCK - 1) // BLOCK, (n_fs + BLOCK - 1) // BLOCK
    count = np.zeros((rows, columns))
    total = np.zeros((rows, columns))
    squares = np.zeros((rows, columns))
    values = np.empty(BLOCK * BLOCK, dtype=np.float32)
    for r in range(rows):
        for c in range(columns):
            n = 0
            for i in range(r * BLOCK, min(r * BLOCK + BLOCK, n_ss)):
                for j in range(c * BLOCK, min(c * BLOCK + BLOCK, n_fs)):
                    value = np.float32(panel[i, j])
                    if good[i, j] and np.isfinite(value):
                        values[n] = value
                        n += 1
            if n == 0:
                continue
            limit = np.float32(np.inf)
            for _ in range(CLIP_ROUNDS + 1):
                kept, s, q = 0, 0.0, 0.0
                for k in range(n):
                    if values[k] <= limit:
                        value64 = np.float64(values[k])
                        kept += 1
                        s += value64
                        q += value64 * value64
                mean = s / kept
                sigma = np.sqrt(max(q / kept - mean * mean, 0.0))
                limit = np.float32(mean + max(CLIP_SIGMA * sigma, CLIP_PHOTONS * photon))
            count[r, c], total[r, c], squares[r, c] = kept, s, q
    return count, total, squares
