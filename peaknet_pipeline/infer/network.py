"""What inference needs of a trained network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.learn.edge_cpu import CELL_FAMILIES, EdgeOnCpu
from peaknet_pipeline.learn.local_cpu import LocalOnCpu
from peaknet_pipeline.learn.normalise import Background, estimate_static, normalise, significance
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray

HostLogits = Callable[[FrameArray, BoolArray], Float32Array]
"""Raw panels and their good pixels, (n, ss, fs), to logits, all on the host."""

Normaliser = Callable[[Tensor, Tensor], Tensor]
"""(n, ss, fs) pixels and (n, ss, fs) good pixels to the network's (n, 1, ss, fs) input."""


SCREEN_SHARE = 0.9
"""Of ``min_neighbour``, the height of pairs near which a local network is computed: decoding measures the noise around
each peak, normalisation over blocks, and they differ by some percent."""


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
    is one, a faster way to the same logits on a CPU, in float32 or bfloat16, of an engine that drops peaks without a
    pair of pixels of some height (``min_neighbour``, sigma): what no such pair is near may be −100.
    """

    model: torch.nn.Module
    normalise: Normaliser
    threshold: float
    name: str = ""
    static: StaticNormaliser | None = None
    on_host: Callable[[torch.dtype, float], HostLogits] | None = None

    @classmethod
    def from_checkpoint(cls, loaded: LoadedModel, *, threshold: float | None = None) -> Self:
        """Take a checkpoint; ``threshold`` overrides the card's."""
        parameters = loaded.normalisation

        def on_host(dtype: torch.dtype, min_neighbour: float) -> HostLogits:
            if loaded.model.config.family == "local" and min_neighbour > 0:
                pair = SCREEN_SHARE * min_neighbour
                return LocalOnCpu(loaded.model, parameters, pair=pair, dtype=dtype).logits
            return EdgeOnCpu(loaded.model, parameters, dtype=dtype).logits

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
            on_host if loaded.model.config.family in CELL_FAMILIES else None,
        )
