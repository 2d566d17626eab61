"""Run keys, run files and what lies in the raw root."""

import os
import time

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peaknet_pipeline.errors import CellError, GeometryError, ParameterError, RunError
from peaknet_pipeline.store.experiment import read_experiment
from peaknet_pipeline.store.incoming import find_incoming_runs
from peaknet_pipeline.store.keys import RunKey, parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.raw_root import find_run_files

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(lambda s: "..." not in s)


@given(NAMES, st.integers(0, 999_999))
def test_keys_round_trip(experiment, number):
    assert parse_key(str(RunKey(experiment, number))) == RunKey(experiment, number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r0001",
        "exp",
        "exp-r1",
        "a/b-r0001",
        "../x-r0001",
        "a,b-r0001",
        "a...b-r0001",
        "é-r0001",
        "x\n-r0001",
        "x-r0001\n",
    ],
)
def test_keys_that_would_break_tools_are_refused(text):
    with pytest.raises(ParameterError, match="not a run key"):
        parse_key(text)


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "raw" / "lyso"
    folder.mkdir(parents=True)
    for name in ("a.geom", "a.cell", "r0001.h5"):
        (folder / name).write_bytes(b"x")
    return Store(tmp_path)


def settle(path, seconds):
    stamp = time.time() - seconds
    os.utime(path, (stamp, stamp))


def test_the_only_geometry_and_cell_are_taken(store):
    experiment = read_experiment(store, RunKey("lyso", 1))
    assert (experiment.geometry.name, experiment.cell.name) == ("a.geom", "a.cell")
    assert [p.name for p in find_run_files(store, RunKey("lyso", 1))] == ["r0001.h5"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("geometry: ../../secret.geom", ParameterError, "leads out of its folder"),
        ("geometry: none.geom", GeometryError, "no such file"),
        ("finder: 3", ParameterError, "section finder is not a mapping"),
        ("findr: {}", ParameterError, "unknown settings"),
        ("[1, 2", ParameterError, "not readable as YAML"),
        ("- 1", ParameterError, "not a mapping"),
    ],
)
def test_bad_settings_are_refused(store, text, error, message):
    (store.raw_root / "lyso" / "experiment.yaml").write_text(text)
    with pytest.raises(error, match=message):
        read_experiment(store, RunKey("lyso", 1))


def test_ambiguity_is_an_error(store):
    folder = store.raw_root / "lyso"
    (folder / "b.cell").write_bytes(b"x")
    (folder / "other_r0001.h5").write_bytes(b"x")
    with pytest.raises(CellError, match="2 files"):
        read_experiment(store, RunKey("lyso", 1))
    with pytest.raises(RunError, match="run 1 has 2 raw files"):
        find_run_files(store, RunKey("lyso", 1))
    with pytest.raises(RunError, match="run 9 has 0 raw files"):
        find_run_files(store, RunKey("lyso", 9))


def test_only_settled_unknown_runs_are_complete(store):
    folder = store.raw_root / "lyso"
    settle(folder / "r0001.h5", 100)
    (folder / "r0002.h5").write_bytes(b"x")
    (folder / "r0003.h5").write_bytes(b"")
    settle(folder / "r0003.h5", 100)
    found = find_incoming_runs(store, known=set())
    assert found.complete == ["lyso-r0001"]
    assert sorted(found.unsettled) == ["lyso-r0002", "lyso-r0003"]
    assert find_incoming_runs(store, known={"lyso-r0001"}).complete == []


def test_a_file_that_a_writer_holds_open_is_not_complete(store):
    path = store.raw_root / "lyso" / "r0004.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["data"] = [1, 2, 3]
        file.swmr_mode = True
        file.flush()
        settle(path, 100)
        assert "lyso-r0004" in find_incoming_runs(store, known=set()).unsettled
    settle(path, 100)
    assert "lyso-r0004" in find_incoming_runs(store, known=set()).complete


def test_folders_with_impossible_names_are_refused_not_dropped(store):
    (store.raw_root / "bad name").mkdir()
    (store.raw_root / "bad name" / "r0001.h5").write_bytes(b"x")
    found = find_incoming_runs(store, known=set())
    assert len(found.refused) == 1
    assert "not a run key" in found.refused[0][1]


def test_a_folder_named_like_a_euxfel_run_is_a_run_that_is_complete_with_its_files(tmp_path):
    folder = tmp_path / "raw" / "p900" / "r0042"
    folder.mkdir(parents=True)
    (tmp_path / "raw" / "p900" / "r0013.psana").write_text("exp: x\n")
    (tmp_path / "raw" / "p900" / "plots").mkdir()
    assert find_incoming_runs(Store(tmp_path), known=(), settle_s=0.0).unsettled == ["p900-r0042"]
    (folder / "CORR-R0042-AGIPD00-S00000.h5").write_bytes(b"data")
    assert set(find_incoming_runs(Store(tmp_path), known=(), settle_s=0.0).complete) == {
        "p900-r0042",
        "p900-r0013",
    }
    assert find_run_files(Store(tmp_path), parse_key("p900-r0042")) == (folder,)
