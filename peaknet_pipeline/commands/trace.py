"""The chain behind an output."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import JSON, PATH
from peaknet_pipeline.commands.tell import tell, tell_json


@command()
@click.argument("file", type=PATH)
@JSON
def trace(file: Path, as_json: bool) -> None:
    """Print what FILE was made from: a table, CXI file, model folder, label file or report.

    Every file on the way up to the raw runs is compared with what was recorded; exit status 2 if one is missing or changed.
    """
    from peaknet_pipeline.store.trace import format_trace, trace_file

    step = trace_file(file)
    tell_json(step.to_dict()) if as_json else tell(format_trace(step))
    if any(part.problems for part in step.walk()):
        raise SystemExit(2)
