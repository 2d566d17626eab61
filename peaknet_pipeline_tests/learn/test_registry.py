"""The registry: versions, one champion, no promotion of a worse challenger, a way back."""

from pathlib import Path

import pytest

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.checkpoint import ModelCard, write_checkpoint
from peaknet_pipeline.learn.config import SCALES
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.registry import (
    YieldCount,
    champion,
    judge_challenger,
    list_models,
    next_version,
    promote,
    roll_back,
)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for _ in range(3):
        folder = next_version(tmp_path, "student")
        write_checkpoint(folder, build_model(SCALES["edge-small"]), card=ModelCard(name=folder.name))
    return tmp_path


def test_versions_count_up(models: Path) -> None:
    assert list_models(models) == ["student-v0001", "student-v0002", "student-v0003"]
    assert next_version(models, "student").name == "student-v0004"
    assert next_version(models, "teacher").name == "teacher-v0001"


def test_promotion_and_rolling_back_move_the_champion(models: Path) -> None:
    assert champion(models) is None
    promote(models, "student-v0001")
    promote(models, "student-v0003")
    promote(models, "student-v0003")
    assert champion(models) == models / "student-v0003"
    assert roll_back(models) == models / "student-v0001" == champion(models)
    with pytest.raises(ModelError, match="no earlier champion"):
        roll_back(models)


def test_unknown_and_lost_models_are_told(models: Path) -> None:
    with pytest.raises(ModelError, match="no such model"):
        promote(models, "student-v0099")
    promote(models, "student-v0002")
    (models / "student-v0002" / "config.json").unlink()
    with pytest.raises(ModelError, match="folder is gone"):
        champion(models)


@pytest.mark.parametrize("text", ["{", "[]", '{"history": "x"}', '{"other": 1}'])
def test_a_damaged_pointer_is_told(models: Path, text: str) -> None:
    (models / "champion.json").write_text(text)
    with pytest.raises(ModelError, match="champion pointer"):
        champion(models)


@pytest.mark.parametrize(
    ("challenger", "present", "accepted"),
    [
        ((40, 100), (40, 100), True),
        ((41, 100), (40, 100), True),
        ((39, 100), (40, 100), False),
        ((50, 120), (40, 100), False),
        ((0, 0), None, False),
        ((0, 50), None, True),
    ],
)
def test_a_challenger_must_be_no_worse_on_the_same_frames(
    challenger: tuple[int, int], present: tuple[int, int] | None, accepted: bool
) -> None:
    decision = judge_challenger(YieldCount(*challenger), YieldCount(*present) if present else None)
    assert decision.accepted is accepted
    assert decision.reason
