"""The geometry that a run carries, as CrystFEL's text."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import OutputFile, command
from peaknet_pipeline.commands.options import PATH, ROOTS, figures


@command()
@click.argument("run", type=PATH)
@click.option(
    "--geometry", type=PATH, help="Rewrite this geometry, with the run's photon energy and camera length."
)
@click.option("--out", type=OutputFile(".geom"), required=True, help="CrystFEL geometry to write (.geom).")
@ROOTS
@figures
def geometry(run: Path, geometry: Path | None, out: Path, roots: tuple[Path, ...]) -> dict[str, Any]:
    """Write the geometry of RUN (an NXmx master file's own, or a given one completed) as a CrystFEL .geom."""
    from peaknet_pipeline.steps.geometry_file import write_run_geometry

    return write_run_geometry(run, geometry=geometry, out=out, roots=roots)
