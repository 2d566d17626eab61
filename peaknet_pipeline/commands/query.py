"""Questions to all tables of a data root."""

from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import DATA, JSON
from peaknet_pipeline.commands.tell import tell

OVERVIEW = """\
select table_name, count(*) as columns, string_agg(column_name, ', ') as names from table_columns
group by table_name order by table_name"""


@command()
@DATA
@click.argument("sql", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Print the answer as CSV.")
@JSON
def query(data: Path, sql: str | None, as_csv: bool, as_json: bool) -> None:
    """Answer a SQL question (DuckDB) to all tables of the data root; without SQL, list them with their columns.

    Only reading is possible, and only of these tables.
    """
    from peaknet_pipeline.store.database import ask, connect

    answer = ask(connect(data), OVERVIEW if sql is None else sql)
    if as_json:
        tell(answer.to_json(orient="records", date_format="iso"))
    elif as_csv:
        tell(answer.to_csv(index=False), nl=False)
    else:
        tell(answer.to_string(index=False, max_colwidth=100) if len(answer) else "no rows")
