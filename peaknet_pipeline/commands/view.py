"""The page to look at frames."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import NewFilesFolder, command
from peaknet_pipeline.commands.options import DATA, PATH, ROOTS, RUN_GEOMETRY
from peaknet_pipeline.commands.tell import tell


@command()
@click.argument("what", nargs=-1, required=True)
@RUN_GEOMETRY
@click.option("--cell", type=PATH, help="Unit cell; needed for predicted reflections of lattice files.")
@click.option("--mask", "masks", type=PATH, multiple=True, help="Mask file to show; may be repeated.")
@DATA
@ROOTS
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free one."
)
@click.option(
    "--masks-to",
    "masks_to",
    type=NewFilesFolder(),
    default=Path(),
    show_default=True,
    help="Folder for masks that are drawn on the page, as RUN-drawn.h5; none that is there is replaced.",
)
def view(
    what: tuple[str, ...],
    geometry: Path | None,
    cell: Path | None,
    masks: tuple[Path, ...],
    data: Path,
    roots: tuple[Path, ...],
    host: str,
    port: int,
    masks_to: Path,
) -> None:
    """Look at frames in a browser: WHAT is a run's file and tables made from it, a run's key, or an experiment.

    Shows frames at full resolution, the peaks of each finder, lattices with their predicted reflections, masks by reason,
    resolution and ice rings; finds peaks anew while you change settings; saves a mask that you draw. Ctrl-C ends it.
    """
    from peaknet_pipeline.view.openers import Given, find_scenes
    from peaknet_pipeline.view.server import Viewer, serve

    viewer = Viewer(find_scenes(what, Given(geometry, cell, masks, roots, data)), masks_to)
    try:
        viewer.scene(0)  # what is wrong with the first run is told here
        serve(
            viewer,
            host=host,
            port=port,
            told=lambda address: tell(f"Open {address} in a browser; Ctrl-C ends it."),
        )
    finally:
        viewer.close()
