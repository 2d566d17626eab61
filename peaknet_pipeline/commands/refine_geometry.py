"""A geometry, refined from the peaks of a run."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import OutputFile, command
from peaknet_pipeline.commands.options import PATH, SETTINGS, figures


@command("refine-geometry")
@click.argument("peaks", type=PATH)
@click.argument("lattices", type=PATH, required=False)
@click.option(
    "--geometry", type=PATH, required=True, help="CrystFEL geometry that the lattices were found with."
)
@click.option("--cell", type=PATH, required=True, help="Known unit cell; the distance is as good as it is.")
@SETTINGS
@click.option("--out", type=OutputFile(".geom"), required=True, help="Geometry to write (CrystFEL .geom).")
@click.option("--plot", type=OutputFile(".png"), help="Also draw each panel's residuals and shifts (PNG).")
@figures
def refine_geometry(
    peaks: Path,
    lattices: Path | None,
    geometry: Path,
    cell: Path,
    settings: tuple[str, ...],
    out: Path,
    plot: Path | None,
) -> dict[str, Any]:
    """Refine shift, distance, tilt and panels from a peak table and its LATTICES.

    Without LATTICES the peaks are indexed here, with a wider search where hardly any do; then only what frames that were
    held out and the number indexed speak for is refined.
    """
    from peaknet_pipeline.steps.refine_run_geometry import refine_geometry_command

    return refine_geometry_command(
        peaks, lattices, geometry=geometry, cell=cell, settings=settings, out=out, plot=plot
    )
