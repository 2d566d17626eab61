"""The registry: versions, one champion, no promotion of a worse challenger, a way back."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from peaknet_pipeline.atomic import temporary_prefix
from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.checkpoint import (
    WEIGHTS_FILE,
    ModelCard,
    read_checkpoint,
    shipped_models,
    write_checkpoint,
)
from peaknet_pipeline.learn.config import SCALES
from peaknet_pipeline.learn.evaluation import (
    YieldCount,
    judge_challenger,
    read_evaluation,
    write_evaluation,
)
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.registry import (
    champion,
    champions,
    describe_models,
    list_models,
    promote,
    register,
    register_shipped,
    roll_back,
)


def write_small(folder: Path, version: str) -> None:
    card = ModelCard(name=version, scores={"f1": 0.9}, made="2026-01-31T12:00:00Z")
    write_checkpoint(folder, build_model(SCALES["edge-small"]), card=card)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for _ in range(3):
        register(tmp_path, "student", write_small)
    return tmp_path


def test_versions_count_up_per_role(models: Path) -> None:
    assert list_models(models) == ["student-v0001", "student-v0002", "student-v0003"]
    assert register(models, "student", write_small).name == "student-v0004"
    assert register(models, "teacher", write_small).name == "teacher-v0001"


def test_a_version_is_never_written_twice(models: Path) -> None:
    def while_another_trains(folder: Path, version: str) -> None:
        inner.append(register(models, "student", write_small))
        write_small(folder, version)

    inner: list[Path] = []
    outer = register(models, "student", while_another_trains)
    assert (outer.name, inner[0].name) == ("student-v0004", "student-v0005")


def test_a_training_that_fails_leaves_no_version(models: Path) -> None:
    def fail(folder: Path, version: str) -> None:
        write_small(folder, version)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        register(models, "student", fail)
    assert sorted(path.name for path in models.iterdir()) == [f"student-v000{i}" for i in (1, 2, 3)]


def test_a_version_is_listed_only_when_everything_is_written(models: Path) -> None:
    def look(folder: Path, version: str) -> None:
        write_small(folder, version)
        assert version == "student-v0004"
        assert list_models(models) == ["student-v0001", "student-v0002", "student-v0003"]
        assert not any((models / version).iterdir())

    folder = register(models, "student", look)
    assert folder.name in list_models(models)
    assert read_checkpoint(folder).card.name == folder.name


def test_what_a_killed_training_left_is_removed_by_the_next_one_and_a_living_one_keeps_its_own(
    models: Path,
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = f"{socket.gethostname()}-{dead.pid}.abcd.tmp"
    folder, file = models / f".student-v0009.{left}", models / "student-v0001" / f".card.json.{left}"
    folder.mkdir()
    file.touch()
    alive = models / f"{temporary_prefix(models / 'student-v0008')}abcd.tmp"
    alive.mkdir()
    register(models, "student", write_small)
    assert not folder.exists()
    assert not file.exists()
    assert alive.is_dir()


def test_the_shipped_network_is_registered_once_and_anew_when_its_weights_change(tmp_path: Path) -> None:
    name = shipped_models()[0]
    first = register_shipped(tmp_path)
    assert first.name == f"{name}-v0001"
    assert read_checkpoint(first).card.name == first.name
    assert register_shipped(tmp_path) == first
    (first / WEIGHTS_FILE).write_bytes(b"older weights")
    assert register_shipped(tmp_path).name == f"{name}-v0002"


def test_a_yield_is_kept_beside_its_model_and_told_in_the_list(models: Path) -> None:
    folder = models / "student-v0002"
    assert read_evaluation(folder) is None
    write_evaluation(folder, runs=["a-r0001"], count=YieldCount(3, 4), made="2026-02-01T00:00:00Z")
    promote(models, folder.name)
    entries = {entry.name: entry for entry in describe_models(models)}
    assert [name for name, entry in entries.items() if entry.is_champion] == [folder.name]
    evaluation = entries[folder.name].evaluation
    assert evaluation is not None
    assert (evaluation.runs, evaluation.count.value) == (("a-r0001",), 0.75)
    assert (entries[folder.name].f1, entries["student-v0001"].evaluation) == (0.9, None)
    (folder / "evaluation.json").write_text('{"runs": 3}')
    (damaged,) = (entry for entry in describe_models(models) if entry.problem)
    assert damaged.name == folder.name
    assert "not a readable evaluation" in damaged.problem


def test_a_damaged_model_cannot_become_champion(models: Path) -> None:
    promote(models, "student-v0001")
    weights = models / "student-v0002" / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        promote(models, "student-v0002")
    assert champions(models) == ["student-v0001"]


def test_a_pointer_that_leads_out_of_the_folder_is_refused(models: Path) -> None:
    write_small(models.parent / "elsewhere", "elsewhere")
    (models / "champion.json").write_text('{"history": ["../elsewhere"]}')
    with pytest.raises(ModelError, match="folder is gone"):
        champion(models)


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
