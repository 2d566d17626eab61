"""Simulated experiments as folders of raw runs with geometry and cell."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import Experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.steps.progress import progress_bar


def simulate_experiment(out: Path, *, n_runs: int, n_frames: int, seed: int, name: str) -> dict[str, Any]:
    """Simulate ``n_runs`` runs of a random experiment (or, by the name ``demo``, the demo's own) into a folder."""
    experiment = named_experiment(name, seed)
    out.mkdir(exist_ok=True, parents=True)
    geometry, cell = write_experiment_files(experiment, out)
    paths = run_files(out, n_runs)
    for number, path in enumerate(paths, start=1):
        with progress_bar(f"simulating {path.name}") as progress:
            simulate_run(
                experiment, path, n_frames=n_frames, seed=seed + number, run_number=number, progress=progress
            )
    return {
        "runs": list(map(str, paths)),
        "frames": n_frames,
        "geometry": str(geometry),
        "cell": str(cell),
        "seed": seed,
    }


def run_files(folder: Path, n_runs: int) -> list[Path]:
    """Return where the runs of a simulated experiment lie in a folder."""
    return [folder / f"r{number:04d}.h5" for number in range(1, n_runs + 1)]


def named_experiment(name: str, seed: int) -> Experiment:
    """Return the demo's experiment, or a random draw under another name."""
    return demo_experiment(seed, name=name) if name == "demo" else replace(draw_experiment(seed), name=name)
