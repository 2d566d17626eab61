"""What inference needs of a trained network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from peaknet_pipeline.learn.blocks import near_pairs
from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.learn.host.dense import CELL_FAMILIES, DenseOnCpu
from peaknet_pipeline.learn.host.sparse import SparseOnCpu
from peaknet_pipeline.learn.normalise import Background, compressed, estimate_static, normalise, significance
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray

HostLogits = Callable[[FrameArray, BoolArray], Float32Array]
"""Raw panels and their good pixels, (n, ss, fs), to logits, all on the host."""

Normaliser = Callable[[Tensor, Tensor], Tensor]
"""(n, ss, fs) pixels and (n, ss, fs) good pixels to the network's (n, 1, ss, fs) input."""


@dataclass(frozen=True)
class StaticNormaliser:
    """The same without looking at the values on the way, in two steps.

    ``estimate`` gives the background of pixels and good pixels, and (n,) panels that need the other way; ``apply``
    makes the input of pixels, good pixels and background.
    """

    estimate: Callable[[Tensor, Tensor], tuple[Background, Tensor]]
    apply: Callable[[Tensor, Tensor, Background], Tensor]


@dataclass(frozen=True)
class Network:
    """What the engine needs of a trained network: ``model(x, good) -> logits``, its input, its threshold.

    ``static`` is the normalisation as a fixed sequence of steps, where there is one. ``on_host`` makes, where there
    is one, a faster way to the same logits on a CPU, in float32 or bfloat16. ``near`` tells which pixels (n, ss, fs) of
    an input lie near two neighbouring pixels of some height (``min_neighbour``, sigma), where the network is asked
    for nothing else; ``on_host`` is given the same height.
    """

    model: torch.nn.Module
    normalise: Normaliser
    threshold: float
    name: str = ""
    static: StaticNormaliser | None = None
    on_host: Callable[[torch.dtype, float], HostLogits] | None = None
    near: Callable[[Tensor, float], Tensor] | None = None

    @classmethod
    def from_checkpoint(cls, loaded: LoadedModel, *, threshold: float | None = None) -> Self:
        """Take a checkpoint; ``threshold`` overrides the card's."""
        parameters, config = loaded.normalisation, loaded.model.config

        def on_host(dtype: torch.dtype, min_neighbour: float) -> HostLogits:
            if config.family == "local" and min_neighbour > 0:
                return SparseOnCpu(loaded.model, parameters, pair=min_neighbour, dtype=dtype).logits
            return DenseOnCpu(loaded.model, parameters, dtype=dtype).logits

        def near(x: Tensor, min_neighbour: float) -> Tensor:
            return near_pairs(x[:, 0], compressed(min_neighbour, parameters), config.stem)

        return cls(
            loaded.model,
            lambda pixels, good: normalise(pixels, good, parameters),
            loaded.card.threshold if threshold is None else threshold,
            loaded.card.name,
            StaticNormaliser(
                lambda pixels, good: estimate_static(pixels, good, parameters),
                lambda pixels, good, background: significance(
                    torch.where(good, pixels, 0.0), good, background, parameters
                ),
            ),
            on_host if config.family in CELL_FAMILIES else None,
            near if config.family == "local" else None,
        )
