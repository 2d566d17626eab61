"""The finder's setting that indexes most."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import DATA, PATH, ROOTS, SETTINGS, figures
from peaknet_pipeline.errors import ParameterError


@command()
@click.argument("run", type=PATH)
@DATA
@click.option("--geometry", type=PATH, help="CrystFEL geometry, where RUN is a file.")
@click.option("--cell", type=PATH, help="Target unit cell, where RUN is a file.")
@SETTINGS
@ROOTS
@figures
def scan(
    run: Path,
    data: Path,
    geometry: Path | None,
    cell: Path | None,
    settings: tuple[str, ...],
    roots: tuple[Path, ...],
) -> dict[str, Any]:
    """Try a grid of peakfinder8 settings on a sample of RUN's frames; print the line for experiment.yaml that indexes most.

    RUN is a file, with --geometry and --cell, or the key of a run of the data root, such as lyso-r0001.
    """
    if run.exists():
        if geometry is None or cell is None:
            raise ParameterError(
                "a file needs its geometry and its cell",
                where=run,
                remedy=f"Type `peaknet scan {run} --geometry G.geom --cell C.cell`.",
            )
        from peaknet_pipeline.steps.scan_file import scan_command

        return scan_command(run, geometry=geometry, cell=cell, settings=settings, roots=roots)
    from peaknet_pipeline.params import read_settings
    from peaknet_pipeline.stages.finder_scan import finder_scan
    from peaknet_pipeline.store.layout import Store

    store = Store(data.resolve())
    made = finder_scan(store, str(run), overrides=read_settings(settings, where="peaknet scan"))
    return {**made.figures, "table": str(made.output)}
