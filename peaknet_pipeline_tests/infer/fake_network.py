"""A network whose decision is known."""

import torch
from torch import Tensor

from peaknet_pipeline.infer.network import Network


class ThresholdModel(torch.nn.Module):
    """The logit is (pixel − level) / scale: a network whose decision is known."""

    def __init__(self, level: float = 30.0, scale: float = 10.0) -> None:
        super().__init__()
        self.level, self.scale = level, scale

    def forward(self, x: Tensor, good: Tensor | None = None) -> Tensor:
        return (x - self.level) / self.scale


def threshold_network(level: float = 30.0, scale: float = 10.0, threshold: float = 0.5) -> Network:
    def raw(pixels: Tensor, good: Tensor) -> Tensor:
        return torch.where(good, pixels, 0.0).unsqueeze(1)

    return Network(ThresholdModel(level, scale), raw, threshold, "threshold")
