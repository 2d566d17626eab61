"""The files of a lasting deployment."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import OutputFolder, command
from peaknet_pipeline.commands.options import NEW_DATA
from peaknet_pipeline.commands.tell import tell


@command()
@NEW_DATA
@click.option(
    "--out",
    type=OutputFolder(),
    required=True,
    help="Folder to write to; becomes the services' DAGSTER_HOME.",
)
@click.option(
    "--kind",
    type=click.Choice(["machine", "facility"]),
    default="machine",
    show_default=True,
    help="SQLite on one machine, or PostgreSQL for several.",
)
@click.option("--user", help="Who the services run as; by default you.")
@click.option("--force", is_flag=True, help="Overwrite files that were changed.")
def deploy(data: Path, out: Path, kind: str, user: str | None, force: bool) -> None:
    """Write the files of a lasting deployment: Dagster instance, systemd units, container, Slurm and Kubernetes."""
    from peaknet_pipeline.orchestration.deployment import write_deployment

    for path in write_deployment(out, kind=kind, data=data, user=user, force=force):
        tell(path)
