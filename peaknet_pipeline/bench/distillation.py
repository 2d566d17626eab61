"""Benchmark of distillation: how much of a teacher's peak F1 a student of a twentieth of its arithmetic keeps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peaknet_pipeline.bench.model import measure_work
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.crops import ValidationPanel
from peaknet_pipeline.learn.distill import distill_student
from peaknet_pipeline.learn.model import PeakNet, build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.learn.recipe import TrainParameters
from peaknet_pipeline.learn.train import train_model
from peaknet_pipeline.learn.validate import PeakScores, validate_model
from peaknet_pipeline.steps.teach_shipped import (
    TEACHING,
    TRAINING,
    TRANSFORMS,
    VALIDATION,
    decode_as_inference,
    validation_panels,
)
from peaknet_pipeline.steps.truth_crops import store_crops
from peaknet_pipeline.steps.truth_windows import TeachingParameters


def run(
    *,
    work: str,
    teacher: str = "local-teacher",
    student: str = "local",
    teacher_steps: int = 8_000,
    student_steps: int = 6_000,
    teaching: TeachingParameters = TEACHING,
    training: TrainParameters = TRAINING,
) -> dict[str, Any]:
    """Train a teacher on the shipped network's material, distil a student from its logits, and compare both.

    An hour and a half on one core, from one seed; a second call with the same folder goes on where the first was left. The
    scores are those at each network's best threshold on the 60 validation experiments, decoded as in inference.

    Parameters
    ----------
    work : str
        Folder for crops (as ``peaknet_pipeline.steps.teach_shipped`` leaves them there) and training states.
    teacher, student : str
        Named scales of the local family.
    teacher_steps, student_steps : int
        Optimiser steps.
    teaching, training : TeachingParameters, TrainParameters
        Material and recipe; the teacher's learning rate is 0.6 of it.

    """
    folder = Path(work)
    crops = store_crops(folder, teaching)
    panels = validation_panels(teaching)
    slower = replace(
        training,
        steps=teacher_steps,
        learning_rate=0.6 * training.learning_rate,
        validate_every=training.validate_every // 2,
    )
    taught = train_model(
        build_model(named_scale(teacher), seed=training.seed),
        crops,
        params=slower,
        transforms=TRANSFORMS,
        state_folder=folder / f"state-{teacher}",
    ).model
    distilled = distill_student(
        build_model(named_scale(student), seed=training.seed),
        taught,
        crops,
        params=replace(training, steps=student_steps, validate_every=training.validate_every // 2),
        transforms=TRANSFORMS,
        state_folder=folder / f"state-{student}-of-{teacher}",
    ).model
    scores = {"teacher": best_scores(taught, panels), "student": best_scores(distilled, panels)}
    work_of = {
        name: measure_work(named_scale(scale)).flop
        for name, scale in (("teacher", teacher), ("student", student))
    }
    return {
        **{name: one.to_dict() for name, one in scores.items()},
        "f1_kept": round(scores["student"].f1 / scores["teacher"].f1, 4) if scores["teacher"].f1 else None,
        "compute_ratio": round(work_of["teacher"] / work_of["student"], 2),
    }


def best_scores(model: PeakNet, panels: Sequence[ValidationPanel]) -> PeakScores:
    """Return a network's scores at the threshold with the highest F1."""
    by_f1 = replace(VALIDATION, least_precision=0.0, f1_slack=0.0)
    return validate_model(model, panels, NormaliseParameters(), by_f1, decode_as_inference)
