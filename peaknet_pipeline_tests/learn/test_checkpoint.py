"""Checkpoint folders: what is written is read back; damaged and foreign ones are refused with a reason."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn import checkpoint
from peaknet_pipeline.learn.checkpoint import ModelCard, read_checkpoint, write_card, write_checkpoint
from peaknet_pipeline.learn.config import SCALES
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters

CARD = ModelCard(
    name="toy",
    step=7,
    threshold=0.35,
    scores={"f1": 0.9},
    training_manifest="abc",
    code_version="1.2",
    training={"steps": 7},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = build_model(SCALES["edge-small"], seed=4)
    return write_checkpoint(
        tmp_path / "toy", model, card=CARD, normalisation=NormaliseParameters(compression=9)
    )


def test_a_checkpoint_is_read_back_whole(folder: Path) -> None:
    loaded = read_checkpoint(folder)
    model = build_model(SCALES["edge-small"], seed=4).eval()
    x = torch.randn(1, 1, 30, 30)
    assert torch.equal(loaded.model(x), model(x))
    assert replace(loaded.card, weights="") == CARD
    assert loaded.card.weights == checkpoint.weights_digest(folder)
    assert loaded.normalisation.compression == 9
    assert not loaded.model.training
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "config.json", "model.safetensors"]


def test_replacing_a_checkpoint_leaves_nothing_behind(folder: Path) -> None:
    write_checkpoint(folder, build_model(SCALES["edge"]), card=ModelCard(name="next"))
    assert read_checkpoint(folder).card.name == "next"
    assert [p.name for p in folder.parent.iterdir()] == ["toy"]


def test_a_failed_write_keeps_the_old_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(folder, build_model(SCALES["edge"]), card=ModelCard(name="next"))
    assert replace(read_checkpoint(folder).card, weights="") == CARD
    assert [p.name for p in folder.parent.iterdir()] == ["toy"]


@pytest.mark.parametrize("kept", [0, 5, 200, -100])
def test_truncated_weights_are_refused(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        read_checkpoint(folder)


def test_weights_of_another_configuration_are_refused(folder: Path) -> None:
    save_file(build_model(SCALES["edge"]).state_dict(), folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"another configuration: \d+ tensors differ.*expected.*found"):
        read_checkpoint(folder)


def test_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        read_checkpoint(tmp_path / "nowhere")
    (folder / "config.json").write_text(json.dumps({"architectures": ["Other"]}))
    with pytest.raises(ModelError, match="not a checkpoint of this program"):
        read_checkpoint(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="not a JSON object"):
        read_checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not readable JSON"):
        read_checkpoint(folder)


def test_a_configuration_with_unknown_fields_is_refused(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["model"]["colour"] = 3
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"configuration cannot be used.*colour"):
        read_checkpoint(folder)


def test_networks_from_before_the_poisson_noise_keep_the_noise_that_they_were_taught_with(
    folder: Path,
) -> None:
    assert read_checkpoint(folder).normalisation.poisson_noise
    values = json.loads((folder / "config.json").read_text())
    del values["normalise"]["poisson_noise"]
    (folder / "config.json").write_text(json.dumps(values))
    assert not read_checkpoint(folder).normalisation.poisson_noise


def test_missing_weights_and_bad_cards_are_refused(folder: Path) -> None:
    (folder / "card.json").write_text(json.dumps({"title": "x"}))
    with pytest.raises(ModelError, match="not a model card"):
        read_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        read_checkpoint(folder)


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    state = build_model(SCALES["edge-small"]).state_dict()
    state["network.classify.bias"][0] = float("nan")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        read_checkpoint(folder)


def test_figures_can_be_added_to_a_card(folder: Path) -> None:
    card = ModelCard(name="toy", notes={"indexing_yield": {"indexed": 40, "frames": 100}})
    write_card(folder, card)
    assert read_checkpoint(folder).card == card


def test_every_shipped_network_loads() -> None:
    for name in checkpoint.shipped_models():
        assert checkpoint.load_shipped(name).card.name == name
    with pytest.raises(ModelError, match="no such shipped network"):
        checkpoint.load_shipped("nothing")
