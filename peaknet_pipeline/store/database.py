"""A database to ask: all Parquet tables of a data root as views of DuckDB, which itself may touch no file.

A table ``store/<stage>/<run>.parquet`` is part of the view ``<stage>``, one in a folder below, ``store/<stage>/<part>/…``, of
the view ``<stage>_<part>``. Every row tells its ``experiment`` and ``run``. The view ``table_columns`` tells every column with
its unit and meaning. The files are read through Arrow data sets, so that DuckDB needs no right to open anything: file
functions, attached databases, extensions, network and changes of its settings are all refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from peaknet_pipeline.errors import ParameterError, TableError
from peaknet_pipeline.records import describe
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store

COLUMNS = "table_columns"
"""The view that tells every column of every view."""

LOCKED = {
    "temp_directory": "''",
    "memory_limit": "'4GB'",
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "allow_community_extensions": "false",
    "lock_configuration": "true",
}
"""What keeps a query inside the data root; the last one forbids changing the others."""

READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


@dataclass(frozen=True)
class _View:
    """The files behind a view, in order of their names; ``per_run`` where each is a run's."""

    name: str
    paths: tuple[Path, ...]
    per_run: bool


def connect(root: Path | str = "data") -> duckdb.DuckDBPyConnection:
    """Open the tables of a data root as a DuckDB connection in memory; nothing that is asked there can change a file.

    Parameters
    ----------
    root : Path or str
        The data root. The views are those of the tables that lie there now; new runs need a new connection.

    Raises
    ------
    TableError
        There are no tables, or the first or last one of a view can't be read.

    """
    views = _views(Store(Path(root)))
    if not views:
        raise TableError(
            "no tables", where=Path(root) / "store", remedy="Give the data root; ingest a run first."
        )
    connection = duckdb.connect(":memory:")
    told = []
    for view in views:
        data = _dataset(view)
        connection.register(view.name, data)
        told += [_describe(view.name, field) for field in data.schema]
    connection.register(COLUMNS, pa.Table.from_pylist(told))
    for name, value in LOCKED.items():
        connection.execute(f"SET {name} = {value}")
    return connection


def ask(connection: duckdb.DuckDBPyConnection, query: str) -> pd.DataFrame:
    """Return the answer to one reading query (SELECT, DESCRIBE, EXPLAIN …).

    Raises
    ------
    ParameterError
        It is no single reading query, or DuckDB refuses it.

    """
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type not in READING:
            raise ParameterError(
                "not one reading query",
                where=query.strip() or "(empty)",
                expected="one SELECT",
                found=", ".join(statement.type.name for statement in statements) or "nothing",
            )
        answer: pd.DataFrame = connection.execute(statements[0]).df()
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise ParameterError(
            f"the query can't be answered ({describe(error)})",
            where=query.strip(),
            remedy=f"The view {COLUMNS} tells all views and their columns.",
        ) from error
    return answer


def _views(store: Store) -> list[_View]:
    """Return the views of all tables that lie in the root; links that lead out of it don't count."""
    folder = (store.root / "store").resolve()
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        if path.resolve().is_relative_to(folder):
            name = "_".join(path.parent.relative_to(folder).parts).replace("-", "_")
            found.setdefault(name, []).append(path)
    made = (_View(name, tuple(paths), paths[0].stem != "all") for name, paths in found.items() if name)
    return sorted(made, key=lambda view: view.name)


def _dataset(view: _View) -> ds.FileSystemDataset:
    """Return a view's files as one data set, with experiment and run of each where its table doesn't tell them."""
    schema = _schema(view)
    form = ds.ParquetFileFormat()
    fragments = [_fragment(form, path, view) for path in view.paths]
    return ds.FileSystemDataset(fragments, schema, form, fragments[0].filesystem)


def _fragment(form: Any, path: Path, view: _View) -> Any:
    where = pa.fs.LocalFileSystem()
    if not view.per_run:
        return form.make_fragment(str(path), where)
    key = parse_key(path.stem)
    told = (ds.field("run") == str(key)) & (ds.field("experiment") == key.experiment)
    return form.make_fragment(str(path), where, partition_expression=told)


def _schema(view: _View) -> pa.Schema:
    """Return the columns of the first and the last file: a table may have got columns since the first one was made."""
    schemas = []
    for path in dict.fromkeys((view.paths[0], view.paths[-1])):
        try:
            schemas.append(pq.read_schema(path).remove_metadata())
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"not a readable Parquet file ({describe(error)})", where=path) from error
    told = {"experiment": "experiment name", "run": "partition key of the run"} if view.per_run else {}
    names = [name for name in told if name not in schemas[-1].names]
    own = [pa.field(name, pa.string(), metadata={"unit": "", "meaning": told[name]}) for name in names]
    return pa.schema([*own, *pa.unify_schemas(schemas[::-1], promote_options="permissive")])


def _describe(table: str, field: pa.Field) -> dict[str, str]:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return {
        "table_name": table,
        "column_name": field.name,
        "type": str(field.type),
        "unit": metadata.get("unit", ""),
        "meaning": metadata.get("meaning", ""),
    }
