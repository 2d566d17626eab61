"""Benchmark of the feedback loop: yields on drifted runs before and after one turn, from labels to champion."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.labels.split import PEAKNET
from peaknet_pipeline.schemas import SPLIT
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.experiment import RunConditions
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.stages import (
    champion,
    classical_peaks,
    curated_labels,
    curation,
    peak_labels,
    peaknet_peaks,
    raw_run,
    run_index,
    run_metrics,
    run_statistics,
    teaching,
    training_set,
)
from peaknet_pipeline.store import paths
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.models import present_champion, use_model
from peaknet_pipeline.store.scores import read_all_scores
from peaknet_pipeline.tables import read_table

NAME = "drift"
EARLY = ("drift-r0001", "drift-r0002")
"""One teaches, one validates."""
STREAKED = RunConditions(hit_fraction=1.0, background_factor=2, brightness_factor=0.3, streak_factor=60)
"""Weak crystals under a bright jet streak: the classical finder loses frames that the first network still indexes."""
WIDE = RunConditions(hit_fraction=1.0, background_factor=3, spot_width_factor=2.6)
"""More background, and spots as wide as the first network was never shown."""
DRIFTED = {"drift-r0003": STREAKED, "drift-r0004": WIDE, "drift-r0005": WIDE, "drift-r0006": WIDE}
"""The first two teach, one validates, one tests."""
INGEST = (
    raw_run.raw_run,
    run_statistics.run_statistics,
    classical_peaks.classical_peaks,
    run_index.classical_index,
    peak_labels.peak_labels,
)
INFER = (peaknet_peaks.peaknet_peaks, run_index.peaknet_index, run_metrics.run_metrics)
CURATE = (curation.curation, curated_labels.curated_labels)
TURN = (
    training_set.training_set,
    teaching.peaknet_teacher,
    teaching.peaknet_student,
    champion.champion,
)


def run(
    *, early_frames: int = 12, drifted_frames: int = 12, steps: int = 200, teacher: str = "edge"
) -> dict[str, Any]:
    """Teach a network on two runs, let background, streak and spots drift, and take one turn of the loop.

    Parameters
    ----------
    early_frames, drifted_frames : int
        Frames of each run before the drift and after it.
    steps : int
        Optimiser steps of the teachers; students take a fifth more.
    teacher : str
        Scale of the teachers; students are of scale ``edge-small``.

    Returns
    -------
    dict
        The comparison of the second turn, and per drifted run the frames indexed by the classical path, by the champion
        before the turn and by the champion after it, and the frames that curation added to the training set.

    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        _simulate(store, early_frames, drifted_frames)
        _configure(store, EARLY[1], "", steps, teacher)
        _take(store, INGEST, EARLY)
        first = _turn(store, EARLY)
        use_model(store, str(first["challenger_model"]))  # the loop starts from the experiment's own network
        _take(store, (*INGEST, *INFER, *CURATE), list(DRIFTED))
        before = _indexed(store)
        _configure(store, f"{EARLY[1]}, drift-r0005", "drift-r0006", steps, teacher)
        told = _turn(store, [*EARLY, *DRIFTED])
        curated = _curated(store)
        _take(store, INFER, list(DRIFTED))
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
                    "curated": curated.get(key, 0),
                }
                for key in DRIFTED
            ],
        }


def _simulate(store: Store, early_frames: int, drifted_frames: int) -> None:
    folder = store.raw_root / NAME
    experiment = demo_experiment(5, name=NAME)
    write_experiment_files(experiment, folder)
    for key in (*EARLY, *DRIFTED):
        number = parse_key(key).number
        simulate_run(
            experiment,
            folder / f"r{number:04d}.h5",
            n_frames=drifted_frames if key in DRIFTED else early_frames,
            seed=130 + number if key in DRIFTED else 30 + number,
            run_number=number,
            conditions=DRIFTED.get(key),
        )
    write_file(folder / "experiment.yaml", "finder: {threshold: 70, max_pix: 60, local_bg_radius: 4}\n")


def _configure(store: Store, validate: str, test: str, steps: int, teacher: str) -> None:
    common = f"crops: 768, batch_size: 8, validation_panels: 32, validate_every: {max(steps // 2, 1)}"
    lines = (
        f"training_set: {{validation_runs: [{validate}], test_runs: [{test}]}}",
        f"teacher: {{scale: {teacher}, steps: {steps}, {common}}}",
        f"student: {{scale: edge-small, steps: {steps * 6 // 5}, {common}}}",
    )
    write_file(store.root / "pipeline.yaml", "\n".join(lines) + "\n")


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


def _curated(store: Store) -> dict[str, int]:
    """Count the frames of each run that curation added to the training set."""
    table = read_table(paths.training_set_path(store, "all"), SPLIT)
    return {str(run): int(n) for run, n in table[table["labels"] == PEAKNET].groupby("run").size().items()}
