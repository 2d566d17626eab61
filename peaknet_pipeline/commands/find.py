"""Peaks of one run."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.options import PATH, SETTINGS, figures


@click.command()
@click.argument("run", type=PATH)
@click.option("--geometry", type=PATH, help="CrystFEL geometry; needed unless the run carries its own.")
@click.option(
    "--finder",
    type=click.Choice(["peakfinder8", "peaknet"]),
    default="peakfinder8",
    show_default=True,
    help="Classical or neural.",
)
@click.option("--model", type=PATH, help="Model folder for --finder peaknet; the shipped weights without it.")
@SETTINGS
@click.option("--mask", type=PATH, help="Extra mask file (HDF5, numpy); True or non-zero is bad.")
@click.option("--out", type=PATH, required=True, help="Peak table to write (Parquet).")
@click.option("--cxi", type=PATH, help="Also write the peaks as a CXI file that CrystFEL reads.")
@figures
def find(
    run: Path,
    geometry: Path | None,
    finder: str,
    model: Path | None,
    settings: tuple[str, ...],
    mask: Path | None,
    out: Path,
    cxi: Path | None,
) -> dict[str, Any]:
    """Find Bragg peaks in RUN, an HDF5 or CXI file."""
    from peaknet_pipeline.stages.finding import find_command

    return find_command(
        run, geometry=geometry, finder=finder, model=model, settings=settings, mask=mask, out=out, cxi=cxi
    )
