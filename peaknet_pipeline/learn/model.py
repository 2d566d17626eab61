"""One network for both families: any panel shape in, full-resolution logits out."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.config import ModelConfig
from peaknet_pipeline.learn.networks.bifpn import BiFpnHead
from peaknet_pipeline.learn.networks.convnext import ConvNextEncoder
from peaknet_pipeline.learn.networks.edge import EdgeNet
from peaknet_pipeline.learn.networks.local import LocalNet

PRIOR = 0.01
"""Share of peak pixels that an untrained network expects (Lin et al. 2017, "Focal loss", section 3.3)."""


class ConvNextBiFpn(nn.Module):
    """The published layout: encoder, neck and head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = ConvNextEncoder(config)
        self.head = BiFpnHead(config)

    def forward(self, x: Tensor, good: Tensor | None = None) -> Tensor:
        """Map (n, 1, h, w), h and w multiples of the stride, to (n, n_outputs, h, w)."""
        return self.head(self.encoder(x, good))  # type: ignore[no-any-return]


class PeakNet(nn.Module):
    """A network with its configuration; pads to its stride by itself and crops again.

    The output's channel 0 is the logit of "peak" (the two-class softmax of (0, logit) is its sigmoid); with
    ``config.offsets``, channels 1 and 2 are the offsets (ss, fs) in pixels from each pixel to its peak's
    centre.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        families = {"edge": EdgeNet, "local": LocalNet}
        self.network: nn.Module = families.get(config.family, ConvNextBiFpn)(config)
        self._expect_few_peaks()

    def forward(self, x: Tensor, good: Tensor | None = None, *, margin: int = 0) -> Tensor:
        """Segment normalised panels.

        Parameters
        ----------
        x : Tensor
            (n, 1, ss, fs), from :func:`normalise.normalise`: significance, 0 at bad pixels.
        good : Tensor, optional
            (n, 1, ss, fs), True or 1 where a pixel counts; all if None. Bad pixels and padding stay out of
            the response normalisation of the ConvNeXt family; the others have no such statistics.
        margin : int
            Width of a frame around each panel that is context only, pixels: a ``local`` network's reach or more.

        Returns
        -------
        Tensor
            (n, n_outputs, ss, fs), less the margin on each side.

        Raises
        ------
        ModelError
            Not one channel, or no pixels; a margin that is too narrow, or for a network of another family.

        """
        if x.ndim != 4 or x.shape[1] != 1 or 0 in x.shape[-2:]:
            raise ModelError("wrong input shape", expected="(n, 1, ss, fs)", found=tuple(x.shape))
        if margin:
            return self._forward_inside(x, margin)
        height, width = x.shape[-2:]
        pad_ss, pad_fs = (-height) % self.config.stride, (-width) % self.config.stride
        if pad_ss or pad_fs:
            inside = torch.ones_like(x) if good is None else good.to(x.dtype)
            x = functional.pad(x, (0, pad_fs, 0, pad_ss))
            good = functional.pad(inside, (0, pad_fs, 0, pad_ss))
        elif good is not None:
            good = good.to(x.dtype)
        return self.network(x, good)[..., :height, :width]  # type: ignore[no-any-return]

    def _forward_inside(self, x: Tensor, margin: int) -> Tensor:
        surplus = margin - self.config.reach
        if surplus < 0:
            raise ModelError("the margin is too narrow", expected=f"{self.config.reach} px", found=margin)
        network = cast(LocalNet, self.network)
        x = x[..., surplus : x.shape[-2] - surplus, surplus : x.shape[-1] - surplus]
        return network.shuffle(network.forward_inside(network.unshuffle(x)))  # type: ignore[no-any-return]

    def _expect_few_peaks(self) -> None:
        head = "head." if self.config.family == "convnextv2-bifpn" else ""
        bias = self.get_parameter(f"network.{head}classify.bias")
        with torch.no_grad():
            bias.zero_()
            bias[: self.config.stem**2] = -math.log((1 - PRIOR) / PRIOR)


def build_model(config: ModelConfig, *, seed: int = 0) -> PeakNet:
    """Build an untrained network whose initial weights follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PeakNet(config)


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Count parameters without allocating them: ``encoder`` (without a classifier), ``total``."""
    with torch.device("meta"):
        model = PeakNet(config)
    total = sum(p.numel() for p in model.parameters())
    encoder = getattr(model.network, "encoder", model.network)
    return {"encoder": sum(p.numel() for p in encoder.parameters()), "total": total}
