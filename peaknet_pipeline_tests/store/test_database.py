"""The tables of a data root answer SQL, and a query reaches nothing else."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import peaknet_pipeline as pn
from peaknet_pipeline.cli import peaknet
from peaknet_pipeline.errors import ParameterError, TableError
from peaknet_pipeline.schemas import GEOMETRY_TREND, INDEX, PEAKS, REFLECTIONS, SCORES, Schema
from peaknet_pipeline.store.database import ask, connect
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.tables import make_table, write_table

PAGE = Path(pn.__file__).parent / "docs" / "query.md"
QUESTIONS = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
KEYS = ("lyso-r0001", "lyso-r0002", "my-run.b-r0007")


def columns(schema: Schema, n: int, **given: object) -> pd.DataFrame:
    """Return a table of ones and empty texts with some columns given."""
    plain = {c.name: np.full(n, "") if c.dtype == "string" else np.ones(n) for c in schema.columns}
    return make_table(schema, plain | given)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root of three runs in two experiments: frames 0 … 3 with 20 peaks each, of which 0 and 2 index."""
    root = tmp_path_factory.mktemp("asked")
    store, frames = Store(root), np.repeat(np.arange(4), 20)
    for number, key in enumerate(KEYS):
        origin = {"experiment": key.rpartition("-r")[0], "run": key}
        peaks = columns(PEAKS, 80, frame=frames, inv_d=np.linspace(0.1, 0.5, 80), fs=np.arange(80))
        write_table(peaks, store.table("classical_peaks", key), PEAKS)
        write_table(
            columns(INDEX, 3, frame=[0, 2, 2], lattice=[0, 0, 1]), store.table("classical_index", key), INDEX
        )
        write_table(
            columns(
                REFLECTIONS, 6, inv_d=[0.11, 0.12, 0.21, 0.22, 0.31, 0.32],
                intensity=[8, 6, 4, 4, 2, 2], sigma=np.full(6, 2.0),
            ),
            store.table("classical_index/reflections", key), REFLECTIONS,
        )  # fmt: skip
        rates = {"finder": ["classical", "peaknet"], "hit_rate": [0.1 if number == 1 else 0.5, 0.5]}
        told = {name: [value] * 2 for name, value in origin.items()}
        write_table(columns(SCORES, 2, **rates, **told), store.table("run_metrics", key), SCORES)
        one = {name: [value] for name, value in origin.items()}
        write_table(
            columns(GEOMETRY_TREND, 1, **one), store.table("refined_geometry/trend", key), GEOMETRY_TREND
        )
    return root


@pytest.mark.parametrize("number", range(1, 11))
def test_each_question_of_the_page_has_an_answer(root, number):
    assert len(QUESTIONS) == 10
    answer = ask(connect(root), QUESTIONS[number - 1])
    assert len(answer) or number in (2, 7)


def test_answers_are_those_of_the_tables(root):
    database = connect(root)
    crystals = ask(database, QUESTIONS[2])
    reach = ask(database, QUESTIONS[4]).set_index("run")["resolution"]
    unindexed = ask(database, QUESTIONS[5])
    shells = ask(database, QUESTIONS[7])

    assert crystals.values.tolist() == [[key, n, 1] for key in KEYS for n in (1, 2)]
    indexed = np.linspace(0.1, 0.5, 80)[np.isin(np.repeat(np.arange(4), 20), (0, 2))]
    assert reach[KEYS[0]] == pytest.approx(1 / np.quantile(indexed, 0.95), rel=1e-5)
    assert unindexed[["run", "frame", "peaks"]].values.tolist() == [
        [key, f, 20] for key in KEYS for f in (1, 3)
    ]
    assert shells["i_over_sigma"].tolist() == pytest.approx([3.5, 2.0, 1.0])


def test_runs_and_experiments_are_told_from_the_names_of_files(root):
    found = ask(
        connect(root), "select experiment, run, count(*) as n from classical_index group by all order by run"
    )
    assert found.values.tolist() == [["lyso", KEYS[0], 3], ["lyso", KEYS[1], 3], ["my-run.b", KEYS[2], 3]]


def test_units_and_meanings_can_be_asked_for(root):
    told = ask(
        connect(root),
        "select unit, meaning from table_columns where table_name = 'classical_peaks' and column_name = 'inv_d'",
    )
    assert told.values.tolist() == [["Å⁻¹", "resolution 1/d; NaN without a geometry"]]


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('{secret}')",
        "select * from '{secret}'",
        "select * from read_text('{secret}')",
        "select * from glob('/*')",
        "select * from read_parquet('https://example.org/a.parquet')",
        "select * from secret_frame",
        "copy (select 1) to '{out}'",
        "attach '{out}' as other",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "reset lock_configuration",
        "create table a as select 1",
        "export database '{out}'",
        "pragma database_list; select 1",
        "select 1; select 2",
        "",
        "selec 1",
    ],
)
def test_nothing_but_reading_these_tables_is_possible(root, tmp_path, query):
    secret_frame = pd.DataFrame({"secret": [1]})
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text("a\n1\n")
    with pytest.raises(ParameterError, match=r"not one reading query|can't be answered"):
        ask(connect(root), query.format(secret=secret, out=out))
    assert not out.exists()
    assert len(secret_frame)


@pytest.mark.parametrize(
    "statement", ["copy (select 1) to '{out}'", "attach '{out}'", "set enable_external_access = true"]
)
def test_a_connection_in_python_can_write_no_file_either(root, tmp_path, statement):
    import duckdb

    out = tmp_path / "out"
    with pytest.raises(duckdb.Error):
        pn.connect(root).execute(statement.format(out=out))
    assert not out.exists()


def test_a_link_that_leads_out_of_the_root_is_no_table(root, tmp_path):
    outside = tmp_path / "elsewhere.parquet"
    write_table(columns(INDEX, 1), outside, INDEX)
    folder = root / "store" / "linked"
    folder.mkdir()
    (folder / "lyso-r0001.parquet").symlink_to(outside)
    with pytest.raises(ParameterError, match="linked"):
        ask(connect(root), "select * from linked")


def test_a_damaged_table_and_an_empty_root_are_told(root, tmp_path):
    with pytest.raises(TableError, match=r"no tables.*ingest a run"):
        connect(tmp_path)
    broken = tmp_path / "store" / "run_metrics" / "lyso-r0001.parquet"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(TableError, match=r"lyso-r0001.*not a readable Parquet file"):
        connect(tmp_path)


def test_the_command_lists_the_views_and_prints_answers(root):
    overview = CliRunner().invoke(peaknet, ["query", "--data", str(root)])
    answer = CliRunner().invoke(
        peaknet, ["query", "--data", str(root), "--csv", "select count(*) as n from classical_peaks"]
    )
    assert overview.exit_code == 0, overview.output
    assert "classical_index_reflections" in overview.output
    assert answer.output == "n\n240\n"
