"""Runs with known truth."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.options import PATH, figures


@click.command()
@click.option("--out", type=PATH, required=True, help="Folder for the run files, geometry and cell.")
@click.option(
    "--runs", "n_runs", type=click.IntRange(1, 9999), default=1, show_default=True, help="How many runs."
)
@click.option(
    "--frames", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Frames per run."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same frames.")
@click.option(
    "--experiment", default="simulated", show_default=True, help="Experiment name; 'demo' is the demo's own."
)
@figures
def simulate(out: Path, n_runs: int, frames: int, seed: int, experiment: str) -> dict[str, Any]:
    """Simulate runs with known truth: HDF5 files r0001.h5 …, a .geom and a .cell."""
    from peaknet_pipeline.steps.simulate_experiment import simulate_experiment

    return simulate_experiment(out, n_runs=n_runs, n_frames=frames, seed=seed, name=experiment)
