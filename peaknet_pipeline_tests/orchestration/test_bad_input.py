"""Bad input: the Dagster run names file, problem and remedy; other partitions go on; nothing half-written remains."""

import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from peaknet_pipeline.indexing.cell import read_cell, write_cell
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.stages.run_table import run_table
from peaknet_pipeline_tests.orchestration.conftest import FRAMES, KEYS, failure_text

CHAIN = ["raw_run", "run_statistics", "classical_peaks", "classical_index"]


def truncate(folder):
    data = (folder / "r0001.h5").read_bytes()
    (folder / "r0001.h5").write_bytes(data[: len(data) // 2])


def empty(folder):
    (folder / "r0001.h5").write_bytes(b"")


def rewrite(folder, change):
    with h5py.File(folder / "r0001.h5", "r") as file:
        frames = file["/entry_1/data_1/data"][:4]
        energy = file["/LCLS/photon_energy_eV"][:4]
    with h5py.File(folder / "r0001.h5", "w") as file:
        change(file, frames, energy)


def no_frames(file, frames, energy):
    file["/entry_1/data_1/data"] = frames[:0]


def wrong_shape(file, frames, energy):
    file["/entry_1/data_1/data"] = frames[:, :-7]
    file["/LCLS/photon_energy_eV"] = energy


def missing_dataset(file, frames, energy):
    file["/entry_1/other"] = frames


def text_instead_of_numbers(file, frames, energy):
    file["/entry_1/data_1/data"] = np.full((len(frames), 8, 8), b"x")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncate, ["r0001.h5"]),
        (empty, ["r0001.h5"]),
        (lambda folder: rewrite(folder, no_frames), ["r0001.h5", "frame"]),
        (lambda folder: rewrite(folder, wrong_shape), ["r0001.h5", "expected"]),
        (lambda folder: rewrite(folder, missing_dataset), ["r0001.h5", "/entry_1/data_1/data"]),
        (lambda folder: rewrite(folder, text_instead_of_numbers), ["r0001.h5"]),
        (lambda folder: (folder / "r0001.h5").unlink(), ["run 1 has 0 raw files", "r0001.h5"]),
        (lambda folder: (folder / "small.geom").write_text("p0/min_fs = what\n"), ["small.geom"]),
        (lambda folder: (folder / "small.cell").unlink(), ["no .cell file", "found_cell"]),
        (lambda folder: (folder / "small.cell").write_text("not a cell\n"), ["small.cell"]),
    ],
    ids=[
        "truncated",
        "empty",
        "no_frames",
        "wrong_shape",
        "no_dataset",
        "text",
        "absent",
        "geometry",
        "no_cell",
        "bad_cell",
    ],
)
def test_bad_input_is_named_and_leaves_nothing_behind(fresh, spoil, words):
    register_runs(fresh.instance, KEYS)
    spoil(fresh.store.raw_root / "small")
    result = fresh.materialize(CHAIN, KEYS[0])
    assert not result.success
    for word in words:
        assert word in failure_text(result)
    leftovers = [p for p in fresh.store.root.rglob("*.tmp") if "dagster_home" not in p.parts]
    assert leftovers == []
    assert not fresh.store.table("classical_index", KEYS[0]).exists()


def test_other_partitions_go_on(fresh):
    register_runs(fresh.instance, KEYS)
    truncate(fresh.store.raw_root / "small")
    assert not fresh.materialize(CHAIN[:2], KEYS[0]).success
    result = fresh.materialize(CHAIN[:2], KEYS[1])
    assert result.success, failure_text(result)
    told = run_table(fresh.store, KEYS).set_index("run")
    assert list(told["status"]) == ["failed", "partial", "registered"]
    assert told.loc[KEYS[0], "stage"] == "raw_run"
    assert "r0001.h5" in told.loc[KEYS[0], "error"]
    assert told.loc[KEYS[1], "frames"] == FRAMES


def test_nans_are_bad_pixels_not_a_crash(fresh):
    def with_nans(file, frames, energy):
        values = frames.astype(np.float32)
        values[:, :40, :40] = np.nan
        values[1] = np.nan
        file["/entry_1/data_1/data"] = values
        file["/LCLS/photon_energy_eV"] = energy

    register_runs(fresh.instance, KEYS)
    rewrite(fresh.store.raw_root / "small", with_nans)
    (fresh.store.raw_root / "small" / "small.geom").write_text(
        "\n".join(
            line
            for line in (fresh.store.raw_root / "small" / "small.geom").read_text().splitlines()
            if not line.startswith("mask")
        )
    )
    result = fresh.materialize(CHAIN, KEYS[0])
    assert result.success, failure_text(result)


def test_training_without_labels_says_so(fresh):
    register_runs(fresh.instance, KEYS)
    result = fresh.materialize(["training_set"])
    assert not result.success
    assert "train" in failure_text(result)
    assert not fresh.store.table("training_set", "all").exists()


def test_labels_of_a_wrong_cell_are_blocked_and_nothing_is_trained_on_them(fresh):
    path = fresh.store.raw_root / "small" / "small.cell"
    cell = read_cell(path)
    write_cell(replace(cell, c=cell.c / 2), path)
    register_runs(fresh.instance, KEYS[:1])
    result = fresh.materialize([*CHAIN, "peak_labels"], KEYS[0])
    assert not result.success
    (failed,) = [c for c in result.get_asset_check_evaluations() if not c.passed and c.blocking]
    assert failed.check_name == "cell_holds"
    assert re.search(f"layers across.*may.*small.cell.*peaknet diagnose {KEYS[0]}", failed.description)
    training = fresh.materialize(["training_set"])
    assert not training.success
    assert re.search(f"{KEYS[0]}: cell_holds: .*layers across", failure_text(training))
    assert not fresh.store.table("training_set", "all").exists()


def test_a_key_that_was_never_validated_is_refused(fresh):
    fresh.instance.add_dynamic_partitions("experiment_runs", ["../../etc-r0001"])
    result = fresh.materialize(["raw_run"], "../../etc-r0001")
    assert not result.success
    assert "not a run key" in failure_text(result)
