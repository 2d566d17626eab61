"""Tables: schema, meanings and units on disk; nothing half-written."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.schemas import INDEX, PEAKS, SCHEMAS, SCORES
from peaknet_pipeline.tables import (
    empty_table,
    make_table,
    read_table,
    read_table_metadata,
    table_problems,
    write_table,
)


def peaks(n=3):
    columns = {c.name: np.ones(n) for c in PEAKS.columns if not c.nullable}
    return make_table(PEAKS, columns)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda s: s.name)
def test_every_empty_table_follows_its_schema_through_the_disk(schema, tmp_path):
    write_table(empty_table(schema), tmp_path / "t.parquet", schema)
    table = read_table(tmp_path / "t.parquet", schema)
    assert len(table) == 0
    assert list(table.columns) == schema.column_names()


def test_units_and_meanings_are_in_the_file(tmp_path):
    write_table(peaks(), tmp_path / "p.parquet", PEAKS, extra={"model": "v3"})
    field = pq.read_schema(tmp_path / "p.parquet").field("fs")
    assert field.metadata[b"unit"] == b"px"
    assert b"fast-scan" in field.metadata[b"meaning"]
    assert read_table_metadata(tmp_path / "p.parquet")["model"] == "v3"
    assert list(pd.read_parquet(tmp_path / "p.parquet").columns) == PEAKS.column_names()


def test_every_problem_is_named_at_once():
    table = peaks().drop(columns="snr")
    table["fs"] = [np.nan, 1.0, 2.0]
    table["ss"] = np.array([np.inf, 1.0, 2.0], dtype=np.float32)
    table["extra"] = 1
    problems = " | ".join(table_problems(table, PEAKS))
    for word in ("snr is missing", "extra is not declared", "fs is float64", "ss has 1 infinite"):
        assert word in problems


def test_a_wrong_table_is_not_written(tmp_path):
    with pytest.raises(TableError, match="snr is missing"):
        write_table(peaks().drop(columns="snr"), tmp_path / "p.parquet", PEAKS)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "p.parquet"
    write_table(peaks(), path, PEAKS)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TableError, match=r"p\.parquet: not a readable Parquet file"):
        read_table(path, PEAKS)
    with pytest.raises(TableError, match="no such table"):
        read_table(tmp_path / "absent.parquet", SCORES)


def test_a_table_of_another_kind_is_named_with_the_command_that_makes_the_right_one(tmp_path):
    path = tmp_path / "lattices.parquet"
    write_table(empty_table(INDEX), path, INDEX)
    with pytest.raises(
        TableError,
        match=r"lattices\.parquet: a table of another kind, expected peaks .*found lattices .*peaknet find",
    ):
        read_table(path, PEAKS)
