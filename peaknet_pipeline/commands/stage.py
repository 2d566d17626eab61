"""One stage of the chain in this process."""

from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import PATH, figures


@command()
@click.argument("name")
@click.argument("key")
@click.option("--root", type=PATH, help="Data root; PEAKNET_DATA, or data, without it.")
@figures
def stage(name: str, key: str, root: Path | None) -> dict[str, Any]:
    """Run stage NAME of run KEY here, without Dagster's services; a Slurm job does this, and tells Dagster."""
    from peaknet_pipeline.orchestration.resources import default_root
    from peaknet_pipeline.orchestration.slurm_assets import run_stage_process
    from peaknet_pipeline.store.layout import Store

    return run_stage_process(name, key, Store(root or Path(default_root())))
