"""Distillation: a small network learns to give the logits of a large one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from peaknet_pipeline.learn.crops import CropBatch, CropSource, ValidationPanel
from peaknet_pipeline.learn.losses import distillation_loss
from peaknet_pipeline.learn.model import PeakNet
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.learn.recipe import TrainParameters
from peaknet_pipeline.learn.train import Objective, Progress, TrainResult, train_model
from peaknet_pipeline.learn.transforms import TransformParameters
from peaknet_pipeline.learn.validate import ValidationParameters
from peaknet_pipeline.params import Parameters, parameter


@dataclass(frozen=True)
class DistillParameters(Parameters):
    """Weights of the parts of the distillation loss."""

    mse_weight: float = parameter(0.4, meaning="weight of the squared difference of the logits", ge=0)
    kl_weight: float = parameter(0.4, meaning="weight of T² times the divergence at temperature T", ge=0)
    focal_weight: float = parameter(0.2, meaning="weight of the focal loss on the teacher's class", ge=0)
    temperature: float = parameter(2.0, meaning="temperature T", gt=0)
    logit_limit: float = parameter(
        8.0, meaning="size at which logits are cut off before they are squared", gt=0
    )


def distill_student(
    student: PeakNet,
    teacher: PeakNet,
    source: CropSource,
    *,
    params: TrainParameters | None = None,
    distill: DistillParameters | None = None,
    validation: Sequence[ValidationPanel] = (),
    transforms: TransformParameters | None = None,
    normalisation: NormaliseParameters | None = None,
    validation_params: ValidationParameters | None = None,
    device: torch.device | str = "cpu",
    state_folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a student on its teacher's logits; arguments as for :func:`train.train_model`.

    The teacher sees the same augmented crops as the student, with the same normalisation. With
    ``params.repeat_after`` its logits are computed once per draw and kept (on-line otherwise).
    """
    params = params or TrainParameters()
    return train_model(
        student,
        source,
        params=params,
        validation=validation,
        objective=teacher_objective(teacher.to(device), params, distill or DistillParameters()),
        margin=teacher.config.reach if params.blocks_per_crop else None,
        transforms=transforms,
        normalisation=normalisation,
        validation_params=validation_params,
        device=device,
        state_folder=state_folder,
        progress=progress,
    )


def teacher_objective(teacher: PeakNet, params: TrainParameters, distill: DistillParameters) -> Objective:
    """Return the distillation loss against a fixed teacher, its logits kept per draw if draws repeat."""
    teacher = teacher.eval().requires_grad_(False)
    kept: dict[int, Tensor] = {}

    def logits_of(batch: CropBatch, significance: Tensor, draw: int) -> Tensor:
        if draw in kept:
            return kept[draw]
        with torch.no_grad():
            margin = (significance.shape[-1] - batch.good.shape[-1]) // 2
            logits: Tensor = teacher(significance, None if margin else batch.good[:, None], margin=margin)
        if params.repeat_after is not None:
            kept[draw] = logits.to(torch.bfloat16)
        return logits

    def loss(logits: Tensor, batch: CropBatch, significance: Tensor, draw: int) -> Tensor:
        return distillation_loss(
            logits, logits_of(batch, significance, draw), batch.good, **distill.to_dict()
        )

    return loss
