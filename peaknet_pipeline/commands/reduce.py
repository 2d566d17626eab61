"""What of a run is kept."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import OutputFile, command, geometry_beside
from peaknet_pipeline.commands.options import GEOMETRY, PATH, ROOTS, SETTINGS, figures


@command()
@click.argument("peaks", type=PATH)
@GEOMETRY
@click.option(
    "--lattices", type=PATH, multiple=True, help="Lattice table whose frames are kept; may be repeated."
)
@SETTINGS
@click.option(
    "--out", type=OutputFile(".parquet"), required=True, help="Table of all frames, kept or not (Parquet)."
)
@click.option(
    "--cxi",
    type=OutputFile(".cxi", ".h5", beside=geometry_beside),
    help="Also copy the kept frames into a CXI file that needs no raw run.",
)
@ROOTS
@figures
def reduce(
    peaks: Path,
    geometry: Path,
    lattices: tuple[Path, ...],
    settings: tuple[str, ...],
    out: Path,
    cxi: Path | None,
    roots: tuple[Path, ...],
) -> dict[str, Any]:
    """Choose the frames of a run that are kept, and measure what a veto by peaks would lose; nothing is deleted."""
    from peaknet_pipeline.steps.reduce_run import reduce_command

    return reduce_command(
        peaks, geometry=geometry, lattices=lattices, settings=settings, out=out, cxi=cxi, roots=roots
    )
