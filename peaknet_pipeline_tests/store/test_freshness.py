"""Staleness is handed down the chain: nothing that was made from what is not current calls itself current."""

import os

import pytest

from peaknet_pipeline.provenance import make_recipe, write_recipe
from peaknet_pipeline.store.freshness import Freshness, has_its_inputs, is_current
from peaknet_pipeline.store.make_stage import CODE


def make(root, stage, *inputs, text=None):
    """Leave an output of a stage, with its recipe, as the chain does."""
    output = root / f"{stage}.txt"
    output.write_text(stage if text is None else text)
    recipe = make_recipe(stage, code=CODE[stage], parameters={}, inputs=inputs)
    write_recipe(output, recipe, seconds=0.1)
    return output


@pytest.fixture
def chain(tmp_path):
    """A raw file and what was made of it, three stages deep, each from the one before alone."""
    raw = tmp_path / "r0001.h5"
    raw.write_text("frames")
    outputs = []
    for stage in ("raw_run", "run_statistics", "classical_peaks"):
        outputs.append(make(tmp_path, stage, *(outputs[-1:] or [raw])))
    return raw, outputs


def test_all_that_was_made_of_a_replaced_raw_file_is_stale_and_names_it(chain):
    raw, outputs = chain
    assert [Freshness().problem(output) for output in outputs] == [""] * 3
    raw.write_text("other frames")
    look = Freshness()
    assert {look.problem(output) for output in outputs} == {"r0001.h5 was replaced or changed since"}
    assert not is_current(outputs[2], code=CODE["classical_peaks"])
    raw.unlink()
    assert Freshness().problem(outputs[2]) == "r0001.h5 is gone"


def test_other_content_of_equal_size_and_time_is_noticed_and_equal_content_of_another_time_is_current(chain):
    raw, outputs = chain
    state = raw.stat()
    raw.write_text("Frames")
    os.utime(raw, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert "was replaced" in Freshness().problem(outputs[2])
    assert has_its_inputs(outputs[2], code=CODE["classical_peaks"])
    raw.write_text("frames")
    assert raw.stat().st_mtime_ns != state.st_mtime_ns
    assert Freshness().problem(outputs[2]) == ""


def test_a_stage_made_again_or_by_an_earlier_version_makes_what_follows_stale(chain, tmp_path, monkeypatch):
    raw, outputs = chain
    make(tmp_path, "raw_run", raw, text="other")
    assert Freshness().problem(outputs[2]) == "raw_run was made again since"
    make(tmp_path, "raw_run", raw)
    assert Freshness().problem(outputs[2]) == ""
    monkeypatch.setitem(CODE, "raw_run", "next")
    assert Freshness().problem(outputs[2]) == "raw_run was made by an earlier version"


def test_what_begins_the_next_turn_of_the_loop_counts_by_its_content_alone(chain, tmp_path):
    raw, outputs = chain
    curated = make(tmp_path, "curated_labels", outputs[2])
    labels = make(tmp_path, "peak_labels", curated)
    training_set = make(tmp_path, "training_set", curated)
    geometry = make(tmp_path, "refined_geometry", outputs[2])
    index = make(tmp_path, "classical_index", geometry)
    raw.write_text("other frames")
    look = Freshness()
    assert look.problem(curated)
    assert look.problem(labels)
    assert look.problem(geometry)
    assert look.problem(training_set) == look.problem(index) == ""
    make(tmp_path, "curated_labels", outputs[1], text="more labels")
    assert Freshness().problem(training_set) == "curated_labels was made again since"


def test_a_folder_is_current_until_a_file_in_it_changes(tmp_path):
    folder = tmp_path / "r0042"
    folder.mkdir()
    (folder / "a.h5").write_text("frames")
    output = make(tmp_path, "raw_run", folder)
    assert Freshness().problem(output) == ""
    (folder / "b.h5").write_text("more frames")
    assert Freshness().problem(output) == "r0042 was replaced or changed since"
