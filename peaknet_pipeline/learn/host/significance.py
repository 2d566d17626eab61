"""The same significance as ``normalise``, compiled for a CPU.

One pass over the frame for the statistics; then one that writes all space-to-depth cells in the layout and precision that
a network's first convolution wants, or one that finds the high pixels and another that writes single cells.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.normalise import (
    MANTISSA_STEP,
    ONE_BITS,
    CellMoments,
    NormaliseParameters,
    background_from_cells,
    ring_blocks,
)
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray, IntArray

LARGEST = np.finfo(np.float32).max
BlockGrids = tuple[Float32Array, Float32Array]
"""Background and noise of one panel's blocks with a ring around them, each (blocks_ss + 2, blocks_fs + 2)."""

_NATIVE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def normalise_cells(
    images: FrameArray,
    good: BoolArray,
    *,
    stem: int,
    params: NormaliseParameters | None = None,
    pad_to: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Turn panels into space-to-depth cells of compressed significance.

    Parameters
    ----------
    images, good : (n, ss, fs)
        Any real dtype; bool. Non-finite pixels count as bad.
    stem : int
        Side of a cell, pixels.
    params : NormaliseParameters, optional
        As stored with the weights.
    pad_to : int, optional
        Sides are padded to multiples of it (the network's stride); ``stem`` by default.
    dtype : torch.dtype
        bfloat16 or float32.

    Returns
    -------
    Tensor
        (n, stem², ss / stem, fs / stem), channels last: ``pixel_unshuffle(normalise(...))`` but for
        the rounding of the last bit.

    Raises
    ------
    ModelError
        Shapes that do not fit.

    """
    params = params or NormaliseParameters()
    images, good = native_images(images, good)
    mean, noise = estimate_blocks(images, good, params)
    step = pad_to or stem
    height, width = (-(-side // step) * step for side in images.shape[1:])
    shape = (len(images), height // stem, width // stem, stem * stem)
    cells = np.zeros(shape, dtype=np.uint16 if dtype == torch.bfloat16 else np.uint32)
    side, linear_to = params.cell * params.block_cells, np.float32(params.compression)
    for panel in range(len(images)):
        _write_cells(
            images[panel], good[panel], mean[panel], noise[panel], side, linear_to, stem, cells[panel]
        )
    return torch.from_numpy(cells).view(dtype).permute(0, 3, 1, 2)


def native_images(images: FrameArray, good: BoolArray) -> tuple[FrameArray, BoolArray]:
    """Return panels and good pixels (n, ss, fs) as the compiled code reads them; ModelError if they do not fit."""
    if images.ndim != 3 or images.shape != good.shape:
        raise ModelError(
            "image and mask do not fit",
            expected="both (n, ss, fs)",
            found=f"{images.shape} and {good.shape}",
        )
    if images.dtype.name not in _NATIVE or not images.dtype.isnative:
        images = images.astype(np.float32)
    return np.ascontiguousarray(images), np.ascontiguousarray(good)


def find_high(
    image: FrameArray, good: BoolArray, blocks: BlockGrids, params: NormaliseParameters, level: float
) -> BoolArray:
    """Return which good pixels of a panel (ss, fs) reach ``level`` in significance; arguments from :func:`native_images`."""
    high = np.empty(image.shape, dtype=np.bool_)
    mean, noise = blocks
    _find_high(image, good, mean + np.float32(level) * noise, params.cell * params.block_cells, high)
    return high


def write_cells_at(
    image: FrameArray,
    good: BoolArray,
    blocks: BlockGrids,
    params: NormaliseParameters,
    *,
    stem: int,
    cells: IntArray,
    values: Float32Array,
) -> None:
    """Write the compressed significance of single cells (n, 2) of a panel (ss, fs) into ``values`` (n, stem²); 0 beyond it."""
    side, linear_to = params.cell * params.block_cells, np.float32(params.compression)
    _write_cells_at(image, good, *blocks, side, linear_to, stem, cells, values)


def estimate_blocks(
    images: FrameArray, good: BoolArray, params: NormaliseParameters
) -> tuple[Float32Array, Float32Array]:
    """Return block grids of background and noise with a ring of extrapolated blocks around them, each (n, …)."""
    side = params.cell * params.block_cells
    grid = [-(-length // side) * params.block_cells for length in images.shape[1:]]
    moments = np.zeros((5, len(images), *grid), dtype=np.float32)
    for panel in range(len(images)):
        _cell_moments(images[panel], good[panel], params.cell, *moments[:, panel])

    def panel_pixels(index: int) -> Tensor:
        values = images[index][good[index]].astype(np.float32)
        return torch.from_numpy(values[np.isfinite(values)])

    background = background_from_cells(CellMoments(*torch.from_numpy(moments)), panel_pixels, params)
    return (
        ring_blocks(background.mean, outwards="linear")[:, 0].numpy(),
        ring_blocks(background.noise, outwards="constant")[:, 0].numpy(),
    )


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _cell_moments(image, good, cell, mean, variance, excess, count, n_above):  # type: ignore[no-untyped-def]
    """Fill the moments of each cell's good pixels, a strip of cells at a time."""
    height, width = image.shape
    total = np.zeros(width, dtype=np.float32)
    weight, shift, above = np.zeros_like(total), np.zeros_like(total), np.zeros_like(total)
    for row in range(-(-height // cell)):
        first, last = row * cell, min(height, (row + 1) * cell)
        total[:] = 0
        weight[:] = 0
        for ss in range(first, last):
            for fs in range(width):
                value = np.float32(image[ss, fs])
                counts = good[ss, fs] & (abs(value) <= LARGEST)
                total[fs] += value if counts else np.float32(0)
                weight[fs] += np.float32(1) if counts else np.float32(0)
        for column in range(-(-width // cell)):
            left, right = column * cell, min(width, (column + 1) * cell)
            number = weight[left:right].sum()
            centre = total[left:right].sum() / max(number, np.float32(1))
            mean[row, column] = centre
            count[row, column] = number
            shift[left:right] = centre
        total[:] = 0
        above[:] = 0
        weight[:] = 0
        for ss in range(first, last):
            for fs in range(width):
                value = np.float32(image[ss, fs])
                apart = value - shift[fs]
                counts = good[ss, fs] & (abs(value) <= LARGEST)
                total[fs] += apart * apart if counts else np.float32(0)
                above[fs] += apart if counts & (apart > 0) else np.float32(0)
                weight[fs] += np.float32(1) if counts & (apart > 0) else np.float32(0)
        for column in range(-(-width // cell)):
            left, right = column * cell, min(width, (column + 1) * cell)
            variance[row, column] = total[left:right].sum() / max(count[row, column] - 1, np.float32(1))
            n_above[row, column] = weight[left:right].sum()
            excess[row, column] = above[left:right].sum() / max(n_above[row, column], np.float32(1))


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _write_cells(image, good, mean, noise, side, linear_to, stem, cells):  # type: ignore[no-untyped-def]
    """Write the compressed (image - mean) / noise as bits of the cells' width in space-to-depth order."""
    height, width = image.shape
    line = np.ones(cells.shape[1] * stem, dtype=np.float32)
    compressed, short = np.zeros_like(line), np.zeros(len(line), dtype=np.uint16)
    grown, bits = line.view(np.int32), compressed.view(np.uint32)
    unit = np.float32(linear_to * MANTISSA_STEP)
    level, spread = np.zeros(width, dtype=np.float32), np.zeros(width, dtype=np.float32)
    rise, widening = np.zeros_like(level), np.zeros_like(level)
    for ss in range(height):
        _follow_row(mean, ss, side, level, rise)
        _follow_row(noise, ss, side, spread, widening)
        for fs in range(width):
            value = np.float32(image[ss, fs])
            apart = value - level[fs]
            ratio = np.float32(1) + abs(apart) / (spread[fs] * linear_to)
            ratio = ratio if good[ss, fs] & (abs(value) <= LARGEST) else np.float32(1)
            line[fs] = ratio if apart >= 0 else -ratio
        for fs in range(width):
            size = np.float32((grown[fs] & np.int32(0x7FFFFFFF)) - np.int32(ONE_BITS)) * unit
            compressed[fs] = size if grown[fs] >= 0 else -size
        if cells.itemsize == 4:
            _store_single(bits, ss, stem, cells)
        else:
            _store_half(bits, short, ss, stem, cells)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _follow_row(grid, ss, side, line, step):  # type: ignore[no-untyped-def]
    """Make the line of row ``ss``, bilinear between the centres of a ringed grid's blocks, of that of the row before.

    Down to the next centres a line changes by the same ``step`` from row to row.
    """
    if ss > 0 and (ss + side // 2) % side:
        for fs in range(len(line)):
            line[fs] += step[fs]
        return
    above = (ss + side // 2) // side
    down = np.float32((ss - (above * side - side / 2) + 0.5) / side)
    for block in range(grid.shape[1] - 1):
        start = block * side - side // 2
        left_step, right_step = (
            grid[above + 1, block] - grid[above, block],
            grid[above + 1, block + 1] - grid[above, block + 1],
        )
        left, right = grid[above, block] + down * left_step, grid[above, block + 1] + down * right_step
        for fs in range(max(0, start), min(len(line), start + side)):
            along = (np.float32(fs - start) + np.float32(0.5)) / np.float32(side)
            line[fs] = left + along * (right - left)
            step[fs] = (left_step + along * (right_step - left_step)) / np.float32(side)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _find_high(image, good, limit, side, high):  # type: ignore[no-untyped-def]
    """Mark the good pixels that reach a limit given between blocks, as mean and noise are."""
    least = np.zeros(image.shape[1], dtype=np.float32)
    step = np.zeros_like(least)
    for ss in range(len(image)):
        _follow_row(limit, ss, side, least, step)
        row, counts, out = image[ss], good[ss], high[ss]
        for fs in range(len(row)):
            value = np.float32(row[fs])
            out[fs] = (value >= least[fs]) & (value <= LARGEST) & counts[fs]


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _write_cells_at(image, good, mean, noise, side, linear_to, stem, cells, values):  # type: ignore[no-untyped-def]
    """Write single cells of compressed significance; a cell may lie across the centres of blocks."""
    height, width = image.shape
    line = np.empty(stem * stem, dtype=np.float32)
    grown, unit = line.view(np.int32), np.float32(linear_to * MANTISSA_STEP)
    for i in range(len(cells)):
        top, left = cells[i, 0] * stem, cells[i, 1] * stem
        if top < 0 or left < 0 or top >= height or left >= width:
            continue
        line[:] = np.float32(1)
        first = (left + side // 2) // side
        for ss in range(top, min(top + stem, height)):
            above, before = (ss + side // 2) // side, first
            down = np.float32((ss - (above * side - side / 2) + 0.5) / side)
            level, rise = _between(mean, above, before, down)
            spread, widening = _between(noise, above, before, down)
            for fs in range(left, min(left + stem, width)):
                if fs == (before + 1) * side - side // 2:
                    before += 1
                    level, rise = _between(mean, above, before, down)
                    spread, widening = _between(noise, above, before, down)
                along = np.float32((fs - (before * side - side / 2) + 0.5) / side)
                value = np.float32(image[ss, fs])
                apart = value - (level + along * rise)
                ratio = np.float32(1) + abs(apart) / ((spread + along * widening) * linear_to)
                ratio = ratio if good[ss, fs] & (abs(value) <= LARGEST) else np.float32(1)
                line[(ss - top) * stem + fs - left] = ratio if apart >= 0 else -ratio
        for k in range(len(line)):
            size = np.float32((grown[k] & np.int32(0x7FFFFFFF)) - np.int32(ONE_BITS)) * unit
            values[i, k] = size if grown[k] >= 0 else -size


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _between(grid, above, before, down):  # type: ignore[no-untyped-def]
    """Return the value on the left centres' line, and the change to the right one's."""
    left = grid[above, before] + down * (grid[above + 1, before] - grid[above, before])
    right = grid[above, before + 1] + down * (grid[above + 1, before + 1] - grid[above, before + 1])
    return left, right - left


@numba.njit(nogil=True, cache=True)
def _store_single(bits, ss, stem, cells):  # type: ignore[no-untyped-def]
    """Store a line of float32 bits."""
    shift = (ss % stem) * stem
    for column in range(cells.shape[1]):
        for part in range(stem):
            cells[ss // stem, column, shift + part] = bits[column * stem + part]


@numba.njit(nogil=True, cache=True)
def _store_half(bits, short, ss, stem, cells):  # type: ignore[no-untyped-def]
    """Round a line of float32 bits to bfloat16 and store it."""
    for fs in range(len(bits)):
        short[fs] = (
            bits[fs] + np.uint32(0x7FFF) + ((bits[fs] >> np.uint32(16)) & np.uint32(1))
        ) >> np.uint32(16)
    shift = (ss % stem) * stem
    if stem == 4:
        cells.view(np.uint64)[ss // 4, :, ss % 4] = short.view(np.uint64)
    else:
        for part in range(stem):
            cells[ss // stem, :, shift + part] = short[part::stem]
