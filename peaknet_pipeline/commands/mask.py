"""The mask of one run, from its own frames and from files."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import OutputFile, command
from peaknet_pipeline.commands.options import INVERT_MASKS, PATH, ROOTS, RUN_GEOMETRY, SETTINGS, figures


@command()
@click.argument("run", type=PATH)
@RUN_GEOMETRY
@click.option(
    "--mask", "masks", type=PATH, multiple=True, help="Mask file to add (HDF5, CXI, numpy); may be repeated."
)
@click.option(
    "--dark", "darks", type=PATH, multiple=True, help="Dark run to judge pixels by; may be repeated."
)
@INVERT_MASKS
@SETTINGS
@click.option(
    "--out",
    type=OutputFile(".h5", ".hdf5", ".npy"),
    required=True,
    help="Mask to write: .h5 with its layers, or bare .npy.",
)
@click.option("--plot", type=OutputFile(".png"), help="Also draw it (PNG).")
@ROOTS
@figures
def mask(
    run: Path,
    geometry: Path | None,
    masks: tuple[Path, ...],
    darks: tuple[Path, ...],
    settings: tuple[str, ...],
    out: Path,
    plot: Path | None,
    roots: tuple[Path, ...],
    invert_masks: bool,
) -> dict[str, Any]:
    """Make the mask of RUN: its own, its bad pixels, and what files and settings add."""
    from peaknet_pipeline.steps.mask_of_run import mask_command

    return mask_command(
        run,
        geometry=geometry,
        masks=masks,
        darks=darks,
        settings=settings,
        out=out,
        plot=plot,
        roots=roots,
        invert_masks=invert_masks,
    )
