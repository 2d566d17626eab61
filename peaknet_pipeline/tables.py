"""Tables on disk: Parquet with a declared schema, column meanings and units, written atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from peaknet_pipeline.atomic import replace_atomically, write_file
from peaknet_pipeline.errors import TableError
from peaknet_pipeline.records import describe
from peaknet_pipeline.schemas import MADE_WITH, SCHEMAS, Column, Schema

FOREIGN = (ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError, RecursionError)
"""What pandas raises over a table, or the note in its metadata, of another program."""


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_file(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def empty_table(schema: Schema) -> pd.DataFrame:
    """Return a table without rows that follows the schema."""
    return pd.DataFrame({c.name: pd.Series(dtype=_pandas_dtype(c)) for c in schema.columns})


def make_table(schema: Schema, columns: Mapping[str, object]) -> pd.DataFrame:
    """Build a table from columns, cast to the declared dtypes; absent nullable columns become NaN.

    Raises
    ------
    TableError
        A column is missing or unknown, or the table breaks its schema.

    """
    unknown = set(columns) - set(schema.column_names())
    if unknown:
        raise TableError("unknown columns", where=schema.name, found=sorted(unknown))
    table = pd.DataFrame({name: _plain(value) for name, value in columns.items()})
    for column in schema.columns:
        if column.name in table:
            table[column.name] = _as_declared(table[column.name], column, schema)
        elif column.nullable:
            table[column.name] = pd.Series(np.nan, index=table.index, dtype=_pandas_dtype(column))
    table = table.reindex(columns=[n for n in schema.column_names() if n in table])
    check_table(table, schema)
    return table


def _as_declared(values: "pd.Series[Any]", column: Column, schema: Schema) -> "pd.Series[Any]":
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is told by the check
            return values.astype(np.dtype(_pandas_dtype(column)))
    except (ValueError, TypeError, OverflowError) as error:
        what = f"column {column.name} cannot be {column.dtype} ({describe(error)})"
        raise TableError(what, where=f"table {schema.name}") from error


def check_table(table: pd.DataFrame, schema: Schema) -> None:
    """Raise TableError, naming every problem at once, unless the table follows the schema."""
    problems = table_problems(table, schema)
    if problems:
        raise TableError("; ".join(problems), where=f"table {schema.name}")


def table_problems(table: pd.DataFrame, schema: Schema) -> list[str]:
    """List what keeps the table from following the schema: missing or extra columns, dtypes, nulls, infinities."""
    problems = [f"column {c.name} is missing" for c in schema.columns if c.name not in table]
    problems += [f"column {n} is not declared" for n in table.columns if n not in schema.column_names()]
    for column in schema.columns:
        if column.name in table:
            problems += _column_problems(table[column.name], column)
    return problems


def write_table(
    table: pd.DataFrame, path: Path, schema: Schema, *, extra: Mapping[str, str] | None = None
) -> None:
    """Write a table as Parquet with meanings and units in its schema, atomically.

    ``extra`` goes into the file's key-value metadata (provenance: model version, parameters hash).
    """
    check_table(table, schema)
    arrow = pa.Table.from_pandas(
        table[schema.column_names()], schema=arrow_schema(schema), preserve_index=False
    )
    metadata = {**(arrow.schema.metadata or {}), **{k.encode(): v.encode() for k, v in (extra or {}).items()}}
    with replace_atomically(path) as temporary:
        pq.write_table(arrow.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_table(path: Path, schema: Schema, *, check: bool = True) -> pd.DataFrame:
    """Read a Parquet table and, unless told otherwise, check it against its schema.

    Raises
    ------
    TableError
        The file is missing, not Parquet, or breaks the schema.

    """
    if not path.is_file():
        raise TableError(
            "no such table", where=path, remedy=_made_with(schema) or "Make the stage that writes it first."
        )
    try:
        table: pd.DataFrame = pq.read_table(path).to_pandas()
    except (pa.ArrowException, OSError, *FOREIGN) as error:
        raise TableError(
            f"not a readable Parquet file ({describe(error)})", where=path, remedy=_made_with(schema)
        ) from error
    for column in schema.columns:
        if column.dtype == "string" and column.name in table:
            table[column.name] = table[column.name].astype(np.dtype(_pandas_dtype(column)))
    if check:
        _check_kind(table, schema, path)
        problems = table_problems(table, schema)
        if problems:
            raise TableError(
                "; ".join(problems), where=f"{path} (table {schema.name})", remedy=_made_with(schema)
            )
    return table


def _check_kind(table: pd.DataFrame, schema: Schema, path: Path) -> None:
    """Refuse a table of another kind by its name: a list of all columns that are missing would not tell."""
    given = next((s for s in SCHEMAS.values() if set(s.column_names()) == set(table.columns)), schema)
    if given is not schema and set(given.column_names()) != set(schema.column_names()):
        raise TableError(
            "a table of another kind",
            where=path,
            expected=f"{schema.name} ({schema.meaning.rstrip('.')})",
            found=f"{given.name} ({given.meaning.rstrip('.')})",
            remedy=_made_with(schema),
        )


def _made_with(schema: Schema) -> str | None:
    made = MADE_WITH.get(schema.name)
    return f"`{made}` makes one." if made else None


def read_table_metadata(path: Path) -> dict[str, str]:
    """Return the key-value metadata of a Parquet file, without Arrow's and pandas's own.

    Raises
    ------
    TableError
        The file is missing or not Parquet.

    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(f"not a readable Parquet file ({describe(error)})", where=path) from error
    told = {k: v for k, v in metadata.items() if k not in (b"pandas", b"ARROW:schema")}
    return {k.decode(errors="replace"): v.decode(errors="replace") for k, v in told.items()}


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the Arrow schema, with ``unit`` and ``meaning`` in each field's metadata."""
    fields = [
        pa.field(
            c.name,
            pa.string() if c.dtype == "string" else pa.from_numpy_dtype(np.dtype(c.dtype)),
            nullable=c.nullable,
            metadata={"unit": c.unit, "meaning": c.meaning},
        )
        for c in schema.columns
    ]
    return pa.schema(fields, metadata={"table": schema.name, "meaning": schema.meaning})


def _plain(value: object) -> object:
    return value.to_numpy() if isinstance(value, pd.Series) else value


def _pandas_dtype(column: Column) -> str:
    return "object" if column.dtype == "string" else column.dtype


def _column_problems(values: "pd.Series[Any]", column: Column) -> list[str]:
    if column.dtype == "string":
        bad = sum(not isinstance(v, str) for v in values)
        return [f"column {column.name} has {bad} values that are not text"] if bad else []
    if values.dtype != np.dtype(column.dtype):
        return [f"column {column.name} is {values.dtype}, expected {column.dtype}"]
    if values.dtype.kind != "f":
        return []
    array = values.to_numpy()
    problems = []
    if np.isinf(array).any():
        problems.append(f"column {column.name} has {int(np.isinf(array).sum())} infinite values")
    if not column.nullable and np.isnan(array).any():
        problems.append(f"column {column.name} has {int(np.isnan(array).sum())} NaN")
    return problems
