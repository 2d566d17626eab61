"""Dagster's web server on the data root."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import NEW_DATA
from peaknet_pipeline.commands.tell import tell


@command()
@NEW_DATA
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on."
)
def ui(data: Path, host: str, port: int) -> None:
    """Open the Dagster web server (and daemon) on the data root's instance."""
    from peaknet_pipeline.orchestration.instance import serve_ui
    from peaknet_pipeline.store.layout import Store

    address = f"http://{host}:{port}"
    serve_ui(
        Store(data), host=host, port=port, claimed=lambda: tell(f"Dagster UI: {address}  (Ctrl-C stops it)")
    )
