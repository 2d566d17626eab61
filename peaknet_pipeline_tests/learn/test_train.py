"""Training learns, repeats itself, resumes to the same loss, and runs on two processes as on one."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from peaknet_pipeline.errors import LabelError, ModelError
from peaknet_pipeline.learn.config import SCALES, named_scale
from peaknet_pipeline.learn.crops import Crop
from peaknet_pipeline.learn.distill import distill_student
from peaknet_pipeline.learn.model import PeakNet, build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters, normalise
from peaknet_pipeline.learn.recipe import TrainParameters, learning_rate
from peaknet_pipeline.learn.state import STATE_FILE
from peaknet_pipeline.learn.train import Progress, TrainResult, draw_crops, train_model
from peaknet_pipeline.learn.transforms import TransformParameters
from peaknet_pipeline.learn.validate import validate_model
from peaknet_pipeline_tests.learn.toys import ToyCrops, draw_panels

SHORT = TrainParameters(steps=8, batch_size=4, warmup_steps=2, validate_every=4)


@pytest.fixture(scope="module")
def crops() -> list[Crop]:
    toys = ToyCrops(200)
    return [toys[index] for index in range(len(toys))]


@pytest.fixture(scope="module")
def teacher(crops: list[Crop]) -> TrainResult:
    params = TrainParameters(steps=150, batch_size=16, validate_every=75)
    panels = draw_panels(4, seed=1, shape=(128, 128), n_spots=20)
    return train_model(
        build_model(SCALES["yocto"]),
        crops,
        params=params,
        validation=panels,
        transforms=TransformParameters(),
    )


def test_a_small_teacher_learns_in_seconds(teacher: TrainResult) -> None:
    panels = draw_panels(6, seed=2, shape=(150, 170), n_spots=30)
    scores = validate_model(teacher.model, panels, NormaliseParameters())
    assert scores.f1 > 0.8
    assert scores.band_recall["12-inf"] > 0.93
    assert scores.centre_rms is not None
    assert scores.centre_rms < 0.8
    assert teacher.scores is not None
    assert teacher.threshold == teacher.scores.threshold


def test_a_student_learns_from_its_teacher_alone(teacher: TrainResult, crops: list[Crop]) -> None:
    blind = [Crop(c.image, c.good, c.label * 0) for c in crops]
    params = TrainParameters(steps=250, batch_size=16, repeat_after=50, validate_every=250)
    test = draw_panels(6, seed=2, shape=(150, 170), n_spots=30)
    student = distill_student(
        build_model(SCALES["edge"]),
        teacher.model,
        blind,
        params=params,
        validation=test,
        transforms=TransformParameters(),
    )
    assert student.scores is not None
    assert student.scores.f1 > 0.9 * validate_model(teacher.model, test, NormaliseParameters()).f1


def test_training_repeats_itself(crops: list[Crop]) -> None:
    losses = [[row["loss"] for row in run(crops, SHORT).history] for _ in range(2)]
    assert losses[0] == losses[1]
    other = run(crops, TrainParameters.from_mapping({**SHORT.to_dict(), "seed": 1}))
    assert [row["loss"] for row in other.history] != losses[0]


def test_an_interrupted_run_resumes_to_the_same_loss(crops: list[Crop], tmp_path: Path) -> None:
    panels = draw_panels(2, seed=1)
    whole = run(crops, SHORT, validation=panels)
    for stop in (3, 5, None):
        resumed = run(crops, SHORT, validation=panels, state_folder=tmp_path, stop_after=stop)
    assert resumed.history == whole.history
    assert resumed.scores == whole.scores
    assert_same_weights(resumed.model, whole.model)


def test_a_state_of_other_settings_or_a_damaged_one_is_refused(crops: list[Crop], tmp_path: Path) -> None:
    run(crops, SHORT, state_folder=tmp_path, stop_after=1)
    with pytest.raises(ModelError, match="another params"):
        run(crops, TrainParameters(steps=9, batch_size=4), state_folder=tmp_path)
    with pytest.raises(ModelError, match="another config"):
        train_model(build_model(SCALES["edge"]), crops, params=SHORT, state_folder=tmp_path)
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ModelError, match="not a readable training state"):
        run(crops, SHORT, state_folder=tmp_path)


def test_accumulated_passes_equal_one_large_batch(crops: list[Crop]) -> None:
    even = [Crop(c.image, c.good | True, c.label * (c.label == 1)) for c in crops]
    large = run(even, TrainParameters(steps=3, batch_size=8, warmup_steps=0))
    small = run(even, TrainParameters(steps=3, batch_size=2, accumulation=4, warmup_steps=0))
    assert_same_weights(large.model, small.model, atol=2e-4)


def test_two_processes_train_as_one(crops: list[Crop], tmp_path: Path) -> None:
    script = Path(__file__).with_name("train_in_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    result = subprocess.run(
        [*command, str(script), str(tmp_path)], timeout=120, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr[-2000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["losses"] == ranks[1]["losses"]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["indices"] != ranks[1]["indices"]
    from peaknet_pipeline_tests.learn.train_in_processes import ONE_PROCESS, even_crops

    alone = train_model(build_model(SCALES["edge-small"]), even_crops(), params=ONE_PROCESS)
    assert [row["loss"] for row in alone.history] == pytest.approx(ranks[0]["losses"], rel=1e-4)


def test_training_stops_early_without_progress(crops: list[Crop]) -> None:
    params = TrainParameters(steps=50, batch_size=2, learning_rate=1e-9, validate_every=2, patience=3)
    result = run(crops, params, validation=draw_panels(1, seed=0))
    assert result.step == 8


def test_progress_is_told_after_every_step(crops: list[Crop]) -> None:
    told: list[Progress] = []
    run(crops, SHORT, validation=draw_panels(1, seed=0), progress=told.append)
    assert [p.step for p in told] == list(range(1, 9))
    assert [p.step for p in told if p.scores is not None] == [4, 8]


def test_every_crop_is_drawn_once_an_epoch() -> None:
    source = [
        Crop(
            torch.full((4, 4), float(n)).numpy(),
            torch.ones(4, 4).bool().numpy(),
            torch.zeros(4, 4).byte().numpy(),
        )
        for n in range(12)
    ]
    params = TrainParameters(batch_size=4, seed=3)
    epochs = [
        [int(v) for d in range(3) for v in draw_crops(source, e * 3 + d, params).image[:, 0, 0]]
        for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_the_rate_warms_up_and_falls() -> None:
    params = TrainParameters(steps=100, warmup_steps=10, learning_rate=1.0, final_rate=0.1)
    rates = [learning_rate(step, params) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_bf16_autocast_trains(crops: list[Crop]) -> None:
    params = TrainParameters(steps=3, batch_size=2, bf16=True)
    assert all(row["loss"] > 0 for row in run(crops, params).history)


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(LabelError, match="no crops"):
        run([], SHORT)


def test_crops_of_different_shapes_are_an_error() -> None:
    toys = [ToyCrops(1)[0], ToyCrops(1, shape=(32, 32))[0]]
    with pytest.raises(LabelError, match="do not stack"):
        run(toys, SHORT)


def run(crops: list[Crop], params: TrainParameters, **options: object) -> TrainResult:
    return train_model(
        build_model(SCALES["edge-small"]),
        crops,
        params=params,
        **options,  # type: ignore[arg-type]
    )


def assert_same_weights(first: PeakNet, second: PeakNet, atol: float = 0.0) -> None:
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0)


def test_a_network_with_offsets_learns_sub_pixel_centres(crops: list[Crop]) -> None:
    params = TrainParameters(steps=300, batch_size=16, validate_every=300)
    model = train_model(build_model(named_scale("edge", offsets=True)), crops, params=params).model
    from_pixels, from_offsets = [], []
    for panel in draw_panels(4, seed=4, n_spots=10, snr_range=(15.0, 40.0)):
        image, good = torch.from_numpy(panel.image)[None], torch.from_numpy(panel.good)[None]
        with torch.inference_mode():
            out = model(normalise(image, good))[0].numpy()
        for ss, fs in panel.centres:
            at = round(float(ss)), round(float(fs))
            from_pixels.append(np.hypot(at[0] - ss, at[1] - fs))
            from_offsets.append(np.hypot(at[0] + out[1][at] - ss, at[1] + out[2][at] - fs))
    assert np.median(from_offsets) < 0.8 * np.median(from_pixels)
