"""What the network learns from: crops with labels, whoever makes them, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.types import LABEL_IGNORE, BoolArray, Float32Array, UInt8Array


class CropLike(Protocol):
    """A labelled piece of a panel, or a whole panel."""

    @property
    def image(self) -> Float32Array:
        """(ss, fs), in the run's own unit, not normalised."""

    @property
    def good(self) -> BoolArray:
        """(ss, fs), True where the pixel is good."""

    @property
    def label(self) -> UInt8Array:
        """(ss, fs): 0 background, 1 peak, 255 ignore."""


class CropSource(Protocol):
    """Crops of one shape, by number."""

    def __len__(self) -> int:
        """Return the number of crops."""

    def __getitem__(self, index: int, /) -> CropLike:
        """Return a crop."""


@dataclass(frozen=True)
class Crop:
    """A labelled piece of a panel: ``image`` in the run's unit, ``good`` and ``label``, each (ss, fs)."""

    image: Float32Array
    good: BoolArray
    label: UInt8Array


@dataclass(frozen=True)
class ValidationPanel:
    """A whole panel with its true peaks.

    ``centres`` (n, 2) holds (ss, fs) of the peaks that a finder should find and ``snr`` (n,) their expected
    signal to noise, NaN if unknown. Peaks found where ``label`` is 255 count neither way.
    """

    image: Float32Array
    good: BoolArray
    label: UInt8Array
    centres: Float32Array
    snr: Float32Array


class CropBatch(NamedTuple):
    """Crops side by side, each (n, ss, fs): ``image`` float32, ``good`` bool, ``label`` uint8."""

    image: Tensor
    good: Tensor
    label: Tensor

    def to(self, device: torch.device) -> "CropBatch":
        """Return the batch on a device."""
        return CropBatch(self.image.to(device), self.good.to(device), self.label.to(device))


def collate_crops(crops: Sequence[CropLike]) -> CropBatch:
    """Stack crops of one shape; bad pixels become "ignore".

    Raises
    ------
    LabelError
        No crops, or of different shapes.

    """
    shapes = {np.shape(part) for crop in crops for part in (crop.image, crop.good, crop.label)}
    if len(shapes) != 1:
        raise LabelError("crops do not stack", expected="one common shape (ss, fs)", found=sorted(shapes))
    image = torch.from_numpy(np.stack([np.asarray(c.image, dtype=np.float32) for c in crops]))
    good = torch.from_numpy(np.stack([np.asarray(c.good, dtype=np.bool_) for c in crops]))
    good &= torch.isfinite(image)
    label = torch.from_numpy(np.stack([np.asarray(c.label, dtype=np.uint8) for c in crops]))
    return CropBatch(torch.where(good, image, 0.0), good, torch.where(good, label, LABEL_IGNORE))


def panel_from_crop(crop: CropLike) -> ValidationPanel:
    """Make a validation panel whose true peaks are the label map's 8-connected components, SNR unknown."""
    from scipy import ndimage

    components, n = ndimage.label(crop.label == 1, structure=np.ones((3, 3)))
    centres = np.array(ndimage.center_of_mass(crop.label == 1, components, range(1, n + 1)), dtype=np.float32)
    return ValidationPanel(
        image=crop.image,
        good=crop.good,
        label=crop.label,
        centres=centres.reshape(-1, 2),
        snr=np.full(n, np.nan, dtype=np.float32),
    )
