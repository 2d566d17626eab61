"""Benchmarks."""

from typing import Any

import click

from peaknet_pipeline.bench import registry
from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import SETTINGS, figures


@command()
@click.argument("name")
@SETTINGS
@figures
def bench(name: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """Run benchmark NAME; settings are its arguments."""
    if name == registry.OPERATION:
        from peaknet_pipeline.orchestration.scale import run

        return registry.call(name, run, settings)
    return registry.run(name, settings)


bench.help = f"{bench.help}\n\nNAME: {', '.join(registry.ALL)}."
