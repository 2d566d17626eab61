"""The table of runs."""

from pathlib import Path

import click

from peaknet_pipeline.commands.options import DATA, JSON


@click.command()
@DATA
@JSON
def runs(data: Path, as_json: bool) -> None:
    """Print the table of runs: one row per run and finder, all rates with their denominators."""
    from peaknet_pipeline.stages.scoring import format_scores, read_all_scores
    from peaknet_pipeline.stages.store import Store

    scores = read_all_scores(Store(data))
    click.echo(scores.to_json(orient="records") if as_json else format_scores(scores))
