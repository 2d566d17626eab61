"""Rings of equal radius: which pixels they hold, in the two orders in which the statistics read them."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.usable import UsableValues
from peaknet_pipeline.peaks.compilation import compiled
from peaknet_pipeline.types import BoolArray, Float32Array

Int32Array: TypeAlias = npt.NDArray[np.int32]
UInt16Array: TypeAlias = npt.NDArray[np.uint16]
Pixels: TypeAlias = npt.NDArray[Any]

TILE_SS, TILE_FS = 64, 128
"""Largest tile; in single precision it fits the first-level cache, and its pixel numbers fit 16 bits."""

BLOCK = 64
"""Pixels per block of the seed scan."""

MAX_RINGS = 65535


class Rules(NamedTuple):
    """Parameters of a search as the compiled kernels take them."""

    usable: UsableValues
    min_snr: float
    threshold: float
    min_pix: int
    max_pix: int
    local_bg_radius: int


class Tiles(NamedTuple):
    """The stack cut into small rectangles, and each rectangle's usable pixels sorted by ring.

    Tile t has its first pixel at ``origin[t]`` of the flattened stack and measures ``height[t]`` by
    ``width[t]``; ``pixel[pixel_start[t]:pixel_start[t + 1]]`` are pixel numbers within the tile, and its
    segments ``segment_start[t]:segment_start[t + 1]`` say where each ring ends among them.
    """

    origin: Int32Array
    height: Int32Array
    width: Int32Array
    pixel_start: Int32Array
    pixel: UInt16Array
    segment_start: Int32Array
    segment_ring: Int32Array
    segment_end: Int32Array


class RingPlan(NamedTuple):
    """What a radius map and a mask fix once for all frames; pixels are counted over the flattened stack.

    ``ring`` is each pixel's ring number (``n_rings`` where the pixel is unusable). The pixels of ring r, in
    raster order, are ``pixels[start[r]:start[r + 1]]``; ``sample[sample_start[r]:sample_start[r + 1]]`` is an
    even choice of them. ``block_rings`` (n_blocks, 2) is the lowest and highest ring of every `BLOCK` pixels.
    """

    shape: tuple[int, int, int]
    n_rings: int
    ring: UInt16Array
    start: Int32Array
    pixels: Int32Array
    sample_start: Int32Array
    sample: Int32Array
    block_rings: UInt16Array
    tiles: Tiles


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
        The two stacks differ in shape or are not stacks, or the radius map is not in pixels.

    """
    if radius.ndim != 3 or radius.shape != bad_pixels.shape:
        raise ParameterError(
            "radius map and mask are not stacks of one shape", expected=radius.shape, found=bad_pixels.shape
        )
    ring, n_rings = _number_rings(radius, bad_pixels, min_radius, max_radius)
    start, pixels = _sort_by_ring(ring, n_rings)
    sample_start, sample = _draw_sample(start, pixels, sample_size)
    n_panels, n_ss, n_fs = radius.shape
    tiles = Tiles(*_cut_tiles(ring, n_rings, n_panels, n_ss, n_fs))
    blocks = _span_blocks(ring, n_rings)
    return RingPlan((n_panels, n_ss, n_fs), n_rings, ring, start, pixels, sample_start, sample, blocks, tiles)


def _number_rings(
    radius: Float32Array, bad_pixels: BoolArray, min_radius: float, max_radius: float
) -> tuple[UInt16Array, int]:
    usable = ~bad_pixels & np.isfinite(radius)
    if min_radius > 0:
        usable &= radius > min_radius
    if max_radius > 0:
        usable &= radius < max_radius
    rounded = np.rint(radius[usable])
    n_rings = int(rounded.max(initial=-1)) + 1
    if n_rings > MAX_RINGS or rounded.min(initial=0) < 0:
        raise ParameterError(
            "not a radius map in pixels", expected=f"0 to {MAX_RINGS - 1}", found=n_rings - 1
        )
    ring = np.full(radius.shape, n_rings, np.uint16)
    ring[usable] = rounded.astype(np.uint16)
    return ring.ravel(), n_rings


@compiled()
def _sort_by_ring(ring: UInt16Array, n_rings: int) -> tuple[Int32Array, Int32Array]:
    """Counting sort: pixel numbers ordered by ring, raster order kept within a ring."""
    start = np.zeros(n_rings + 1, np.int32)
    for r in ring:
        if r < n_rings:
            start[r + 1] += 1
    for k in range(n_rings):
        start[k + 1] += start[k]
    cursor = start.copy()
    pixels = np.empty(start[n_rings], np.int32)
    for i in range(ring.size):
        r = ring[i]
        if r < n_rings:
            pixels[cursor[r]] = i
            cursor[r] += 1
    return start, pixels


@compiled()
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


@compiled()
def _span_blocks(ring: UInt16Array, n_rings: int) -> UInt16Array:
    """Lowest and highest ring of each block; a block without a usable pixel has them crossed."""
    n_blocks = (ring.size + BLOCK - 1) // BLOCK
    span = np.empty((n_blocks, 2), np.uint16)
    for b in range(n_blocks):
        lowest, highest = n_rings, 0
        for r in ring[b * BLOCK : (b + 1) * BLOCK]:
            if r < n_rings:
                lowest, highest = min(lowest, r), max(highest, r)
        span[b, 0], span[b, 1] = lowest, highest
    return span


@compiled()
def _cut_tiles(ring: UInt16Array, n_rings: int, n_panels: int, n_ss: int, n_fs: int) -> tuple[Any, ...]:
    """Cut every panel into nearly equal tiles and sort each by ring; returns the fields of `Tiles`."""
    across, down = -(-n_fs // TILE_FS), -(-n_ss // TILE_SS)
    n_tiles = n_panels * down * across
    origin, height, width = (
        np.empty(n_tiles, np.int32),
        np.empty(n_tiles, np.int32),
        np.empty(n_tiles, np.int32),
    )
    pixel_start, segment_start = np.zeros(n_tiles + 1, np.int32), np.zeros(n_tiles + 1, np.int32)
    pixel = np.empty(ring.size, np.uint16)
    segment_ring, segment_end = np.empty(ring.size, np.int32), np.empty(ring.size, np.int32)
    cursor = np.zeros(n_rings + 1, np.int32)
    for t in range(n_tiles):
        panel, y, x = t // (down * across), (t // across) % down, t % across
        top, left = y * n_ss // down, x * n_fs // across
        origin[t] = (panel * n_ss + top) * n_fs + left
        height[t], width[t] = (y + 1) * n_ss // down - top, (x + 1) * n_fs // across - left
        n_pixels, n_segments = _sort_tile(
            ring, n_rings, n_fs, origin[t], height[t], width[t], cursor, pixel[pixel_start[t] :],
            segment_ring[segment_start[t] :], segment_end[segment_start[t] :],
        )  # fmt: skip
        pixel_start[t + 1], segment_start[t + 1] = pixel_start[t] + n_pixels, segment_start[t] + n_segments
    n_segments, n_pixels = segment_start[n_tiles], pixel_start[n_tiles]
    return (
        origin, height, width, pixel_start, pixel[:n_pixels].copy(), segment_start,
        segment_ring[:n_segments].copy(), segment_end[:n_segments].copy(),
    )  # fmt: skip


@compiled()
def _sort_tile(
    ring: UInt16Array,
    n_rings: int,
    n_fs: int,
    origin: int,
    height: int,
    width: int,
    cursor: Int32Array,
    pixel: UInt16Array,
    segment_ring: Int32Array,
    segment_end: Int32Array,
) -> tuple[int, int]:
    """Counting sort of one tile; ``cursor`` (n_rings + 1) is zero before and after. Returns two lengths."""
    lowest, highest = n_rings, -1
    for y in range(height):
        for r in ring[origin + y * n_fs : origin + y * n_fs + width]:
            cursor[r] += 1
            if r < n_rings:
                lowest, highest = min(lowest, r), max(highest, r)
    end, n_segments = 0, 0
    for k in range(lowest, highest + 1):
        count, cursor[k] = cursor[k], end
        if count:
            end += count
            segment_ring[n_segments], segment_end[n_segments] = k, end
            n_segments += 1
    for y in range(height):
        for x in range(width):
            r = ring[origin + y * n_fs + x]
            if r < n_rings:
                pixel[cursor[r]] = y * width + x
                cursor[r] += 1
    cursor[lowest : highest + 1] = 0
    cursor[n_rings] = 0
    return end, n_segments
