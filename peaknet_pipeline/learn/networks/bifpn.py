"""The BiFPN neck (Tan et al. 2020, "EfficientDet", section 3) and heads that give full-resolution logits."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from peaknet_pipeline.learn.config import ModelConfig
from peaknet_pipeline.learn.networks.convnext import ChannelNorm


class Fusion(nn.Module):
    """Weighted mean of equal maps with learned positive weights, then a separable 3x3 convolution."""

    def __init__(self, n_inputs: int, features: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(n_inputs))
        self.depthwise = nn.Conv2d(features, features, 3, padding=1, groups=features, bias=False)
        self.pointwise = nn.Conv2d(features, features, 1)
        self.norm = ChannelNorm(features, eps=1e-6)

    def forward(self, *maps: Tensor) -> Tensor:
        """Fuse maps (n, features, h, w)."""
        weights = functional.softplus(self.weights)
        weights = weights / weights.sum()
        fused = sum((w * m for w, m in zip(weights[1:], maps[1:], strict=True)), weights[0] * maps[0])
        return functional.gelu(self.norm(self.pointwise(self.depthwise(fused))))


class BiFpnBlock(nn.Module):
    """One pass from the coarsest map to the finest and one back; the outermost levels have one node each."""

    def __init__(self, n_levels: int, features: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(Fusion(2, features) for _ in range(n_levels - 1))
        self.up = nn.ModuleList(Fusion(2 if n == n_levels - 1 else 3, features) for n in range(1, n_levels))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Fuse maps, finest first, each half the size of the one before."""
        passed = [maps[-1]]
        for level in range(len(maps) - 2, -1, -1):
            coarse = functional.interpolate(passed[0], scale_factor=2.0, mode="nearest")
            passed.insert(0, self.down[level](maps[level], coarse))
        out = [passed[0]]
        for level in range(1, len(maps)):
            fine = functional.max_pool2d(out[-1], 2)
            inner = (maps[level],) if level == len(maps) - 1 else (maps[level], passed[level])
            out.append(self.up[level - 1](*inner, fine))
        return out


class BiFpnHead(nn.Module):
    """1x1 laterals, BiFPN blocks, a head per level, summed at the finest, shuffled out to full resolution."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        features, width = config.features, config.head_features
        self.laterals = nn.ModuleList(nn.Conv2d(dim, features, 1) for dim in config.dims)
        self.blocks = nn.ModuleList(
            BiFpnBlock(len(config.dims), features) for _ in range(config.n_fusion_blocks)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(features, width, 3, padding=1), ChannelNorm(width, eps=1e-6), nn.GELU())
            for _ in config.dims
        )
        self.classify = nn.Conv2d(width, config.n_outputs * config.stem**2, 1)
        self.shuffle = nn.PixelShuffle(config.stem)

    def forward(self, encoded: list[Tensor]) -> Tensor:
        """Map the encoder's levels to (n, n_outputs, h, w) at full resolution."""
        maps = [lateral(level) for lateral, level in zip(self.laterals, encoded, strict=True)]
        for block in self.blocks:
            maps = block(maps)
        total = self.heads[0](maps[0])
        for head, level in zip(list(self.heads)[1:], maps[1:], strict=True):
            total = total + functional.interpolate(
                head(level), size=total.shape[-2:], mode="bilinear", align_corners=False
            )
        return self.shuffle(self.classify(total))  # type: ignore[no-any-return]
