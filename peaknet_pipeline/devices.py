"""Where torch computes: one declaration of the parameter, one choice of the device."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.params import Parameters, parameter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DeviceParams(Parameters):
    """Where torch computes."""

    device: str = parameter("auto", meaning="torch device; auto takes the first GPU, else the CPU")


def choose_device(name: str) -> "torch.device":
    """Return the named device; ``auto`` is the first GPU, else the CPU.

    Raises
    ------
    ModelError
        There is no such device.

    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError("no such device", found=name, expected="auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("no GPU that torch can use", found=name, remedy="Choose the device cpu or auto.")
    return device


def is_cpu(name: str) -> bool:
    """Say whether the named device is the CPU, without importing torch where the name says so.

    Raises
    ------
    ModelError
        There is no such device.

    """
    return name == "cpu" or choose_device(name).type == "cpu"
