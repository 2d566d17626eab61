"""The demo: a simulated experiment through the whole chain."""

import time
from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import DATA


@command()
@DATA
def demo(data: Path) -> None:
    """Simulate a small experiment and take it through the whole chain, in Dagster."""
    from peaknet_pipeline.orchestration.demo import run_demo
    from peaknet_pipeline.stages.reporting import report_path
    from peaknet_pipeline.store.layout import Store
    from peaknet_pipeline.store.paths import summary_path
    from peaknet_pipeline.store.scores import format_scores, read_all_scores

    store = Store(data)
    started = time.perf_counter()
    run_demo(store, say=click.echo)
    click.echo("")
    click.echo(format_scores(read_all_scores(store)))
    click.echo("")
    click.echo("  hit rate = hits / frames; indexing rate = indexed hits / hits; yield = indexed / frames;")
    click.echo(
        "  false index = azimuth-scrambled hits that index. demo-r0005 (test) was never seen in training."
    )
    click.echo("")
    click.echo(f"  tables   {data / 'store'}/*/*.parquet, all runs together {summary_path(store, 'all')}")
    click.echo(f"  plots    {data / 'store'}/*/plots/*.png")
    click.echo(f"  report   {report_path(store)}")
    click.echo(f"  UI       peaknet ui --data {data}")
    click.echo(f"  done in {time.perf_counter() - started:.0f} s")
