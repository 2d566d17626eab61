"""How long, how fast and with which loss a network is trained."""

import math
from dataclasses import dataclass

from peaknet_pipeline.params import Parameters, parameter


@dataclass(frozen=True)
class TrainParameters(Parameters):
    """How a network is trained; the defaults suit a small one on two CPU cores."""

    steps: int = parameter(400, meaning="optimiser steps", ge=1)
    batch_size: int = parameter(16, meaning="crops per process and pass", ge=1)
    accumulation: int = parameter(1, meaning="passes per optimiser step", ge=1)
    learning_rate: float = parameter(3e-3, meaning="highest learning rate", gt=0)
    warmup_steps: int = parameter(20, meaning="steps over which the rate rises linearly", ge=0)
    final_rate: float = parameter(
        0.02, meaning="learning rate at the end, as a share of the highest", ge=0, le=1
    )
    beta1: float = parameter(0.9, meaning="AdamW first-moment decay", ge=0, le=1)
    beta2: float = parameter(0.95, meaning="AdamW second-moment decay", ge=0, le=1)
    weight_decay: float = parameter(0.05, meaning="AdamW weight decay, on matrices and kernels only", ge=0)
    clip_norm: float = parameter(1.0, meaning="largest gradient norm", gt=0)
    bf16: bool = parameter(False, meaning="autocast to bfloat16")
    ema_decay: float = parameter(
        0.98, meaning="decay per step of the averaged weights that are kept", ge=0, le=1
    )
    gamma: float = parameter(2.0, meaning="focal loss: focusing exponent", ge=0)
    alpha_peak: float = parameter(0.75, meaning="focal loss: weight of peak pixels", ge=0, le=1)
    alpha_background: float = parameter(0.25, meaning="focal loss: weight of background pixels", ge=0, le=1)
    dice_weight: float = parameter(0.0, meaning="weight of the Dice loss beside the focal loss", ge=0)
    lone_sigma: float = parameter(
        0.0,
        meaning="a background pixel this high with no neighbour as high is ignored: inference drops it anyway; 0: none is",
        unit="sigma",
        ge=0,
    )
    blocks_per_crop: int = parameter(
        0,
        meaning="candidates of a crop at which the network is computed; 0: everywhere (a local network alone can choose)",
        ge=0,
    )
    background_blocks: int = parameter(4, meaning="further blocks of a crop, anywhere in it", ge=0)
    candidate_sigma: float = parameter(
        2.0, meaning="height of a candidate's highest pixel and of one next to it", unit="sigma", gt=0
    )
    offset_weight: float = parameter(
        0.1, meaning="weight of the offsets' loss, for a network that predicts offsets", ge=0
    )
    validate_every: int = parameter(100, meaning="steps between validations and saved states", ge=1)
    patience: int = parameter(4, meaning="validations without a better F1 after which training stops", ge=1)
    repeat_after: int | None = parameter(
        None,
        meaning="steps after which the same augmented crops come again, so that teacher logits can be kept",
    )
    seed: int = parameter(0, meaning="seed of crop order and augmentation", ge=0)


REFERENCE_TRAINING = TrainParameters(
    steps=10_000,
    batch_size=1,
    accumulation=20,
    learning_rate=3e-4,
    warmup_steps=100,
    bf16=True,
    ema_decay=0.999,
)
"""The published settings (domain facts, section 2), for large networks on GPUs."""


def learning_rate(step: int, params: TrainParameters) -> float:
    """Return the rate of a step, from 0: linear warm-up, then half a cosine down to ``final_rate``."""
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    done = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    share = params.final_rate + (1 - params.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return params.learning_rate * share
