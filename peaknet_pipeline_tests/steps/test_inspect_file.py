"""``peaknet inspect``: every kind of file is named, and every problem told at once."""

import json

import h5py
import numpy as np
import pytest

from peaknet_pipeline.cli import main
from peaknet_pipeline.learn.checkpoint import SHIPPED_FOLDER, shipped_models
from peaknet_pipeline.runs.masks import write_mask
from peaknet_pipeline.schemas import INDEX, PEAKS
from peaknet_pipeline.steps.inspect_file import format_inspection, inspect_file
from peaknet_pipeline.tables import empty_table, write_table
from peaknet_pipeline_tests.runs.files import slab_geometry, write_slab_run

CELL = """CrystFEL unit cell file version 1.0
lattice_type = tetragonal
centering = P
unique_axis = c
a = 79.1 A
b = 79.1 A
c = 37.9 A
al = 90 deg
be = 90 deg
ga = 90 deg
"""


def test_a_raw_run_is_described_with_its_compression_and_frames(tmp_path):
    write_slab_run(tmp_path / "run.cxi")
    (tmp_path / "run.geom").write_text(slab_geometry().text)
    report = inspect_file(tmp_path / "run.cxi", geometry=tmp_path / "run.geom")
    assert report.is_usable
    text = format_inspection(report)
    assert text.startswith(f"{tmp_path / 'run.cxi'}: cxi\n")
    assert text.endswith("\nusable")
    assert report.facts["compression"] == "bitshuffle-LZ4"
    assert "photon energy, eV         9500\n" in text


def test_every_problem_of_a_run_is_told_and_numbered(tmp_path, capsys):
    write_slab_run(tmp_path / "run.cxi")
    broken = slab_geometry("mask0_data = /nowhere\n").text.replace("9500 eV", "/energies")
    (tmp_path / "run.geom").write_text(broken)
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(tmp_path / "run.cxi"), "--geometry", str(tmp_path / "run.geom")])
    assert stop.value.code == 2
    out = capsys.readouterr().out
    assert "2 problems that keep it from being processed" in out
    assert "/nowhere" in out
    assert "/energies" in out


def test_tables_cells_and_models_are_told_apart(tmp_path, capsys):
    write_table(empty_table(PEAKS), tmp_path / "peaks.parquet", PEAKS, extra={"run": "lyso-r0001"})
    table = inspect_file(tmp_path / "peaks.parquet")
    assert (table.kind, table.facts["rows"], table.facts["run"]) == ("table peaks", 0, "lyso-r0001")
    (tmp_path / "lyso.cell").write_text(CELL)
    cell = inspect_file(tmp_path / "lyso.cell")
    assert (cell.kind, cell.facts["c"], cell.facts["lattice_type"]) == ("unit cell", 37.9, "tetragonal")
    main(["inspect", "--json", str(SHIPPED_FOLDER / shipped_models()[0])])
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "network"
    assert told["facts"]["parameters"] > 10_000


@pytest.mark.parametrize(
    "name", ["gone.h5", "broken.parquet", "broken.cell", "broken.stream", "broken.h5", "empty"]
)
def test_a_bad_file_is_a_problem_in_words_never_a_crash(tmp_path, name):
    (tmp_path / "empty").mkdir()
    if name.startswith("broken"):
        (tmp_path / name).write_bytes(np.random.default_rng(1).bytes(200))
    report = inspect_file(tmp_path / name)
    assert len(report.problems) == 1
    assert name in report.problems[0]
    assert "not usable" in format_inspection(report)


def test_a_table_that_breaks_its_schema_lists_all_breaches(tmp_path):
    write_table(empty_table(INDEX), tmp_path / "x.parquet", INDEX)
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "x.parquet")
    metadata = table.schema.metadata
    pq.write_table(
        table.drop_columns(["astar_x", "residual"]).replace_schema_metadata(metadata), tmp_path / "x.parquet"
    )
    assert [p.split(": ")[1] for p in inspect_file(tmp_path / "x.parquet").problems] == [
        "column astar_x is missing",
        "column residual is missing",
    ]


def test_masks_packed_files_and_texts_are_told_by_what_they_are(tmp_path):
    layers = {"hot": np.zeros((2, 8, 9), bool), "dead": np.zeros((2, 8, 9), bool)}
    layers["hot"][0, 1, 2] = layers["dead"][1, 3, 4] = True
    write_mask(layers["hot"] | layers["dead"], tmp_path / "mask.h5", layers=layers)
    report = inspect_file(tmp_path / "mask.h5")
    assert (report.kind, report.facts["bad pixels"], report.is_usable) == ("mask", 2, True)
    for name, told in (("run.cxi.gz", "gunzip"), ("spots.csv", "no command reads it")):
        (tmp_path / name).write_bytes(b"any")
        report = inspect_file(tmp_path / name)
        assert not report.is_usable
        assert told in report.problems[0]


def test_a_list_of_vectors_is_not_taken_for_frames_without_a_doubt(tmp_path):
    with h5py.File(tmp_path / "q.h5", "w") as file:
        file["q"] = np.zeros((5, 40, 3))
    assert any("no detector's" in doubt for doubt in inspect_file(tmp_path / "q.h5").doubts)


def test_a_folder_without_files_of_a_run_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("no run")
    (problem,) = inspect_file(tmp_path).problems
    assert "no file in this folder bears the name of a run" in problem
