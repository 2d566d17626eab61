"""A trained network as a folder: model.safetensors, config.json, card.json. Never pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from peaknet_pipeline.atomic import replace_atomically, replace_folder_atomically
from peaknet_pipeline.errors import ModelError, ParameterError
from peaknet_pipeline.learn.config import ModelConfig
from peaknet_pipeline.learn.model import PeakNet
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.records import make_record, read_json
from peaknet_pipeline.version import code_version

WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "card.json"
BEFORE_POISSON_NOISE = {"poisson_noise": False}
"""What networks learned with that were written before there was a choice."""

FORMAT = "peaknet-checkpoint-2"
SHIPPED_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ModelCard:
    """Where a network comes from and how good it is."""

    name: str
    step: int = 0
    threshold: float = 0.5
    """Decision threshold, chosen on validation."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Peak-level validation scores (``PeakScores.to_dict``)."""
    training_manifest: str = ""
    """Hash of the training set's manifest."""
    code_version: str = ""
    seed: int = 0
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training parameters."""
    teacher: str = ""
    """Name of the network it was distilled from."""
    made: str = ""
    """When it was trained, UTC, as 2026-01-31T12:00:00Z; empty for the network that comes with the package."""
    weights: str = ""
    """Start of the SHA-256 of the weights file."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Further facts about the training."""


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode with what inference needs beside it."""

    model: PeakNet
    normalisation: NormaliseParameters
    card: ModelCard


def write_checkpoint(
    folder: Path, model: PeakNet, *, card: ModelCard, normalisation: NormaliseParameters | None = None
) -> Path:
    """Write a network's folder atomically, replacing one of the same name; return it."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    config = {
        "format": FORMAT,
        "model": model.config.to_dict(),
        "normalise": (normalisation or NormaliseParameters()).to_dict(),
    }
    with replace_folder_atomically(folder) as temporary:
        save_file(weights, temporary / WEIGHTS_FILE, metadata={"format": FORMAT})
        _write_json(temporary / CONFIG_FILE, config)
        card = replace(card, weights=weights_digest(temporary))
        _write_json(temporary / CARD_FILE, {"code_version": code_version()} | _without_empty(asdict(card)))
        for path in temporary.iterdir():
            path.chmod(0o644)
    return folder


def read_checkpoint(folder: Path, *, device: torch.device | str = "cpu") -> LoadedModel:
    """Read a network's folder.

    Raises
    ------
    ModelError
        Files are missing, damaged or foreign, or the weights belong to another configuration.

    """
    values = _read_config(folder)
    try:
        config = ModelConfig.from_mapping(values["model"])
        normalisation = NormaliseParameters.from_mapping(BEFORE_POISSON_NOISE | values["normalise"])
    except (ParameterError, KeyError, TypeError) as error:
        raise ModelError(f"the configuration cannot be used ({error})", where=folder / CONFIG_FILE) from error
    weights = read_weights(folder / WEIGHTS_FILE)
    with torch.device("meta"):
        model = PeakNet(config)
    _check_weights(weights, model, folder / WEIGHTS_FILE)
    model.load_state_dict(weights, assign=True)
    return LoadedModel(model.to(device).eval(), normalisation, read_card(folder))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a missing, truncated or foreign one is a ModelError."""
    if not path.is_file():
        raise ModelError("no weights", where=path, remedy="Train the network first.")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"not a readable safetensors file ({error})", where=path, remedy="Copy the model folder again."
        ) from error


def weights_digest(folder: Path) -> str:
    """Return the start of the SHA-256 of a network's weights file, as its card records it."""
    with (folder / WEIGHTS_FILE).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def read_card(folder: Path) -> ModelCard:
    """Read the card of a network's folder; ModelError if it is damaged."""
    values = read_json(folder / CARD_FILE, error=ModelError)
    unknown = set(values) - {item.name for item in fields(ModelCard)}
    if unknown or "name" not in values:
        raise ModelError("not a model card", where=folder / CARD_FILE, found=f"fields {sorted(values)}")
    return make_record(ModelCard, values, where=folder / CARD_FILE, error=ModelError)


def write_card(folder: Path, card: ModelCard) -> None:
    """Replace the card of a network's folder, atomically."""
    with replace_atomically(folder / CARD_FILE) as temporary:
        _write_json(temporary, asdict(card))


def shipped_models() -> list[str]:
    """Return the names of the networks inside the package."""
    return sorted(path.parent.name for path in SHIPPED_FOLDER.glob(f"*/{CONFIG_FILE}"))


def load_shipped(name: str | None = None, *, device: torch.device | str = "cpu") -> LoadedModel:
    """Load a network that comes with the package; the only one if no name is given.

    Raises
    ------
    ModelError
        No such network.

    """
    names = shipped_models()
    chosen = name or (names[0] if names else None)
    if chosen is None or chosen not in names:
        raise ModelError("no such shipped network", where=chosen, expected=f"one of {names}")
    return read_checkpoint(SHIPPED_FOLDER / chosen, device=device)


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ModelError(
            "no such model folder", where=folder, remedy="Train a network, or name an existing one."
        )
    values = read_json(folder / CONFIG_FILE, error=ModelError)
    if values.get("format") != FORMAT:
        raise ModelError(
            "not a checkpoint of this program",
            where=folder,
            expected=FORMAT,
            found=values.get("format"),
            remedy="Train it again: format 1 expects significance compressed in another way.",
        )
    return values


def _check_weights(weights: Mapping[str, Tensor], model: PeakNet, path: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise ModelError(
            f"weights of another configuration: {len(wrong)} tensors differ",
            where=path,
            expected=f"{wrong[0]} {expected.get(wrong[0], 'absent')}",
            found=found.get(wrong[0], "absent"),
            remedy="Keep model.safetensors and config.json of one model together.",
        )
    broken = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise ModelError("weights are not finite", where=path, found=broken[0])


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in ("", {})}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
