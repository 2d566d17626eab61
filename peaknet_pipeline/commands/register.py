"""Runs registered by hand."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import DATA
from peaknet_pipeline.commands.tell import tell


@command()
@DATA
@click.argument("keys", nargs=-1, required=True)
def register(data: Path, keys: tuple[str, ...]) -> None:
    """Register run KEYS (like lyso-r0001) as partitions; the sensor does the same by itself.

    A run without a raw file is refused.
    """
    from peaknet_pipeline.orchestration.instance import open_instance
    from peaknet_pipeline.orchestration.partitions import register_runs
    from peaknet_pipeline.store.layout import Store
    from peaknet_pipeline.store.raw_root import check_runs_have_files

    check_runs_have_files(Store(data), keys)
    added = register_runs(open_instance(Store(data)), list(keys))
    tell(f"registered {', '.join(added) or 'nothing new'}")
