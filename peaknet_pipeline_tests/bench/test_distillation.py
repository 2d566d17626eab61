"""The benchmark of distillation trains both networks, compares them, and goes on where it was left."""

from dataclasses import replace

import pytest

from peaknet_pipeline.bench import distillation
from peaknet_pipeline.learn.state import STATE_FILE
from peaknet_pipeline.steps import teach_shipped
from peaknet_pipeline.steps.teach_shipped import TRAINING
from peaknet_pipeline.steps.truth_windows import TeachingParameters

SMALL = TeachingParameters(
    n_experiments=2, frames_per_experiment=2, crops_per_frame=6, crop_side=64, max_pixels=1_200_000
)


def test_teacher_and_student_are_compared_and_a_second_call_repeats_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(teach_shipped, "VALIDATION_SEEDS", range(900_000_000, 900_000_002))
    settings = {
        "work": str(tmp_path),
        "teacher_steps": 60,
        "student_steps": 40,
        "teaching": SMALL,
        "training": replace(TRAINING, batch_size=4, warmup_steps=5, validate_every=40),
    }
    figures = distillation.run(**settings)
    assert figures["compute_ratio"] >= 20
    assert figures["teacher"]["n_true"] == figures["student"]["n_true"] > 0
    assert figures["f1_kept"] == pytest.approx(figures["student"]["f1"] / figures["teacher"]["f1"], abs=1e-4)
    states = sorted(tmp_path.glob(f"state-*/{STATE_FILE}"))
    stamps = [path.stat().st_mtime_ns for path in states]
    assert len(states) == 2
    assert distillation.run(**settings) == figures
    assert [path.stat().st_mtime_ns for path in states] == stamps
