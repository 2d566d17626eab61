"""What a file is."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import JSON, PATH, ROOTS
from peaknet_pipeline.commands.tell import tell, tell_json


@command()
@click.argument("path", type=PATH)
@click.option(
    "--geometry", type=PATH, help="CrystFEL geometry to read a raw run, or a stream without one, with."
)
@click.option("--data-path", help="HDF5 path of the frames, where it is not found by itself.")
@ROOTS
@JSON
def inspect(
    path: Path, geometry: Path | None, data_path: str | None, roots: tuple[Path, ...], as_json: bool
) -> None:
    """Tell what PATH is (raw run, geometry, cell, table, stream, model, settings) and every problem at once.

    Exit status 2 if a problem keeps it from being processed.
    """
    from peaknet_pipeline.steps.inspect_file import format_inspection, inspect_file
    from peaknet_pipeline.store.inspect_settings import inspect_settings, is_settings_file

    if is_settings_file(path):
        report = inspect_settings(path)
    else:
        report = inspect_file(path, geometry=geometry, data_path=data_path, roots=roots)
    tell_json(report.to_dict()) if as_json else tell(format_inspection(report))
    if not report.is_usable:
        raise SystemExit(2)
