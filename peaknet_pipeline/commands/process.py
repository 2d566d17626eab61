"""One file, from raw frames to rates."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peaknet_pipeline.commands.files import OutputFolder, command
from peaknet_pipeline.commands.options import (
    GEOMETRY,
    MIN_PEAKS,
    PATH,
    ROOTS,
    SETTINGS,
    figures,
    finder_option,
)

if TYPE_CHECKING:
    from peaknet_pipeline.store.outputs import Output


def processed_files(folder: Path, parameters: Mapping[str, Any]) -> "Iterator[Output]":
    """Yield what is written into the output folder, each by the part of this command that is a command of its own."""
    from peaknet_pipeline.steps.process_file import process_outputs
    from peaknet_pipeline.store.outputs import Output

    for path, part in process_outputs(folder, find_cell=parameters["cell"] is None).items():
        yield Output(path, in_folder=folder, made_by=part)


@command()
@click.argument("run", type=PATH)
@GEOMETRY
@click.option(
    "--cell",
    type=PATH,
    help="Target unit cell (CrystFEL .cell, PDB or CIF); without it the run's own is sought.",
)
@finder_option("peakfinder8")
@click.option("--model", type=PATH, help="Model folder for --finder peaknet; the shipped weights without it.")
@SETTINGS
@click.option(
    "--mask", "masks", type=PATH, multiple=True, help="Extra mask file, non-zero is bad; may be repeated."
)
@MIN_PEAKS
@click.option(
    "--out",
    type=OutputFolder(beside=processed_files),
    required=True,
    help="Folder for peaks.parquet, lattices.parquet, run.stream and frames.png; made where there is none.",
)
@ROOTS
@figures
def process(
    run: Path,
    geometry: Path,
    cell: Path | None,
    finder: str,
    model: Path | None,
    settings: tuple[str, ...],
    masks: tuple[Path, ...],
    min_peaks: int,
    out: Path,
    roots: tuple[Path, ...],
) -> dict[str, Any]:
    """Take RUN from its frames to peaks, lattices, a CrystFEL stream, rates with their control, and a picture.

    The picture shows the best indexed frame, a typical one and a missed hit. Settings are the finder's, and with
    index.NAME=VALUE the indexer's.
    """
    from peaknet_pipeline.steps.process_file import process_command

    return process_command(
        run,
        geometry=geometry,
        cell=cell,
        finder=finder,
        model=model,
        settings=settings,
        masks=masks,
        min_peaks=min_peaks,
        out=out,
        roots=roots,
    )
