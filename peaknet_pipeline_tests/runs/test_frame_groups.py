"""Groups of frames: interleaved, by a number per frame, by event codes, by run; and their rates against what was put in."""

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.runs.frame_groups import GroupRule, group_of_frames
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import FRAME_GROUPS, INDEX, PEAKS
from peaknet_pipeline.stages.group_rates import rates_by_group
from peaknet_pipeline.tables import make_table

N = 12


def no_values(path):
    raise AssertionError(path)


def groups(rules, n_frames=N, run_number=1, read_values=no_values):
    made = {name: GroupRule.from_mapping(rule) for name, rule in rules.items()}
    return group_of_frames(made, n_frames=n_frames, run_number=run_number, read_values=read_values)


@pytest.fixture
def runs(tmp_path):
    """Two files of six frames: the laser's state, a delay without a value in one shot, and event codes."""
    codes = np.tile([[40, 0, 0], [40, 90, 0], [40, 0, 183]], (2, 1))
    for name, delay in (("a.h5", [0.1, 0.4, 0.6, np.nan, 1.5, 0.4]), ("b.h5", [0.2] * 6)):
        with h5py.File(tmp_path / name, "w") as file:
            file["entry/data/data"] = np.zeros((6, 20, 30), dtype=np.uint16)
            file["evr/laser"] = np.array([1, 1, 0, 1, 0, 0], dtype=np.uint8)
            file["evr/codes"], file["delay"] = codes, np.array(delay)
    return tmp_path / "a.h5", tmp_path / "b.h5"


def test_interleaved_frames_are_divided_by_their_number():
    told = groups({"dark": {"every": 5, "at": [4]}, "light": {"every": 5, "at": "0,1,2,3"}})
    assert told == ["dark" if number % 5 == 4 else "light" for number in range(N)]
    assert groups({"dark": {"every": 3, "at": 0, "first_frame": 2}})[:6] == ["", "", "dark", "", "", "dark"]


def test_the_first_rule_that_holds_counts_and_runs_can_be_named():
    rules = {"soaked": {"in_runs": [4, 5]}, "dark": {"every": 2}, "light": {"every": 1}}
    assert set(groups(rules, run_number=4)) == {"soaked"}
    assert groups(rules, run_number=6) == ["dark", "light"] * (N // 2)


def test_frames_are_divided_by_what_their_file_says(runs):
    rules = {
        "pumped": {"data_set": "/evr/codes", "contains": 183},
        "early": {"data_set": "/delay", "below": 0.5},
        "late": {"data_set": "/delay", "least": 0.5},
    }
    with open_run(runs[0]) as run:
        told = groups(rules, run.n_frames, read_values=run.read_values)
    assert told == ["early", "early", "pumped", "", "late", "pumped"]


def test_the_frames_of_several_files_have_the_values_of_their_own(runs):
    with open_run(runs) as run:
        told = groups(
            {"light": {"data_set": "/evr/laser", "equals": 1}}, run.n_frames, read_values=run.read_values
        )
        delays = run.read_values("/delay")
    assert told == ["light", "light", "", "light", "", ""] * 2
    assert delays[6:, 0].tolist() == [0.2] * 6


@pytest.mark.parametrize("path", ["/evr/nothing", "/entry/data/data"])
def test_a_data_set_that_says_nothing_of_each_frame_is_refused(runs, path):
    with open_run(runs[0]) as run, pytest.raises(RunError, match=path):
        run.read_values(path)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({}, "group of all frames"),
        ({"every": 4, "at": [4]}, "outside the period"),
        ({"equals": 1}, "equals without a data_set"),
        ({"data_set": "/a"}, "data_set without a condition"),
    ],
)
def test_rules_that_mean_nothing_are_refused(rule, told):
    with pytest.raises(ParameterError, match=told):
        GroupRule.from_mapping(rule)


def test_rates_by_group_are_those_that_were_put_in():
    """Light frames 0 … 7 of 12: two in three are hits, half of these index; dark frames: one hit, which indexes."""
    counts = {0: 12, 1: 15, 2: 10, 3: 11, 8: 20, 9: 3}
    frames = np.repeat(list(counts), list(counts.values()))
    plain = {c.name: np.ones(len(frames)) for c in PEAKS.columns}
    peaks = make_table(PEAKS, plain | {"frame": frames})
    lattices = make_table(INDEX, {c.name: np.ones(4) for c in INDEX.columns} | {"frame": [1, 1, 3, 8]})
    names = ["light"] * 8 + ["dark"] * 3 + [""]
    table = make_table(FRAME_GROUPS, {"frame": range(N), "group_name": names})
    rates = rates_by_group(peaks, lattices, table, finder="classical", run="lyso-r0001", min_peaks=10)

    rows = rates.set_index("group_name")
    assert rows.loc["light", ["frames", "hits", "indexed", "lattices"]].tolist() == [8, 4, 2, 3]
    assert rows.loc["dark", ["frames", "hits", "indexed", "lattices"]].tolist() == [3, 1, 1, 1]
    assert rows.loc["", ["frames", "hits", "indexed"]].tolist() == [1, 0, 0]
    assert rows.loc["light", "indexing_rate"] == pytest.approx(0.5)
    assert rows.loc["dark", "mean_peaks"] == pytest.approx(23 / 3)
