"""Lattices of a peak table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peaknet_pipeline.commands.files import OutputFile, command
from peaknet_pipeline.commands.options import GEOMETRY, PATH, ROOTS, SETTINGS, figures

if TYPE_CHECKING:
    from peaknet_pipeline.store.outputs import Output


def crystfel_files(path: Path, parameters: Mapping[str, Any]) -> "Iterator[Output]":
    """Yield what the engine indexamajig leaves beside a lattice table; its list, log and stream don't say who made them."""
    if parameters["engine"] != "indexamajig":
        return
    from peaknet_pipeline.steps.index_run import files_of_crystfel
    from peaknet_pipeline.store.outputs import Output

    cxi = path.with_suffix(".cxi")
    for other in files_of_crystfel(cxi):
        leader = None if other.suffix in (".cxi", ".geom") else cxi
        yield Output(other, leader=leader, in_folder=other.parent)


def crystals_file(path: Path, parameters: Mapping[str, Any]) -> "Iterator[Output]":
    """Yield the table of crystals that lies beside the reflections."""
    from peaknet_pipeline.steps.index_file import crystals_beside
    from peaknet_pipeline.store.outputs import Output

    yield Output(crystals_beside(path), leader=path)


@command()
@click.argument("peaks", type=PATH)
@GEOMETRY
@click.option("--cell", type=PATH, required=True, help="Target unit cell (CrystFEL .cell, PDB or CIF).")
@click.option(
    "--engine",
    type=click.Choice(["lattice", "indexamajig"]),
    default="lattice",
    show_default=True,
    help="Embedded indexer, or CrystFEL.",
)
@SETTINGS
@click.option(
    "--out",
    type=OutputFile(".parquet", beside=crystfel_files),
    required=True,
    help="Lattice table to write (Parquet).",
)
@click.option(
    "--second-look",
    "second_look",
    type=OutputFile(".parquet"),
    help="Also search the frames left in the raw run, with all their weak evidence, and write those lattices here. "
    "Its settings: --set second_look.NAME=VALUE.",
)
@click.option("--stream", type=OutputFile(".stream"), help="Also write a CrystFEL stream.")
@click.option(
    "--reflections",
    type=OutputFile(".parquet", beside=crystals_file),
    help="Also write the integrated reflections, for `peaknet merge`, and FILE_crystals.parquet: how far and how well each "
    "crystal diffracts. Settings, also of the stream: --set prediction.NAME=VALUE, --set integration.NAME=VALUE.",
)
@click.option(
    "--with-second-look",
    is_flag=True,
    help="Stream and reflections hold the lattices of the second look, too; in the stream, frames that only it indexed say "
    "indexed_by = peaknet-second-look.",
)
@ROOTS
@figures
def index(
    peaks: Path,
    geometry: Path,
    cell: Path,
    engine: str,
    settings: tuple[str, ...],
    out: Path,
    second_look: Path | None,
    stream: Path | None,
    reflections: Path | None,
    with_second_look: bool,
    roots: tuple[Path, ...],
) -> dict[str, Any]:
    """Index the frames of a peak table with a known cell."""
    from peaknet_pipeline.steps.index_file import index_command

    return index_command(
        peaks,
        geometry=geometry,
        cell=cell,
        engine=engine,
        settings=settings,
        out=out,
        second_look=second_look,
        stream=stream,
        reflections=reflections,
        with_second_look=with_second_look,
        roots=roots,
    )
