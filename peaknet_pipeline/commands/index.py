"""Lattices of a peak table."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.options import GEOMETRY, PATH, SETTINGS, figures


@click.command()
@click.argument("peaks", type=PATH)
@GEOMETRY
@click.option("--cell", type=PATH, required=True, help="Target unit cell (CrystFEL .cell or PDB).")
@click.option(
    "--engine",
    type=click.Choice(["lattice", "indexamajig"]),
    default="lattice",
    show_default=True,
    help="Embedded indexer, or CrystFEL.",
)
@SETTINGS
@click.option("--out", type=PATH, required=True, help="Lattice table to write (Parquet).")
@click.option("--stream", type=PATH, help="Also write a CrystFEL stream.")
@figures
def index(
    peaks: Path,
    geometry: Path,
    cell: Path,
    engine: str,
    settings: tuple[str, ...],
    out: Path,
    stream: Path | None,
) -> dict[str, Any]:
    """Index the frames of a peak table with a known cell."""
    from peaknet_pipeline.stages.index_command import index_command

    return index_command(
        peaks, geometry=geometry, cell=cell, engine=engine, settings=settings, out=out, stream=stream
    )
