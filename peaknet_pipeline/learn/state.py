"""What changes during training, and the safetensors file from which it goes on to the same loss."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.model import PeakNet
from peaknet_pipeline.learn.recipe import TrainParameters
from peaknet_pipeline.learn.validate import PeakScores

STATE_FILE = "training_state.safetensors"


@dataclass
class TrainingState:
    """Everything that changes during training; written by :func:`write_state`."""

    model: PeakNet
    averaged: PeakNet
    best: PeakNet
    optimizer: torch.optim.AdamW
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_scores: PeakScores | None = None
    misses: int = 0


def start_training(model: PeakNet, params: TrainParameters) -> TrainingState:
    """Set up optimiser and averages for a network; matrices and kernels decay, biases and scales don't."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": params.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=params.learning_rate,
        betas=(params.beta1, params.beta2),
    )
    averaged = copy.deepcopy(model).requires_grad_(False)
    return TrainingState(model, averaged, copy.deepcopy(averaged), optimizer)


def write_state(folder: Path, state: TrainingState, params: TrainParameters) -> Path:
    """Write weights, averages, moments and history as one safetensors file, atomically; return its path."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in _tensors(state).items()}
    about = {
        "config": state.model.config.to_dict(),
        "params": params.to_dict(),
        "step": state.step,
        "misses": state.misses,
        "history": state.history,
        "best_scores": state.best_scores.to_dict() if state.best_scores else None,
    }
    path = folder / STATE_FILE
    with replace_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={"peaknet_training": json.dumps(about)})
    return path


def read_state(folder: Path, state: TrainingState, params: TrainParameters) -> bool:
    """Load a folder's state into a freshly started one; False if the folder holds none.

    Raises
    ------
    ModelError
        The file is damaged, or belongs to another network or other training parameters.

    """
    path = folder / STATE_FILE
    if not path.is_file():
        return False
    about, tensors = _read_file(path)
    for what, own in (("config", state.model.config), ("params", params)):
        theirs = json.loads(json.dumps(own.to_dict()))
        if about[what] != theirs:
            raise ModelError(
                f"the training state has another {what}",
                where=path,
                expected=theirs,
                found=about[what],
                remedy="Continue with the same settings, or train in an empty folder.",
            )
    _fill_moments(state)
    for name, value in _tensors(state).items():
        with torch.no_grad():
            value.copy_(tensors[name])
    state.step, state.misses, state.history = about["step"], about["misses"], about["history"]
    state.best_scores = PeakScores.from_dict(about["best_scores"]) if about["best_scores"] else None
    return True


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["peaknet_training"])
            return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"not a readable training state ({error})",
            where=path,
            remedy="Delete it to train from the start.",
        ) from error


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    """Name every tensor of the state."""
    named: dict[str, Tensor] = {}
    for role, model in (("model", state.model), ("averaged", state.averaged), ("best", state.best)):
        named |= {f"{role}.{name}": value.data for name, value in model.named_parameters()}
    for name, value in state.model.named_parameters():
        for moment, tensor in state.optimizer.state.get(value, {}).items():
            named[f"{moment}.{name}"] = tensor
    return named


def _fill_moments(state: TrainingState) -> None:
    """Give a fresh optimiser the tensors that it would only make at its first step."""
    for value in state.model.parameters():
        state.optimizer.state[value] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(value),
            "exp_avg_sq": torch.zeros_like(value),
        }
