"""The report of an experiment."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import DATA
from peaknet_pipeline.commands.tell import tell


@command()
@DATA
@click.argument("experiment")
def report(data: Path, experiment: str) -> None:
    """Write one self-contained HTML page about EXPERIMENT: runs, rates, detector, frames, peaks, lattices, networks."""
    from peaknet_pipeline.orchestration.registered import registered_keys
    from peaknet_pipeline.stages.reporting import report_command
    from peaknet_pipeline.store.layout import Store

    store = Store(data)
    tell(report_command(store, experiment, registered_keys(store)))
