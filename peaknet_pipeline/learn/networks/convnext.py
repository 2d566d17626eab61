"""The ConvNeXt V2 encoder (Woo et al. 2023, "ConvNeXt V2", section 3, appendix A): a map per stage."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from peaknet_pipeline.learn.config import ModelConfig


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over each position's channels, (n, c, h, w) in and out; none over space."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position's channels."""
        normed: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Channels compete by their L2 norm over the valid positions of the map; the input is (n, h, w, c)."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Scale by each channel's share of the response; ``valid`` (n, h, w, 1) is 0 at padding."""
        energy = x.float().square() if valid is None else x.float().square() * valid
        response = energy.sum(dim=(1, 2), keepdim=True).add(1e-12).sqrt()
        share = (response / (response.mean(dim=-1, keepdim=True) + 1e-6)).to(x.dtype)
        return torch.addcmul(self.bias, x * share, self.weight) + x


class Block(nn.Module):
    """7x7 depthwise convolution, norm, expansion by four with GELU and response normalisation; residual."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(n_channels, n_channels, 7, padding=3, groups=n_channels)
        self.norm = nn.LayerNorm(n_channels, eps=1e-6)
        self.expand = nn.Linear(n_channels, 4 * n_channels)
        self.response = GlobalResponseNorm(4 * n_channels)
        self.project = nn.Linear(4 * n_channels, n_channels)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Map (n, c, h, w) to the same shape."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.response(functional.gelu(self.expand(y)), valid)
        change: Tensor = self.project(y)
        return x + change.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one resolution, one after the other."""

    def __init__(self, n_channels: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(n_channels) for _ in range(depth))

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Map (n, c, h, w) to the same shape."""
        for block in self.blocks:
            x = block(x, valid)
        return x


class ConvNextEncoder(nn.Module):
    """Stem of ``stem`` pixels, then stages that halve the map; returns every stage's map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims = config.dims
        self.stem = nn.Sequential(
            nn.Conv2d(1, dims[0], config.stem, stride=config.stem), ChannelNorm(dims[0], eps=1e-6)
        )
        self.downsamples = nn.ModuleList(
            nn.Sequential(ChannelNorm(fine, eps=1e-6), nn.Conv2d(fine, coarse, 2, stride=2))
            for fine, coarse in pairwise(dims)
        )
        self.stages = nn.ModuleList(Stage(dim, depth) for depth, dim in zip(config.depths, dims, strict=True))
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.stem_pixels = config.stem

    def forward(self, x: Tensor, good: Tensor | None) -> list[Tensor]:
        """Encode (n, 1, h, w); ``good`` (n, 1, h, w) is 1 where pixels count, None if all do."""
        valid = None if good is None else functional.max_pool2d(good, self.stem_pixels)
        maps = []
        for level, stage in enumerate(self.stages):
            if level:
                x = self.downsamples[level - 1](x)
                valid = None if valid is None else functional.max_pool2d(valid, 2)
            else:
                x = self.stem(x)
            channels_last = None if valid is None else valid.permute(0, 2, 3, 1)
            x = stage(x, channels_last)
            maps.append(x)
        maps[-1] = self.norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return maps
