"""All cells of a network on a CPU, from raw panels to logits: channels last, few panels at a time."""

import copy
from typing import Any, cast

import numba
import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.host.significance import normalise_cells
from peaknet_pipeline.learn.model import PeakNet
from peaknet_pipeline.learn.networks.edge import EdgeNet
from peaknet_pipeline.learn.networks.local import LocalNet
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray

CELL_FAMILIES = ("edge", "local")
"""Families whose first step is space to depth."""

GROUP_PIXELS = 1 << 20
"""Small panels go through the network together: each call costs as much as a tenth of a megapixel."""


class DenseOnCpu:
    """A network of cells prepared for a CPU: ``model(normalise(images, good))`` to the precision of ``dtype``.

    Parameters
    ----------
    model : PeakNet
        Of the edge or the local family; it is copied, not changed.
    normalisation : NormaliseParameters, optional
        As stored with the weights.
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
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        if model.config.family not in CELL_FAMILIES:
            raise ModelError(
                "not a network of cells",
                expected=f"family {' or '.join(CELL_FAMILIES)}",
                found=model.config.family,
            )
        self.config, self.dtype = model.config, dtype
        self.normalisation = normalisation or NormaliseParameters()
        network = copy.deepcopy(model.network).eval().requires_grad_(False)
        network = network.to(device="cpu", dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = cast("EdgeNet | LocalNet", network)

    def logits(self, images: FrameArray, good: BoolArray) -> Float32Array:
        """Return the logits of "peak" of raw panels, all (n, ss, fs); bad pixels get −100."""
        out = np.empty(images.shape, dtype=np.float32)
        step = max(1, GROUP_PIXELS // max(images[:1].size, 1))
        word, shift = (torch.uint16, 16) if self.dtype == torch.bfloat16 else (torch.uint32, 0)
        for first in range(0, len(images), step):
            cells = self.cells(images[first : first + step], good[first : first + step])
            bits = cells.permute(0, 2, 3, 1).contiguous().view(word).numpy()
            for panel in range(len(bits)):
                _spread(
                    bits[panel], np.uint32(shift), good[first + panel], self.config.stem, out[first + panel]
                )
        return out

    def cells(self, images: FrameArray, good: BoolArray) -> Tensor:
        """Return outputs in space-to-depth order: (n, n_outputs · stem², ss / stem, fs / stem)."""
        with torch.inference_mode():
            cells = normalise_cells(
                images,
                good,
                stem=self.config.stem,
                params=self.normalisation,
                pad_to=self.config.stride,
                dtype=self.dtype,
            )
            return self.network.forward_cells(cells)


@numba.njit(nogil=True, cache=True)
def _spread(bits: Any, left: Any, good: Any, stem: int, out: Any) -> None:
    """Undo space to depth: bits (ss / stem, fs / stem, stem² …), shifted ``left``, to float32 (ss, fs)."""
    height, width = out.shape
    line = np.empty(bits.shape[1] * stem, dtype=np.uint32)
    values = line.view(np.float32)
    for ss in range(height):
        shift = (ss % stem) * stem
        for part in range(stem):
            line[part::stem] = bits[ss // stem, :, shift + part]
        for fs in range(width):
            line[fs] <<= left
        for fs in range(width):
            out[ss, fs] = values[fs] if good[ss, fs] else np.float32(-100.0)
