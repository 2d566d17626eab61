"""Integrated reflections to a merged data set."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peaknet_pipeline.commands.files import OutputFile, command
from peaknet_pipeline.commands.options import PATH, SETTINGS, figures

if TYPE_CHECKING:
    from peaknet_pipeline.store.outputs import Output


def halves_beside(path: Path, parameters: Mapping[str, Any]) -> "Iterator[Output]":
    """Yield the lists of the two halves."""
    from peaknet_pipeline.steps.merge_files import half_files
    from peaknet_pipeline.store.outputs import Output

    for other, _ in half_files(path)[1:]:
        yield Output(other, leader=path)


@command()
@click.argument("reflections", type=PATH, nargs=-1, required=True)
@click.option("--cell", type=PATH, required=True, help="Unit cell (CrystFEL .cell, PDB or CIF).")
@click.option("--symmetry", required=True, help="Space group, as P43212, or point group, as 422 or 4/mmm.")
@SETTINGS
@click.option("--out", type=OutputFile(".mtz"), required=True, help="Merged MTZ to write, with both halves.")
@click.option(
    "--unmerged", type=OutputFile(".mtz"), help="Also write the scaled observations, one batch per crystal."
)
@click.option(
    "--hkl",
    type=OutputFile(".hkl", beside=halves_beside),
    help="Also write CrystFEL reflection lists: FILE, and FILE1 and FILE2 of the halves.",
)
@click.option("--shells", type=OutputFile(".parquet"), help="Also write the figures by resolution shell.")
@click.option(
    "--crystals",
    type=OutputFile(".parquet"),
    help="Also write how each crystal was scaled, or why it was left out.",
)
@click.option("--plot", type=OutputFile(".png"), help="Also draw the figures by shell and the Wilson plot.")
@figures
def merge(
    reflections: tuple[Path, ...],
    cell: Path,
    symmetry: str,
    settings: tuple[str, ...],
    out: Path,
    unmerged: Path | None,
    hkl: Path | None,
    shells: Path | None,
    crystals: Path | None,
    plot: Path | None,
) -> dict[str, Any]:
    """Scale and merge integrated reflections: tables of `peaknet index --reflections`, of the index assets, or streams."""
    from peaknet_pipeline.steps.merge_files import merge_command

    return merge_command(
        reflections,
        cell=cell,
        symmetry=symmetry,
        settings=settings,
        out=out,
        unmerged=unmerged,
        hkl=hkl,
        shells=shells,
        crystals=crystals,
        plot=plot,
    )
