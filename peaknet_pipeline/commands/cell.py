"""The unknown cell of a peak table."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import OutputFile, command
from peaknet_pipeline.commands.options import GEOMETRY, PATH, SETTINGS, figures


@command()
@click.argument("peaks", type=PATH)
@GEOMETRY
@SETTINGS
@click.option("--out", type=OutputFile(".cell"), required=True, help="Cell to write (CrystFEL .cell).")
@click.option("--plot", type=OutputFile(".png"), help="Also draw the single frames' reduced cells (PNG).")
@figures
def cell(
    peaks: Path, geometry: Path, settings: tuple[str, ...], out: Path, plot: Path | None
) -> dict[str, Any]:
    """Find the cell and Bravais class that the frames of a peak table agree on."""
    from peaknet_pipeline.steps.cell_of_run import cell_command

    return cell_command(peaks, geometry=geometry, settings=settings, out=out, plot=plot)
