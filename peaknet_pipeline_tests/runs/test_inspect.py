"""``inspect_path`` says what a file is and lists every problem and doubt."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.runs.inspect import inspect_path
from peaknet_pipeline_tests.runs.files import (
    module_geometry,
    random_stack,
    slab_geometry,
    write_run,
    write_slab_run,
)


def test_a_good_run_is_described(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi")
    report = inspect_path(tmp_path / "run.cxi", slab_geometry())
    assert report.is_usable
    assert report.doubts == []
    assert report.kind == "cxi"
    assert report.facts["frames"] == 4
    assert report.facts["photon energy, eV"] == [9500.0, 9500.0]
    assert set(report.facts["frames looked at"]) == {0, 2, 3}
    json.dumps(report.to_dict(), default=float)


def test_every_problem_is_listed(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi")
    text = slab_geometry("mask0_data = /nowhere\n").text.replace("9500 eV", "/energies")
    report = inspect_path(tmp_path / "run.cxi", parse_geometry(text))
    assert len(report.problems) == 2
    assert any("/nowhere" in p for p in report.problems)
    assert any("/energies" in p for p in report.problems)


def test_doubts_are_told_but_keep_nothing_back(tmp_path: Path) -> None:
    frames = random_stack(3, dtype="float32")
    frames[0, 0, 0, 0] = np.nan
    frames[2] = 7
    write_run(tmp_path / "run.cxi", frames)
    text = module_geometry().text.replace("9500 eV", "9.5 eV").replace("0.1 m", "100")
    report = inspect_path(tmp_path / "run.cxi", parse_geometry(text))
    assert report.is_usable
    for words in ("are unusual", "1 good pixels without a value", "value 7 everywhere", "more than 20 m"):
        assert any(words in doubt for doubt in report.doubts), words


def test_a_file_without_images_lists_its_data_sets(tmp_path: Path) -> None:
    write_run(tmp_path / "x.h5", np.zeros((5, 1, 1), np.int32), data_path="/table")
    report = inspect_path(tmp_path / "x.h5")
    assert not report.is_usable
    assert report.facts["data sets"] == ["/table int32 (5, 1, 1)"]


def test_damaged_and_missing_files_are_problems_and_no_exceptions(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "cut.cxi")
    os.truncate(tmp_path / "cut.cxi", 3000)
    assert "truncated" in inspect_path(tmp_path / "cut.cxi").problems[0]
    assert "no such file" in inspect_path(tmp_path / "none.cxi").problems[0]
    (tmp_path / "bad.geom").write_text("hello")
    assert "key = value" in inspect_path(tmp_path / "bad.geom").problems[0]


def test_a_geometry_is_described_and_doubted(tmp_path: Path) -> None:
    text = (
        slab_geometry()
        .text.replace("m1/min_ss = 6", "m1/min_ss = 4")
        .replace("m2/fs = x", "m2/fs = 1.1x+0.1y")
    )
    (tmp_path / "d.geom").write_text(text)
    report = inspect_path(tmp_path / "d.geom")
    assert report.kind == "CrystFEL geometry"
    assert report.facts["panels"] == 3
    assert any("m0 and m1 share pixels" in doubt for doubt in report.doubts)
    assert any("m2 are not at right angles" in doubt for doubt in report.doubts)


@pytest.mark.parametrize("name", ["snase/stills.h5", "crystfel_simulated/jf4m.cxi", "thaumatin/stills.h5"])
def test_real_runs_have_no_problems(realdata: Path, name: str) -> None:
    path = realdata / name
    geom = path.with_suffix(".geom") if path.suffix == ".cxi" else path.parent / "stills.geom"
    report = inspect_path(path, geom)
    assert report.is_usable
    low, high = report.facts["resolution, Å"]
    assert 1.0 < low < 2.2
    assert high > 20
