"""The local network on a CPU, computed only at the cells where something stands out.

Inference keeps a peak only if its highest pixel and one next to it stand out of the noise (``min_neighbour``). Cells
away from any such pair can't matter, and they are nearly all. The others, and in each layer their neighbours, are
gathered into rows and multiplied by the layer's kernel as one matrix.
"""

from typing import cast

import numba
import numpy as np
import torch
from torch import Tensor, nn

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.host.dense import DenseOnCpu
from peaknet_pipeline.learn.host.significance import estimate_blocks, find_high, native_images, write_cells_at
from peaknet_pipeline.learn.model import PeakNet
from peaknet_pipeline.learn.networks.local import LocalNet
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray, IntArray

GROUP_PIXELS = 1 << 22
"""Panels are taken together up to this many pixels: a call costs as much whatever it computes."""

ROWS = 2048
"""Rows gathered at a time, so that they stay in a core's cache."""

DENSE_SHARE = 0.3
"""Share of a group's cells from which all of them are computed: gathering then costs more than it saves."""


class SparseOnCpu:
    """A local network prepared for a CPU; elsewhere than near pairs of high pixels its logits are −100.

    Parameters
    ----------
    model : PeakNet
        Of the local family; it is copied, not changed.
    normalisation : NormaliseParameters, optional
        As stored with the weights.
    pair : float
        Significance that two neighbouring pixels must reach.
    dtype : torch.dtype
        bfloat16, for CPUs that compute in it, or float32.

    Raises
    ------
    ModelError
        A network of another family.

    """

    def __init__(
        self,
        model: PeakNet,
        normalisation: NormaliseParameters | None = None,
        *,
        pair: float,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        if model.config.family != "local":
            raise ModelError("not a local network", expected="family local", found=model.config.family)
        self.dense = DenseOnCpu(model, normalisation, dtype=dtype)
        self.normalisation, self.stem, self.pair, self.dtype = (
            self.dense.normalisation,
            model.config.stem,
            pair,
            dtype,
        )
        network = cast(LocalNet, self.dense.network)
        self.reach = network.reach
        layers = cast("list[nn.Conv2d]", list(network.layers))
        self.convolutions = [_as_matrix(layer) for layer in layers[: self.reach]]
        self.pointwise = [_as_matrix(layer) for layer in layers[self.reach :]]
        kernel, bias = _as_matrix(network.classify)
        self.classify = kernel[:, : self.stem**2].contiguous(), bias[: self.stem**2].contiguous()

    def logits(self, images: FrameArray, good: BoolArray) -> Float32Array:
        """Return the logits of "peak" of raw panels, all (n, ss, fs); −100 at bad pixels and where nothing stands out."""
        images, good = native_images(images, good)
        out = np.full(images.shape, -100.0, dtype=np.float32)
        step = max(1, GROUP_PIXELS // max(images[:1].size, 1))
        for first in range(0, len(images), step):
            group = slice(first, first + step)
            self._fill(images[group], good[group], out[group])
        return out

    def count_flop(self, images: FrameArray, good: BoolArray) -> float:
        """Return the operations of all matrix products that panels (n, ss, fs), taken as one group, need."""
        images, good = native_images(images, good)
        mean, noise = estimate_blocks(images, good, self.normalisation)
        needed = self._needed(self._wanted(images, good, mean, noise))
        layers = list(zip(needed[-2::-1], self.convolutions, strict=True))
        layers += [(needed[0], layer) for layer in (*self.pointwise, self.classify)]
        return float(sum(2 * int(cells.sum()) * weight.numel() for cells, (weight, _) in layers))

    def _fill(self, images: FrameArray, good: BoolArray, out: Float32Array) -> None:
        mean, noise = estimate_blocks(images, good, self.normalisation)
        wanted = self._wanted(images, good, mean, noise)
        if wanted.mean() > DENSE_SHARE:
            out[:] = np.where(
                self._near(wanted, images.shape), self.dense.logits(images, good), np.float32(-100)
            )
            return
        needed = self._needed(wanted)
        cells = self._cells(needed[-1])
        values = np.zeros((len(cells), self.stem**2), dtype=np.float32)
        ends = np.searchsorted(cells[:, 0], range(len(images) + 1))
        for panel in range(len(images)):
            rows = slice(ends[panel], ends[panel + 1])
            write_cells_at(
                images[panel],
                good[panel],
                (mean[panel], noise[panel]),
                self.normalisation,
                stem=self.stem,
                cells=cells[rows, 1:],
                values=values[rows],
            )
        features = torch.from_numpy(values).to(self.dtype)
        for sources, targets, (weight, bias) in zip(
            needed[:0:-1], needed[-2::-1], self.convolutions, strict=True
        ):
            features = _convolve(features, sources, targets, weight, bias)
        for weight, bias in self.pointwise:
            features = torch.addmm(bias, features, weight).relu_()
        weight, bias = self.classify
        logits = torch.addmm(bias, features, weight).float().numpy()
        _scatter(logits, self._cells(needed[0]), good, self.stem, out)

    def _near(self, wanted: BoolArray, shape: tuple[int, ...]) -> BoolArray:
        """Return the pixels (n, ss, fs) of the wanted cells, the ring around the panels left out."""
        inside = wanted[:, self.reach :, self.reach :]
        pixels = inside.repeat(self.stem, axis=1).repeat(self.stem, axis=2)
        return np.asarray(pixels[:, : shape[1], : shape[2]])

    def _needed(self, wanted: BoolArray) -> list[BoolArray]:
        """Return the cells whose logits, last features, …, first inputs are needed."""
        needed = [wanted]
        for _ in self.convolutions:
            needed.append(_dilate(needed[-1]))
        return needed

    def _cells(self, needed: BoolArray) -> IntArray:
        """List cells (n, 3): panel, row and column, negative in the ring around the panel."""
        cells: IntArray = np.argwhere(needed).astype(np.int64)
        cells[:, 1:] -= self.reach
        return cells

    def _wanted(
        self, images: FrameArray, good: BoolArray, mean: Float32Array, noise: Float32Array
    ) -> BoolArray:
        """Return which cells, with ``reach`` further ones around each panel, lie at a pair of high pixels."""
        height, width = (-(-side // self.stem) + 2 * self.reach for side in images.shape[1:])
        wanted = np.zeros((len(images), height, width), dtype=np.bool_)
        for panel in range(len(images)):
            blocks = (mean[panel], noise[panel])
            high = find_high(images[panel], good[panel], blocks, self.normalisation, self.pair)
            _mark_pairs(high, self.stem, self.reach, wanted[panel])
        return wanted


def _as_matrix(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return a convolution's kernel as (side² · inputs, outputs), positions in raster order, and its bias."""
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), cast(Tensor, layer.bias)


def _convolve(
    features: Tensor, sources: BoolArray, targets: BoolArray, weight: Tensor, bias: Tensor
) -> Tensor:
    """Convolve at ``targets`` features (n_sources, c) of ``sources``, both in raster order, with ReLU: (n_targets, c')."""
    word = np.uint16 if features.dtype == torch.bfloat16 else np.uint32
    values = features.view(torch.uint16 if word is np.uint16 else torch.uint32).numpy()
    starts = _left_neighbours(sources, targets)
    gathered = torch.empty((min(ROWS, len(starts)), weight.shape[0]), dtype=features.dtype)
    bits = gathered.view(torch.uint16 if word is np.uint16 else torch.uint32).numpy()
    out = torch.empty((len(starts), weight.shape[1]), dtype=features.dtype)
    for first in range(0, len(starts), ROWS):
        part = starts[first : first + ROWS]
        _gather(values, part, bits)
        torch.addmm(bias, gathered[: len(part)], weight, out=out[first : first + len(part)])
    return out.relu_()


@numba.njit(nogil=True, cache=True)
def _left_neighbours(sources, targets):  # type: ignore[no-untyped-def]
    """Return, of each target, the numbers of the sources to its upper left, left and lower left: (n, 3) int64.

    The next two sources in number lie straight above (at, below) it and to its right, since all of them are sources.
    """
    n_panels, height, width = sources.shape
    number = np.empty(sources.shape, dtype=np.int32)
    n_sources, n_targets = 0, 0
    for panel in range(n_panels):
        for row in range(height):
            for column in range(width):
                number[panel, row, column] = n_sources
                n_sources += sources[panel, row, column]
                n_targets += targets[panel, row, column]
    starts = np.empty((n_targets, 3), dtype=np.int64)
    n = 0
    for panel in range(n_panels):
        for row in range(height):
            for column in range(width):
                if targets[panel, row, column]:
                    for k in range(3):
                        starts[n, k] = number[panel, row + k - 1, column - 1]
                    n += 1
    return starts


@numba.njit(nogil=True, cache=True)
def _gather(values, starts, out):  # type: ignore[no-untyped-def]
    n_features = values.shape[1]
    for i in range(len(starts)):
        for k in range(3):
            first = starts[i, k]
            for j in range(3):
                at = (3 * k + j) * n_features
                for feature in range(n_features):
                    out[i, at + feature] = values[first + j, feature]


@numba.njit(nogil=True, cache=True)
def _dilate(cells):  # type: ignore[no-untyped-def]
    """Return the cells (n, rows, columns) with their eight neighbours each."""
    n_panels, height, width = cells.shape
    out = np.zeros_like(cells)
    for panel in range(n_panels):
        for row in range(height):
            for column in range(width):
                if cells[panel, row, column]:
                    out[panel, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    return out


@numba.njit(nogil=True, cache=True)
def _mark_pairs(high, stem, reach, cells):  # type: ignore[no-untyped-def]
    """Mark the cells that hold a pixel of, or next to, two neighbouring ``high`` pixels (ss, fs)."""
    height, width = high.shape
    for ss in range(height):
        for fs in range(width):
            if high[ss, fs] and _has_neighbour(high, ss, fs):
                for row in (max(ss - 1, 0) // stem, min(ss + 1, height - 1) // stem):
                    for column in (max(fs - 1, 0) // stem, min(fs + 1, width - 1) // stem):
                        cells[row + reach, column + reach] = True


@numba.njit(nogil=True, cache=True)
def _has_neighbour(high, ss, fs):  # type: ignore[no-untyped-def]
    n = 0
    for row in range(max(ss - 1, 0), min(ss + 2, high.shape[0])):
        for column in range(max(fs - 1, 0), min(fs + 2, high.shape[1])):
            n += high[row, column]
    return n > 1


@numba.njit(nogil=True, cache=True)
def _scatter(logits, cells, good, stem, out):  # type: ignore[no-untyped-def]
    """Write the logits (n, stem²) of cells (panel, row, column) into ``out`` (n_panels, ss, fs) at good pixels."""
    for i in range(len(cells)):
        panel, top, left = cells[i, 0], cells[i, 1] * stem, cells[i, 2] * stem
        for ss in range(top, min(top + stem, out.shape[1])):
            for fs in range(left, min(left + stem, out.shape[2])):
                if good[panel, ss, fs]:
                    out[panel, ss, fs] = logits[i, (ss - top) * stem + fs - left]
