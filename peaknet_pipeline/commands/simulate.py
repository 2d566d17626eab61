"""Runs with known truth."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peaknet_pipeline.commands.files import OutputFolder, command
from peaknet_pipeline.commands.options import figures

if TYPE_CHECKING:
    from peaknet_pipeline.store.outputs import Output


def simulated_files(folder: Path, parameters: Mapping[str, Any]) -> "Iterator[Output]":
    """Yield the runs, the geometry and the cell of a simulated experiment."""
    from peaknet_pipeline.simulate.files import experiment_files
    from peaknet_pipeline.steps.simulate_experiment import run_files
    from peaknet_pipeline.store.outputs import Output

    texts = experiment_files(parameters["experiment"], folder)
    for path in (*texts, *run_files(folder, parameters["n_runs"])):
        yield Output(path, in_folder=folder)


@command()
@click.option(
    "--out",
    type=OutputFolder(beside=simulated_files),
    required=True,
    help="Folder for the run files, geometry and cell.",
)
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
