"""The split: by run, reproducible, complete, honest about what it left out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.labels.exclusions import parse_exclusions, read_exclusions
from peaknet_pipeline.labels.split import LabelledRun, SplitParams, assign_subsets, split_runs
from peaknet_pipeline.labels.store import write_labels
from peaknet_pipeline.schemas import SPLIT
from peaknet_pipeline.tables import check_table


def make_run(folder, name, frames=(0, 1, 2), n_peaks=5, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(f, rng.integers(0, 2, (1, 4, 4)).astype(np.uint8), n_peaks) for f in frames]
    write_labels(folder / name, rows, (1, 4, 4), provenance={})
    return LabelledRun("exp", name, folder / name)


@pytest.fixture
def runs(tmp_path):
    return [make_run(tmp_path, f"exp-r{i:04d}", seed=i) for i in range(1, 6)]


def test_a_run_is_never_divided_and_every_frame_appears_once(runs):
    table = split_runs(runs).table
    check_table(table, SPLIT)
    assert (table.groupby("run")["subset"].nunique() == 1).all()
    assert not table.duplicated(["run", "frame"]).any()
    assert len(table) == 15
    assert set(table["subset"]) == {"train", "validate", "test"}


def test_the_split_does_not_depend_on_the_order_of_the_runs(runs):
    assert split_runs(runs).manifest == split_runs(runs[::-1]).manifest


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 30), a=st.floats(0, 1), b=st.floats(0, 1), seed=st.integers(0, 5))
def test_some_run_always_trains_and_three_runs_fill_every_wanted_subset(n, a, b, seed):
    runs = [f"r{i}" for i in range(n)]
    subsets = assign_subsets(runs, SplitParams(validate_fraction=a, test_fraction=b, seed=seed))
    counts = {s: list(subsets.values()).count(s) for s in ("train", "validate", "test")}
    assert sum(counts.values()) == n
    assert counts["train"] >= 1
    if n >= 3:
        assert (counts["validate"] > 0) == (a > 0)
        assert (counts["test"] > 0) == (b > 0)


def test_named_runs_go_where_they_are_named(runs):
    params = SplitParams(validation_runs=("exp-r0002",), test_runs=("exp-r0004",))
    subset = split_runs(runs, params).table.drop_duplicates("run").set_index("run")["subset"]
    assert subset["exp-r0002"] == "validate"
    assert subset["exp-r0004"] == "test"
    assert (subset.drop(["exp-r0002", "exp-r0004"]) == "train").all()


def test_excluded_runs_and_frames_are_left_out_and_the_manifest_says_so(runs):
    text = "# beam was off\nexp-r0001  # jet stopped\n\nexp-r0002 1 # ice\nexp-r0003 0-1\nexp-r0099\n"
    result = split_runs(runs, SplitParams(), exclusions=parse_exclusions(text))
    frames = result.table.groupby("run")["frame"].apply(list)
    assert "exp-r0001" not in frames
    assert frames["exp-r0002"] == [0, 2]
    assert frames["exp-r0003"] == [2]
    assert result.manifest["excluded_runs"] == {"exp-r0001": "jet stopped", "exp-r0099": ""}
    assert result.manifest["excluded_frames"]["exp-r0002"] == [[1, 1, "ice"]]
    assert result.manifest["exclusions_without_run"] == ["exp-r0099"]


def test_the_hash_changes_with_labels_exclusions_and_parameters(runs, tmp_path):
    first = split_runs(runs).hash
    assert split_runs(runs).hash == first
    assert split_runs(runs, exclusions=parse_exclusions("exp-r0001 0")).hash != first
    assert split_runs(runs, SplitParams(seed=9)).hash != first
    make_run(tmp_path, "exp-r0003", seed=77)
    assert split_runs(runs).hash != first


def test_nothing_to_train_on_is_an_error_that_counts(tmp_path):
    runs = [make_run(tmp_path, "a", frames=()), make_run(tmp_path, "b", n_peaks=0)]
    with pytest.raises(LabelError, match=r"too few labelled frames.*a 0, b 0.*wrong cell"):
        split_runs(runs)
    with pytest.raises(LabelError, match="no labelled run"):
        split_runs([])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (SplitParams(test_runs=("nowhere",)), "no such run"),
        (SplitParams(test_runs=("exp-r0001",), validation_runs=("exp-r0001",)), "both validate and test"),
    ],
)
def test_names_that_make_no_sense_are_refused(runs, params, message):
    with pytest.raises(LabelError, match=message):
        split_runs(runs, params)


@pytest.mark.parametrize("line", ["run 5 6", "run x", "run 3-y", "run -4"])
def test_a_line_that_is_no_exclusion_is_named(line):
    with pytest.raises(LabelError, match=r"line 2"):
        parse_exclusions("ok\n" + line)


def test_no_exclusions_file_excludes_nothing(tmp_path):
    assert read_exclusions(None) == read_exclusions(tmp_path / "none")
    (tmp_path / "file").write_text("a 3-5")
    assert read_exclusions(tmp_path / "file").frames == {"a": [(3, 5, "")]}


def add_candidates(run, folder, frames, reasons, n_peaks=4):
    """Give a run curated labels for some frames, and candidates in order of rank."""
    rows = [(f, np.ones((1, 4, 4), np.uint8), n_peaks) for f in sorted(frames)]
    path = folder / f"{run.run}-curated"
    write_labels(path, rows, (1, 4, 4), provenance={})
    return replace(run, curated=path, candidates=reasons)


def test_curated_frames_come_in_by_rank_with_their_reason_and_only_where_nothing_else_labels_them(tmp_path):
    run = make_run(tmp_path, "exp-r0001", frames=(0, 1))
    reasons = {
        9: "only the neural peaks index",
        1: "finders disagree",
        7: "network unsure",
        8: "network unsure",
    }
    run = add_candidates(run, tmp_path, (1, 7, 8, 9), reasons)
    params = SplitParams(curated_frames=2, validation_runs=(), validate_fraction=0, test_fraction=0)
    result = split_runs([run], params)
    rows = result.table.set_index("frame")
    assert rows.index.tolist() == [0, 1, 7, 9]
    assert rows["labels"].tolist() == ["classical", "classical", "peaknet", "peaknet"]
    assert rows["curation"].tolist() == ["", "finders disagree", reasons[7], reasons[9]]
    assert rows["n_peaks"].tolist() == [5, 5, 4, 4]
    assert result.manifest["runs"]["exp-r0001"]["curated_frames"] == 2
    assert result.manifest["runs"]["exp-r0001"]["curated_labels"]


def test_what_judges_a_network_never_comes_from_a_network(runs, tmp_path):
    curated = [add_candidates(run, tmp_path, (50,), {50: "network unsure"}) for run in runs]
    table = split_runs(curated).table
    assert set(table.loc[table["frame"] == 50, "subset"]) == {"train"}
    assert set(table.loc[table["subset"] != "train", "labels"]) == {"classical"}


def test_excluded_curated_frames_stay_out_and_zero_adds_none(tmp_path):
    run = add_candidates(make_run(tmp_path, "exp-r0001"), tmp_path, (5, 6), {5: "a", 6: "a"})
    everything = SplitParams(validate_fraction=0, test_fraction=0)
    kept = split_runs([run], everything, exclusions=parse_exclusions("exp-r0001 5 # ice"))
    assert kept.table["frame"].tolist() == [0, 1, 2, 6]
    none = split_runs([run], replace(everything, curated_frames=0))
    assert none.table["frame"].tolist() == [0, 1, 2]


@settings(max_examples=80, deadline=None)
@given(first=st.integers(1, 12), more=st.integers(0, 12), seed=st.integers(0, 5))
def test_a_run_keeps_its_subset_when_others_join(first, more, seed):
    params = SplitParams(seed=seed)
    early = assign_subsets([f"r{i}" for i in range(first)], params)
    later = assign_subsets([f"r{i}" for i in range(first + more)], params, before=early)
    assert {run: later[run] for run in early} == early
    assert "train" in later.values()


def test_refused_runs_are_told_and_nothing_else_to_teach_is_an_error_that_names_them(runs):
    why = {"exp-r0009": "hits_have_lattices: 1 of 40 hits labelled"}
    assert split_runs(runs, refused=why).manifest["refused_runs"] == why
    with pytest.raises(LabelError, match=r"may teach.*exp-r0009: hits_have_lattices: 1 of 40"):
        split_runs([], refused=why)
