"""The same significance as ``normalise``, for the edge family on a CPU.

One pass over the frame for the statistics, and one that writes space-to-depth cells in the layout and
precision that the network's first convolution wants.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.normalise import (
    CellMoments,
    NormaliseParameters,
    background_from_cells,
    ring_blocks,
)
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray

LARGEST = np.finfo(np.float32).max
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
    if images.ndim != 3 or images.shape != good.shape:
        raise ModelError(
            "image and mask do not fit",
            expected="both (n, ss, fs)",
            found=f"{images.shape} and {good.shape}",
        )
    if images.dtype.name not in _NATIVE or not images.dtype.isnative:
        images = images.astype(np.float32)
    images, good = np.ascontiguousarray(images), np.ascontiguousarray(good)
    mean, noise = _estimate(images, good, params)
    step = pad_to or stem
    height, width = (-(-side // step) * step for side in images.shape[1:])
    shape = (len(images), height // stem, width // stem, stem * stem)
    cells = np.zeros(shape, dtype=np.uint16 if dtype == torch.bfloat16 else np.uint32)
    side, bend = params.cell * params.block_cells, np.float32(1 / params.compression)
    for panel in range(len(images)):
        _write_cells(images[panel], good[panel], mean[panel], noise[panel], side, bend, stem, cells[panel])
    return torch.from_numpy(cells).view(dtype).permute(0, 3, 1, 2)


def _estimate(
    images: FrameArray, good: BoolArray, params: NormaliseParameters
) -> tuple[Float32Array, Float32Array]:
    """Return block grids of background and noise with a ring of extrapolated blocks around them."""
    side = params.cell * params.block_cells
    grid = [-(-length // side) * params.block_cells for length in images.shape[1:]]
    moments = np.zeros((4, len(images), *grid), dtype=np.float32)
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
def _cell_moments(image, good, cell, mean, variance, excess, count):  # type: ignore[no-untyped-def]
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
            excess[row, column] = above[left:right].sum() / max(weight[left:right].sum(), np.float32(1))


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _write_cells(image, good, mean, noise, side, bend, stem, cells):  # type: ignore[no-untyped-def]
    """Write d / (noise + |d| bend), d = image - mean, as bits of the cells' width in space-to-depth order."""
    height, width = image.shape
    line = np.zeros(cells.shape[1] * stem, dtype=np.float32)
    bits = line.view(np.uint32)
    short = np.zeros(len(line), dtype=np.uint16)
    for ss in range(height):
        above = (ss + side // 2) // side
        down = np.float32((ss - (above * side - side / 2) + 0.5) / side)
        for block in range(mean.shape[1] - 1):
            start = block * side - side // 2
            left = mean[above, block] + down * (mean[above + 1, block] - mean[above, block])
            right = mean[above, block + 1] + down * (mean[above + 1, block + 1] - mean[above, block + 1])
            wide = noise[above, block] + down * (noise[above + 1, block] - noise[above, block])
            wider = noise[above, block + 1] + down * (noise[above + 1, block + 1] - noise[above, block + 1])
            slope, widening = (right - left) / np.float32(side), (wider - wide) / np.float32(side)
            for fs in range(max(0, start), min(width, start + side)):
                along = np.float32(fs - start) + np.float32(0.5)
                value = np.float32(image[ss, fs])
                apart = value - (left + along * slope)
                bent = apart / (wide + along * widening + abs(apart) * bend)
                line[fs] = bent if good[ss, fs] & (abs(value) <= LARGEST) else np.float32(0)
        if cells.itemsize == 4:
            _store_single(bits, ss, stem, cells)
        else:
            _store_half(bits, short, ss, stem, cells)


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
