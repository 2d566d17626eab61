"""The edge family: space-to-depth, plain 3x3 convolutions, pixel shuffle; no layer at full resolution."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from peaknet_pipeline.learn.config import ModelConfig


class EdgeStage(nn.Module):
    """An entry convolution (halving the map unless first), then ``depth`` more of the same width."""

    def __init__(self, n_inputs: int, n_channels: int, depth: int, *, stride: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(n_inputs, n_channels, 3, stride=stride, padding=1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(n_channels, n_channels, 3, padding=1) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with ReLU after each layer."""
        x = functional.relu_(self.entry(x))
        for convolution in self.convolutions:
            x = functional.relu_(convolution(x))
        return x


class EdgeNet(nn.Module):
    """Stages from fine to coarse; coarser ones are projected and added back before the shuffled output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims = config.dims
        inputs = (config.stem**2, *dims[:-1])
        self.unshuffle = nn.PixelUnshuffle(config.stem)
        self.stages = nn.ModuleList(
            EdgeStage(n_in, dim, depth, stride=1 if level == 0 else 2)
            for level, (n_in, dim, depth) in enumerate(zip(inputs, dims, config.depths, strict=True))
        )
        self.projections = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(dims))
        self.classify = nn.Conv2d(dims[0], config.n_outputs * config.stem**2, 1)
        self.shuffle = nn.PixelShuffle(config.stem)

    def forward(self, x: Tensor, good: Tensor | None = None) -> Tensor:
        """Map (n, 1, h, w), multiples of the stride, to (n, n_outputs, h, w); ``good`` isn't needed."""
        return self.shuffle(self.forward_cells(self.unshuffle(x)))  # type: ignore[no-any-return]

    def forward_cells(self, cells: Tensor) -> Tensor:
        """Map space-to-depth cells (n, stem², h / stem, w / stem) to output cells of the same layout."""
        maps = []
        for stage in self.stages:
            cells = stage(cells)
            maps.append(cells)
        for level in range(len(maps) - 2, -1, -1):
            coarse = self.projections[level](maps[level + 1])
            maps[level] = maps[level] + functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return self.classify(maps[0])  # type: ignore[no-any-return]
