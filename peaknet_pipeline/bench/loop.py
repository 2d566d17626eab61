"""Benchmark of the feedback loop: yields on drifted runs before and after one turn, from labels to champion."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.experiment import RunConditions
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.stages import (
    champion,
    curated_labels,
    curation,
    finding,
    inference,
    ingest,
    labels,
    lattices,
    scoring,
    teaching,
    training_set,
)
from peaknet_pipeline.stages.models import present_champion, use_model
from peaknet_pipeline.stages.scores import read_all_scores
from peaknet_pipeline.stages.store import Store

NAME = "drift"
EARLY = ("drift-r0001", "drift-r0002")
DRIFTED = ("drift-r0004", "drift-r0005", "drift-r0006")
DRIFT = RunConditions(
    hit_fraction=0.9, background_factor=8, brightness_factor=0.4, streak_factor=5, ring_photons=4
)
INGEST = (
    ingest.raw_run,
    ingest.run_statistics,
    finding.classical_peaks,
    lattices.classical_index,
    labels.peak_labels,
)
INFER = (
    inference.peaknet_peaks,
    lattices.peaknet_index,
    scoring.run_metrics,
    curation.curation,
    curated_labels.curated_labels,
)
TURN = (
    training_set.training_set,
    teaching.peaknet_teacher,
    teaching.peaknet_student,
    champion.champion,
)


def run(*, early_frames: int = 12, drifted_frames: int = 14, steps: int = 200) -> dict[str, Any]:
    """Teach a network on a run, let the background drift, and take one turn of the loop.

    Parameters
    ----------
    early_frames, drifted_frames : int
        Frames of each run before the drift (one teaches, one validates) and after it (one each teaches, validates, tests).
    steps : int
        Optimiser steps of the teachers; students take a fifth more.

    Returns
    -------
    dict
        The comparison of the second turn, and per drifted run the frames indexed by the classical path, by the champion
        before the turn and by the champion after it.

    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        _simulate(store, early_frames, drifted_frames)
        _configure(store, EARLY[1], "", steps)
        _take(store, INGEST, EARLY)
        first = _turn(store, EARLY)
        use_model(store, str(first["challenger_model"]))  # the loop starts from the experiment's own network
        _take(store, INGEST, DRIFTED)
        _take(store, INFER, DRIFTED)
        before = _indexed(store)
        _configure(store, f"{EARLY[1]}, {DRIFTED[1]}", DRIFTED[2], steps)
        told = _turn(store, [*EARLY, *DRIFTED])
        _take(store, INFER, DRIFTED)
        after = _indexed(store)
        return {
            "decision": told["decision"],
            "champion": present_champion(store).name,
            "drifted_runs": [
                {
                    "run": key,
                    "frames": drifted_frames,
                    "classical": before[key, "classical"],
                    "before": before[key, "peaknet"],
                    "after": after[key, "peaknet"],
                }
                for key in DRIFTED
            ],
        }


def _simulate(store: Store, early_frames: int, drifted_frames: int) -> None:
    folder = store.raw_root / NAME
    experiment = demo_experiment(5, name=NAME)
    write_experiment_files(experiment, folder)
    for number in (1, 2):
        path = folder / f"r{number:04d}.h5"
        simulate_run(experiment, path, n_frames=early_frames, seed=30 + number, run_number=number)
    for number in (4, 5, 6):
        path = folder / f"r{number:04d}.h5"
        simulate_run(
            experiment,
            path,
            n_frames=drifted_frames,
            seed=130 + number,
            run_number=number,
            conditions=DRIFT,
        )
    _write(folder / "experiment.yaml", "finder: {threshold: 70, max_pix: 60, local_bg_radius: 4}\n")


def _configure(store: Store, validate: str, test: str, steps: int) -> None:
    common = f"crops: 768, batch_size: 8, validation_panels: 32, validate_every: {max(steps // 2, 1)}"
    lines = (
        f"training_set: {{validation_runs: [{validate}], test_runs: [{test}]}}",
        f"teacher: {{scale: edge, steps: {steps}, {common}}}",
        f"student: {{scale: edge-small, steps: {steps * 6 // 5}, {common}}}",
    )
    _write(store.root / "pipeline.yaml", "\n".join(lines) + "\n")


def _write(path: Path, text: str) -> None:
    write_file(path, text)


def _take(store: Store, stages: Sequence[Any], keys: Sequence[str]) -> None:
    for key in keys:
        for stage in stages:
            stage(store, key)


def _turn(store: Store, keys: Sequence[str]) -> dict[str, Any]:
    """Take one turn and return the figures of the comparison."""
    results = [stage(store, list(keys)) for stage in TURN]
    return dict(results[-1].figures)


def _indexed(store: Store) -> dict[tuple[str, str], int]:
    scores = read_all_scores(store)
    return {(str(r["run"]), str(r["finder"])): int(r["indexed"]) for r in scores.to_dict("records")}
