"""The training loop, for teachers and students alike."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from peaknet_pipeline.errors import LabelError, ModelError
from peaknet_pipeline.learn.blocks import choose_blocks, cut_blocks
from peaknet_pipeline.learn.crops import CropBatch, CropSource, ValidationPanel, collate_crops
from peaknet_pipeline.learn.distributed import mean_over_processes, rank_and_size, shared_from_first
from peaknet_pipeline.learn.losses import (
    centre_offsets,
    dice_loss,
    focal_loss,
    ignore_lone_pixels,
    offset_loss,
)
from peaknet_pipeline.learn.model import PeakNet
from peaknet_pipeline.learn.normalise import NormaliseParameters, compressed, normalise
from peaknet_pipeline.learn.recipe import TrainParameters, learning_rate
from peaknet_pipeline.learn.state import TrainingState, read_state, start_training, write_state
from peaknet_pipeline.learn.transforms import TransformParameters, augment_batch
from peaknet_pipeline.learn.validate import PeakScores, ValidationParameters, validate_model
from peaknet_pipeline.types import IntArray

Objective = Callable[[Tensor, CropBatch, Tensor, int], Tensor]
"""Loss of (logits, augmented batch, its significance, the draw's number).

The batch is whole crops, or blocks of them; the significance of blocks has a margin around them.
"""


@dataclass(frozen=True)
class Progress:
    """Where training is: after ``step`` of ``n_steps`` steps; scores only right after a validation."""

    step: int
    n_steps: int
    loss: float
    scores: PeakScores | None = None


@dataclass(frozen=True)
class TrainResult:
    """The network (averaged weights, of the best validation), its scores and one record per step."""

    model: PeakNet
    scores: PeakScores | None
    history: list[dict[str, Any]]
    step: int

    @property
    def threshold(self) -> float:
        """Decision threshold chosen on validation; 0.5 without any."""
        return self.scores.threshold if self.scores else 0.5


def train_model(
    model: PeakNet,
    source: CropSource,
    *,
    params: TrainParameters | None = None,
    validation: Sequence[ValidationPanel] = (),
    objective: Objective | None = None,
    margin: int | None = None,
    transforms: TransformParameters | None = None,
    normalisation: NormaliseParameters | None = None,
    validation_params: ValidationParameters | None = None,
    device: torch.device | str = "cpu",
    state_folder: Path | None = None,
    stop_after: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a network on labelled crops.

    Parameters
    ----------
    model : PeakNet
        Trained in place on ``device``.
    source : CropSource
        Crops of one shape in raw units.
    params : TrainParameters, optional
        Length, optimiser, loss.
    validation : sequence of ValidationPanel
        Scored every ``validate_every`` steps: chooses the threshold, keeps the best weights, stops early.
    objective : callable, optional
        Loss; focal (and Dice) on the labels by default, distillation for a student.
    margin : int, optional
        Pixels around a block that the objective looks at, if it is more than the network's own reach.
    transforms : TransformParameters, optional
        Augmentation; None: none.
    normalisation, validation_params
        How crops become significance; how validation decodes and matches.
    device : torch.device or str
        Where to train. Inside a process group each process takes its own crops of a step.
    state_folder : Path, optional
        Where the state is kept; training goes on from there if it holds a state of these parameters.
    stop_after : int, optional
        Leave off after this step (with its state saved), as if interrupted.
    progress : callable, optional
        Told after every step.

    Returns
    -------
    TrainResult
        Every random draw follows from ``params.seed`` and the step, so a resumed run repeats the
        uninterrupted one.

    Raises
    ------
    LabelError
        No crops.
    ModelError
        The loss is not finite, or the folder holds a state of other settings.

    """
    params, normalisation = params or TrainParameters(), normalisation or NormaliseParameters()
    if len(source) == 0:
        raise LabelError("no crops to train on", remedy="Label more frames or relax the selection.")
    state = start_training(model.to(device), params)
    if state_folder is not None:
        read_state(state_folder, state, params)
    step_loss = _StepLoss(
        state.model, source, params, objective or label_objective(params), transforms, normalisation, margin
    )
    last = min(params.steps, stop_after or params.steps)
    while state.step < last and state.misses < params.patience:
        loss = _train_step(state, step_loss, params)
        scores = None
        if state.step % params.validate_every == 0 or state.step == params.steps:
            scores = _validate(state, validation, normalisation, validation_params)
            _save(state_folder, state, params)
        if progress is not None:
            progress(Progress(state.step, params.steps, loss, scores))
    if state.step == stop_after:
        _save(state_folder, state, params)
    best = state.best if state.best_scores else state.averaged
    return TrainResult(best.eval(), state.best_scores, state.history, state.step)


def label_objective(params: TrainParameters) -> Objective:
    """Return the loss on labels: focal, plus Dice and offsets if weighted."""

    def loss(logits: Tensor, batch: CropBatch, significance: Tensor, draw: int) -> Tensor:
        focal = focal_loss(
            logits,
            batch.label,
            gamma=params.gamma,
            alpha_peak=params.alpha_peak,
            alpha_background=params.alpha_background,
        )
        if params.dice_weight:
            focal = focal + params.dice_weight * dice_loss(logits, batch.label)
        if params.offset_weight and logits.shape[1] == 3:
            target = centre_offsets(batch.label, _without_margin(significance, batch))
            focal = focal + params.offset_weight * offset_loss(logits, target, batch.label)
        return focal

    return loss


def _without_margin(significance: Tensor, batch: CropBatch) -> Tensor:
    height, width = batch.label.shape[1:]
    top, left = (significance.shape[2] - height) // 2, (significance.shape[3] - width) // 2
    return significance[:, :, top : top + height, left : left + width]


def draw_crops(source: CropSource, draw: int, params: TrainParameters) -> CropBatch:
    """Return this process's crops of a draw: the source in a new seeded order every epoch."""
    rank, size = rank_and_size()
    first = (draw * size + rank) * params.batch_size
    indices = [
        _index_at(position, len(source), params.seed) for position in range(first, first + params.batch_size)
    ]
    return collate_crops([source[index] for index in indices])


def _index_at(position: int, n_crops: int, seed: int) -> int:
    epoch, place = divmod(position, n_crops)
    return int(_order(epoch, n_crops, seed)[place])


@functools.lru_cache(maxsize=2)
def _order(epoch: int, n_crops: int, seed: int) -> IntArray:
    return np.random.default_rng((seed, epoch)).permutation(n_crops)


class _StepLoss:
    """Draws, augments and normalises a batch, and computes its loss."""

    def __init__(
        self,
        model: PeakNet,
        source: CropSource,
        params: TrainParameters,
        objective: Objective,
        transforms: TransformParameters | None,
        normalisation: NormaliseParameters,
        margin: int | None,
    ) -> None:
        self.source, self.params, self.objective = source, params, objective
        self.transforms, self.normalisation = transforms, normalisation
        self.device = next(model.parameters()).device
        self.cell = model.config.stem
        self.margin = max(model.config.reach, margin or 0) if params.blocks_per_crop else 0
        self.network: nn.Module = DistributedDataParallel(model) if rank_and_size()[1] > 1 else model

    def __call__(self, draw: int) -> Tensor:
        batch = draw_crops(self.source, draw, self.params)
        seed = np.random.SeedSequence((self.params.seed, draw, rank_and_size()[0])).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        if self.transforms is not None:
            batch = augment_batch(batch, self.transforms, generator)
        batch = batch.to(self.device)
        significance = normalise(batch.image, batch.good, self.normalisation)
        if self.params.lone_sigma:
            lone = compressed(self.params.lone_sigma, self.normalisation)
            batch = batch._replace(label=ignore_lone_pixels(batch.label, significance[:, 0], lone))
        if self.params.blocks_per_crop:
            batch, significance = self._blocks(batch, significance, generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.params.bf16):
            logits = self.network(
                significance, None if self.margin else batch.good[:, None], margin=self.margin
            )
            return self.objective(logits, batch, significance, draw)

    def _blocks(
        self, batch: CropBatch, significance: Tensor, generator: torch.Generator
    ) -> tuple[CropBatch, Tensor]:
        blocks = choose_blocks(
            significance[:, 0].cpu(),
            level=compressed(self.params.candidate_sigma, self.normalisation),
            per_crop=self.params.blocks_per_crop,
            n_background=self.params.background_blocks,
            cell=self.cell,
            margin=self.margin,
            generator=generator,
        )
        return cut_blocks(batch, significance, blocks, side=2 * self.cell, margin=self.margin)

    def gathering(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Return a context that exchanges gradients between processes only on the last pass of a step."""
        if isinstance(self.network, DistributedDataParallel) and not last:
            return self.network.no_sync()
        return contextlib.nullcontext()


def _train_step(state: TrainingState, step_loss: _StepLoss, params: TrainParameters) -> float:
    rate = learning_rate(state.step, params)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    state.model.train()
    repeated = state.step % params.repeat_after if params.repeat_after else state.step
    total = torch.zeros((), device=step_loss.device)
    for part in range(params.accumulation):
        with step_loss.gathering(part == params.accumulation - 1):
            loss = step_loss(repeated * params.accumulation + part) / params.accumulation
            loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), params.clip_norm)
    mean_loss = float(mean_over_processes(total))
    if not math.isfinite(mean_loss) or not bool(torch.isfinite(norm)):
        raise ModelError(
            "the training loss is not finite", where=f"step {state.step}", remedy="Lower learning_rate."
        )
    state.optimizer.step()
    state.step += 1
    _average_weights(state, params)
    state.history.append(
        {"step": state.step, "loss": mean_loss, "learning_rate": rate, "gradient_norm": float(norm)}
    )
    return mean_loss


def _average_weights(state: TrainingState, params: TrainParameters) -> None:
    decay = min(params.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for average, value in zip(state.averaged.parameters(), state.model.parameters(), strict=True):
            average.lerp_(value, 1 - decay)


def _validate(
    state: TrainingState,
    panels: Sequence[ValidationPanel],
    normalisation: NormaliseParameters,
    params: ValidationParameters | None,
) -> PeakScores | None:
    if not panels:
        return None
    own = validate_model(state.averaged, panels, normalisation, params) if rank_and_size()[0] == 0 else None
    scores = shared_from_first(own)
    if scores is None:
        return None
    state.history[-1]["scores"] = scores.to_dict()
    if state.best_scores is None or scores.f1 > state.best_scores.f1:
        state.best_scores, state.misses = scores, 0
        state.best.load_state_dict(state.averaged.state_dict())
    else:
        state.misses += 1
    return scores


def _save(folder: Path | None, state: TrainingState, params: TrainParameters) -> None:
    if folder is not None and rank_and_size()[0] == 0:
        write_state(folder, state, params)
