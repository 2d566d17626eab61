"""Runs taken through the chain from a terminal."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import DATA
from peaknet_pipeline.commands.tell import tell


@command()
@DATA
@click.argument("keys", nargs=-1)
@click.option("--experiment", help="All runs of this experiment; with --follow the new ones too.")
@click.option(
    "--until",
    metavar="STAGE",
    help="Last stage to make, such as classical_index or finder_scan, with what it needs; rates of both finders without it.",
)
@click.option("--follow", is_flag=True, help="Go on with new runs as their files are complete, until Ctrl-C.")
def run(data: Path, keys: tuple[str, ...], experiment: str | None, until: str | None, follow: bool) -> None:
    """Take run KEYS (like lyso-r0001) through the chain, in Dagster: a line per stage, then the table of runs.

    What is current is not made again. A run that fails is told in one line, and the others go on; exit status 2.
    """
    from peaknet_pipeline.orchestration.run_chain import run_keys
    from peaknet_pipeline.stages.run_table import format_runs, run_table
    from peaknet_pipeline.store.layout import Store

    store, tried = Store(data), list[str]()
    try:
        run_keys(store, keys, experiment=experiment, until=until, follow=follow, say=tell, tried=tried)
    finally:
        if tried:
            table = run_table(store, tried)
            tell("")
            tell(format_runs(table[table["run"].isin(tried)]))
