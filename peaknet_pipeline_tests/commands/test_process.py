"""``peaknet process`` and ``peaknet scan``: a file to rates, and to the line for ``experiment.yaml``."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from peaknet_pipeline.cli import main
from peaknet_pipeline.schemas import INDEX, PEAKS
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.steps.process_file import choose_shown
from peaknet_pipeline.tables import read_table

FINDER = ("--set", "threshold=70", "--set", "max_pix=60")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A simulated run with its geometry and cell."""
    folder = tmp_path_factory.mktemp("raw")
    experiment = demo_experiment(5, name="small")
    write_experiment_files(experiment, folder)
    simulate_run(experiment, folder / "r0001.h5", n_frames=8, seed=31, run_number=1)
    return folder


def figures(capsys, *arguments):
    """Return what a command prints as JSON."""
    main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def given(raw):
    """Return run, geometry and cell as arguments."""
    return raw / "r0001.h5", "--geometry", next(raw.glob("*.geom")), "--cell", next(raw.glob("*.cell"))


def test_one_command_gives_what_find_and_index_give(raw, tmp_path, capsys):
    run, *rest = given(raw)
    told = figures(capsys, "process", run, *rest, *FINDER, "--out", tmp_path / "all")
    figures(capsys, "find", run, *rest[:2], *FINDER, "--out", tmp_path / "peaks.parquet")
    figures(capsys, "index", tmp_path / "peaks.parquet", *rest, "--out", tmp_path / "lattices.parquet")
    for name, schema in (("peaks.parquet", PEAKS), ("lattices.parquet", INDEX)):
        pd.testing.assert_frame_equal(
            read_table(tmp_path / "all" / name, schema), read_table(tmp_path / name, schema)
        )
    lattices = read_table(tmp_path / "lattices.parquet", INDEX)
    assert f"({lattices['frame'].nunique()} of 8 frames" in told["indexing_yield"]
    assert told["control"].startswith("0 of ")
    assert (tmp_path / "all" / "run.stream").read_text().count("Begin chunk") == 8
    assert (tmp_path / "all" / "frames.png").read_bytes().startswith(b"\x89PNG")
    figures(capsys, "process", run, *rest, *FINDER, "--out", tmp_path / "all")  # its own files are replaced


def test_a_run_that_does_not_index_says_why(raw, tmp_path, capsys):
    told = figures(capsys, "process", *given(raw), "--set", "threshold=60000", "--out", tmp_path / "none")
    assert told["hit_rate"].startswith("0.0% (0 of 8 frames")
    assert any("blank run" in line for line in told["reasons"])
    assert told["pictures"] == ["first: frame 0"]


def test_the_frames_shown_are_the_best_the_median_and_the_richest_missed_hit():
    lattices = pd.DataFrame({"frame": [1, 2, 3, 3], "n_explained": [10, 30, 15, 5]})
    frames = [1] * 15 + [4] * 16 + [5] * 20 + [6] * 3
    peaks = pd.DataFrame({"frame": frames, "score": np.full(len(frames), np.nan)})
    shown = choose_shown(peaks, lattices, min_peaks=15)
    assert [(one.why, one.frame) for one in shown] == [("best", 2), ("typical", 3), ("missed", 5)]


def test_a_scan_of_a_file_prints_a_line_that_experiment_yaml_takes(raw, capsys):
    grid = (
        "--set",
        "threshold=70,60000",
        "--set",
        "min_snr=5",
        "--set",
        "min_pix=2",
        "--set",
        "local_bg_radius=4",
    )
    told = figures(capsys, "scan", *given(raw), *grid)
    line = yaml.safe_load(told["line_for_experiment_yaml"])
    assert line["finder"]["threshold"] == 70
    assert told["indexed"] > 0
