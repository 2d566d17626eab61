"""How fast frames are simulated, in memory and into a compressed run file."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import Experiment
from peaknet_pipeline.simulate.frames import make_simulator, simulate_frames
from peaknet_pipeline.simulate.run import simulate_run

TARGET_MPIX_PER_SECOND = 5.0
"""Five frames of one megapixel a second on two cores."""


def run(
    detectors: str = "demo,agipd1m,eiger4m",
    n_frames: int = 24,
    repeats: int = 3,
    workers: int = 2,
    seed: int = 17,
) -> dict[str, Any]:
    """Measure frames per second of lysozyme experiments on the named detectors, medians over ``repeats``.

    The first, untimed frames compile the kernels. In-memory and file rates alternate, so that both see the
    same machine; beside them stands the processor time, which other work on the machine doesn't blur.
    """
    rates = {name: _measure(name, n_frames, repeats, workers, seed) for name in detectors.split(",")}
    return {
        "workers": workers,
        "cpus": os.cpu_count(),
        "n_frames": n_frames,
        "repeats": repeats,
        "detectors": rates,
        "target_mpix_per_second": TARGET_MPIX_PER_SECOND,
        "target_met": all(r["mpix_per_second_file"] >= TARGET_MPIX_PER_SECOND for r in rates.values()),
    }


def _measure(name: str, n_frames: int, repeats: int, workers: int, seed: int) -> dict[str, float]:
    experiment = draw_experiment(seed, detector=name, sample="lysozyme")
    mpix = float(np.prod(experiment.geometry.stack_shape)) / 1e6
    _in_memory(experiment, 2, workers, seed)
    start = time.perf_counter()
    make_simulator(experiment)
    preparation = time.perf_counter() - start
    processor = time.process_time()
    pairs = [
        (_in_memory(experiment, n_frames, workers, seed), _to_file(experiment, n_frames, workers, seed))
        for _ in range(repeats)
    ]
    processor = time.process_time() - processor
    memory, file = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return {
        "mpix": round(mpix, 3),
        "frames_per_second_memory": round(n_frames / memory, 2),
        "frames_per_second_file": round(n_frames / file, 2),
        "mpix_per_second_file": round(n_frames * mpix / file, 2),
        "cpu_seconds_per_mpix": round(processor / (2 * repeats * n_frames * mpix), 4),
        "preparation_seconds": round(preparation, 3),
    }


def _in_memory(experiment: Experiment, n_frames: int, workers: int, seed: int) -> float:
    start = time.perf_counter()
    for _ in simulate_frames(experiment, n_frames, seed, workers=workers):
        pass
    return time.perf_counter() - start


def _to_file(experiment: Experiment, n_frames: int, workers: int, seed: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        simulate_run(experiment, Path(folder) / "run.h5", n_frames=n_frames, seed=seed, workers=workers)
        return time.perf_counter() - start
