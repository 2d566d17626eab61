"""Peaks of one run."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import OutputFile, command, geometry_beside
from peaknet_pipeline.commands.options import (
    HITS_ONLY,
    INVERT_MASKS,
    MIN_PEAKS,
    PATH,
    ROOTS,
    RUN_GEOMETRY,
    SETTINGS,
    figures,
    finder_option,
)


@command()
@click.argument("run", type=PATH)
@RUN_GEOMETRY
@finder_option("peakfinder8")
@click.option("--model", type=PATH, help="Model folder for --finder peaknet; the shipped weights without it.")
@SETTINGS
@click.option(
    "--mask", "masks", type=PATH, multiple=True,
    help="Extra mask file (HDF5, CXI, numpy), non-zero is bad; may be repeated.",
)  # fmt: skip
@INVERT_MASKS
@click.option("--exclude-ice", is_flag=True, help="Drop the peaks on the rings of hexagonal ice.")
@click.option("--out", type=OutputFile(".parquet"), required=True, help="Peak table to write (Parquet).")
@click.option(
    "--cxi",
    type=OutputFile(".cxi", ".h5", beside=geometry_beside),
    help="Also write the peaks as a CXI file that CrystFEL reads.",
)
@click.option(
    "--segmentation",
    type=OutputFile(".h5", ".hdf5"),
    help="Also write the network's segmentation masks (HDF5).",
)
@HITS_ONLY
@MIN_PEAKS
@click.option("--images", is_flag=True, help="Copy the images into the CXI file, instead of linking to them.")
@ROOTS
@figures
def find(
    run: Path,
    geometry: Path | None,
    finder: str,
    model: Path | None,
    settings: tuple[str, ...],
    masks: tuple[Path, ...],
    exclude_ice: bool,
    out: Path,
    cxi: Path | None,
    segmentation: Path | None,
    hits_only: bool,
    min_peaks: int,
    images: bool,
    roots: tuple[Path, ...],
    invert_masks: bool,
) -> dict[str, Any]:
    """Find Bragg peaks in RUN, an HDF5 or CXI file."""
    from peaknet_pipeline.infer.params import OutputParams
    from peaknet_pipeline.steps.find_in_file import find_command

    output = OutputParams(
        hits_only=hits_only, min_peaks=min_peaks, images="copy" if images else "link",
        segmentation=segmentation is not None,
    )  # fmt: skip
    return find_command(
        run, geometry=geometry, finder=finder, model=model, settings=settings, masks=masks,
        exclude_ice=exclude_ice, out=out, cxi=cxi, segmentation=segmentation, output=output, roots=roots,
        invert_masks=invert_masks,
    )  # fmt: skip
