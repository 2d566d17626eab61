"""The local family: space to depth, then convolutions at one resolution; any cell can be computed on its own.

Beyond the panel every input is 0, once and not again in each layer, so that a cell computed alone from its
neighbourhood equals the same cell of a whole panel.
"""

from torch import Tensor, nn
from torch.nn import functional

from peaknet_pipeline.learn.config import ModelConfig


class LocalNet(nn.Module):
    """3x3 convolutions without padding, 1x1 ones, and a pixel shuffle."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [dim for dim, depth in zip(config.dims, config.depths, strict=True) for _ in range(depth)]
        inputs = [config.stem**2, *widths, *config.pointwise]
        kernels = [3] * len(widths) + [1] * len(config.pointwise)
        self.reach = len(widths)
        self.unshuffle = nn.PixelUnshuffle(config.stem)
        self.layers = nn.ModuleList(
            nn.Conv2d(n_in, n_out, kernel)
            for n_in, n_out, kernel in zip(inputs, inputs[1:], kernels, strict=False)
        )
        self.classify = nn.Conv2d(inputs[-1], config.n_outputs * config.stem**2, 1)
        self.shuffle = nn.PixelShuffle(config.stem)

    def forward(self, x: Tensor, good: Tensor | None = None) -> Tensor:
        """Map (n, 1, h, w), multiples of the stem, to (n, n_outputs, h, w); ``good`` isn't needed."""
        return self.shuffle(self.forward_cells(self.unshuffle(x)))  # type: ignore[no-any-return]

    def forward_cells(self, cells: Tensor) -> Tensor:
        """Map space-to-depth cells (n, stem², h / stem, w / stem) to output cells of the same layout."""
        return self.forward_inside(functional.pad(cells, (self.reach,) * 4))

    def forward_inside(self, cells: Tensor) -> Tensor:
        """Map (n, stem², rows, columns) to the cells that have all their neighbourhood: 2 ``reach`` fewer each way."""
        for layer in self.layers:
            cells = functional.relu_(layer(cells))
        return self.classify(cells)  # type: ignore[no-any-return]
