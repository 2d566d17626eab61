"""Which kernels run peakfinder8 on a device: Triton's where they can, else plain torch."""

from importlib.util import find_spec

import torch

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.peaks.peakfinder8_device import DevicePeakfinder8
from peaknet_pipeline.types import BoolArray, Float32Array

KERNELS = ("auto", "triton", "torch")


def device_peakfinder8(
    radius: Float32Array,
    bad_pixels: BoolArray,
    params: Peakfinder8Params,
    *,
    device: str | torch.device = "cuda",
    usable: UsableValues = ALL_VALUES,
    kernels: str = "auto",
) -> DevicePeakfinder8:
    """Return peakfinder8 prepared on a device, with Triton's kernels where they can run, else with plain torch.

    Parameters
    ----------
    radius, bad_pixels, params, usable
        As for `Peakfinder8`.
    device : str or torch.device
    kernels : str
        ``triton``, ``torch``, or ``auto``: Triton on a CUDA device where it is installed.

    Raises
    ------
    ParameterError
        Unknown kernels, or Triton is asked for and not installed.

    """
    if kernels not in KERNELS:
        raise ParameterError("unknown kernels", expected=f"one of {KERNELS}", found=kernels)
    installed = find_spec("triton") is not None
    if kernels == "triton" and not installed:
        raise ParameterError("triton is not installed", remedy="Install it, or take kernels='torch'.")
    if kernels == "triton" or (kernels == "auto" and installed and torch.device(device).type == "cuda"):
        from peaknet_pipeline.peaks.peakfinder8_triton import TritonPeakfinder8

        return TritonPeakfinder8(radius, bad_pixels, params, device=device, usable=usable)
    from peaknet_pipeline.peaks.peakfinder8_torch import TorchPeakfinder8

    return TorchPeakfinder8(radius, bad_pixels, params, device=device, usable=usable)
