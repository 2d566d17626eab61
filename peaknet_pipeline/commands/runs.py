"""The table of runs."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import DATA, JSON
from peaknet_pipeline.commands.tell import tell


@command()
@DATA
@click.argument("experiment", required=False)
@click.option(
    "--finders", is_flag=True, help="A row per run and finder instead, with control, precision and recall."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print every column as CSV.")
@JSON
def runs(data: Path, experiment: str | None, finders: bool, as_csv: bool, as_json: bool) -> None:
    """Print the table of runs, of one EXPERIMENT or all: status, counts beside rates, and why a run failed.

    Files that are not taken for runs are listed below it, with the reason.
    """
    from peaknet_pipeline.orchestration.registered import registered_keys
    from peaknet_pipeline.stages.run_table import check_known, format_runs, run_table
    from peaknet_pipeline.store.layout import Store
    from peaknet_pipeline.store.raw_root import format_not_taken, read_raw_root
    from peaknet_pipeline.store.scores import format_scores, read_all_scores

    store = Store(data)
    raw = read_raw_root(store)
    table = read_all_scores(store) if finders else run_table(store, registered_keys(store), raw=raw)
    left_out = raw.left_out
    if experiment is not None:
        check_known(experiment, {*table["experiment"], *(path.name for path, _ in left_out)}, store)
        table = table[table["experiment"] == experiment]
        left_out = [one for one in left_out if one[0].is_relative_to(store.raw_root / experiment)]
    if as_json:
        tell(table.to_json(orient="records"))
    elif as_csv:
        tell(table.to_csv(index=False), nl=False)
    else:
        tell(format_scores(table) if finders else format_runs(table))
    for line in format_not_taken(left_out):
        tell(line, err=as_json or as_csv)
