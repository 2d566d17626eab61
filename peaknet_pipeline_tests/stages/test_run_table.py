"""The table of runs: a row for every run, however far it came, and the error of those that failed."""

import math

import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.schemas import RUNS, SCORES
from peaknet_pipeline.stages.run_table import format_runs, run_table
from peaknet_pipeline.store.failures import failures_recorded
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import CODE, make_stage
from peaknet_pipeline.store.run_progress import OUTPUTS
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import make_table, write_json, write_table

KEYS = [f"lyso-r000{i}" for i in range(1, 5)]


def make(store, stage, key, *, figures=None, checks=(), inputs=()):
    """Leave a stage's output and recipe as the chain does."""
    output = store.file(stage, key, OUTPUTS[stage])

    def build(recipe):
        if stage == "run_metrics":
            write_table(scores(key), output, SCORES)
        else:
            write_json(output, {})
        return StageResult(output, figures or {}, checks=checks)

    return make_stage(stage, parameters={}, inputs=inputs, build=build)


def scores(key):
    """Rates of a run of 200 frames with both finders."""
    row = {"experiment": "lyso", "run": key, "subset": "unused", "frames": 200, "code_version": "1"}
    row |= {"false_index_rate": 0.0, "scrambled": 50, "precision": math.nan, "recall": math.nan}
    row |= {"frames_per_second": 30.0, "residual": 4e-4, "parameters": "p", "resolution": 2.25}
    each = [
        {"finder": "classical", "hits": 90, "indexed": 70, "model": "", "label_manifest": "", "peaks": 4000},
        {"finder": "peaknet", "hits": 100, "indexed": 80, "model": "student-1f2e", "label_manifest": "1f2e", "peaks": 5000},
    ]  # fmt: skip
    rows = [{**row, **one} for one in each]
    for one in rows:
        one["hit_rate"] = one["hits"] / 200
        one["indexing_rate"] = (one["indexed"] - 2) / one["hits"]
        one["indexing_yield"] = one["indexed"] / 200
        one["mean_peaks"] = one["peaks"] / 200
    return make_table(SCORES, {name: [one[name] for one in rows] for name in SCORES.column_names()})


@pytest.fixture
def store(tmp_path):
    """A scored run, one that failed, one that a check stopped, and one that only lies there."""
    store = Store(tmp_path)
    folder = store.raw_root / "lyso"
    folder.mkdir(parents=True)
    for number in (1, 2, 3, 4):
        (folder / f"r{number:04d}.h5").write_bytes(b"frames")
    for key in (KEYS[0], KEYS[2]):
        make(store, "raw_run", key, figures={"frames": 200})
        statistics = {"bad_fraction": 0.01, "mean_intensity": 12.5}
        bad = Check("mask_fraction", key == KEYS[0], "62 % of the pixels are bad")
        make(store, "run_statistics", key, figures=statistics, checks=(bad,))
    make(store, "run_metrics", KEYS[0])
    with pytest.raises(RunError), failures_recorded(store, "raw_run", KEYS[1]):
        raise RunError("truncated", where="r0002.h5", remedy="Copy it again.")
    return store


def test_every_run_has_one_row_and_tells_how_far_it_came(store):
    table = run_table(store, KEYS).set_index("run")
    assert list(table.index) == KEYS
    assert list(table["status"]) == ["done", "failed", "stopped", "registered"]
    assert list(table["stage"]) == ["run_metrics", "raw_run", "run_statistics", ""]
    assert table.loc[KEYS[1], "error"] == "r0002.h5: truncated. Copy it again."
    assert table.loc[KEYS[2], "error"] == "mask_fraction: 62 % of the pixels are bad"
    assert table.loc[KEYS[0], "date"].endswith("Z")


def test_the_rates_are_the_networks_with_the_classical_counts_beside_them(store):
    row = run_table(store).set_index("run").loc[KEYS[0]]
    assert (row["finder"], row["model"], row["label_manifest"]) == ("peaknet", "student-1f2e", "1f2e")
    assert (row["frames"], row["hits"], row["indexed"]) == (200, 100, 80)
    assert row["indexing_yield"] == pytest.approx(80 / 200)
    assert row["indexing_rate"] == pytest.approx(78 / 100)
    assert row["indexed_hits"] == 78
    assert (row["classical_hits"], row["classical_indexed"]) == (90, 70)
    assert (row["mean_peaks"], row["background"]) == (25.0, 12.5)
    assert row["bad_pixels"] == np.float32(0.01)
    assert row["seconds"] > 0


def test_runs_whose_files_are_gone_or_can_not_be_used_say_so_and_keep_their_rates(store):
    folder = store.raw_root / "lyso"
    (folder / "r0001.h5").unlink()
    (folder / "r0004.h5").unlink()
    (folder / "r0004.h5").symlink_to("gone.h5")
    (folder / "other_r0003.h5").write_bytes(b"frames")
    table = run_table(store, [*KEYS, "lyso-r0099"]).set_index("run")
    assert dict(table["status"]) == {
        KEYS[0]: "missing", KEYS[1]: "failed", KEYS[2]: "refused", KEYS[3]: "refused", "lyso-r0099": "missing",
    }  # fmt: skip
    assert (table.loc[KEYS[0], "hits"], table.loc[KEYS[0], "date"]) == (100, "")
    assert (
        "r0003.h5, other_r0003.h5" in table.loc[KEYS[2], "error"]
        or "other_r0003.h5, r0003.h5" in table.loc[KEYS[2], "error"]
    )
    assert table.loc[KEYS[3], "error"].endswith("r0004.h5: run 4: a link to gone.h5, which isn't there")
    (folder / "experiment.yaml").write_text("runs: [")
    assert set(run_table(store, KEYS)["status"]) == {"refused"}


def test_success_forgets_an_earlier_failure(store):
    with failures_recorded(store, "raw_run", KEYS[1]):
        make(store, "raw_run", KEYS[1], figures={"frames": 10})
    row = run_table(store).set_index("run").loc[KEYS[1]]
    assert (row["status"], row["error"], row["frames"]) == ("partial", "", 10)


def test_what_an_earlier_version_made_is_called_outdated_and_not_read(store, monkeypatch):
    monkeypatch.setitem(CODE, "run_metrics", "next")
    row = run_table(store).set_index("run").loc[KEYS[0]]
    assert row["status"] == "outdated"
    assert row["finder"] == ""


def test_a_root_without_runs_gives_an_empty_table_and_a_next_step(tmp_path):
    table = run_table(Store(tmp_path))
    assert list(table.columns) == RUNS.column_names()
    assert "peaknet register" in format_runs(table)


def test_the_printed_table_fits_a_terminal_and_ends_with_the_errors(store):
    lines = format_runs(run_table(store, KEYS)).splitlines()
    assert max(map(len, lines[: 2 + len(KEYS)])) <= 120
    assert lines[-2:] == [
        f"{KEYS[1]}  failed at raw_run: r0002.h5: truncated. Copy it again.",
        f"{KEYS[2]}  stopped at run_statistics: mask_fraction: 62 % of the pixels are bad",
    ]


def test_a_run_made_from_a_replaced_file_is_stale_in_all_its_stages(store):
    folder = store.raw_root / "lyso"
    for stage, inputs in (
        ("raw_run", [folder / "r0001.h5"]),
        ("run_statistics", [store.file("raw_run", KEYS[0], ".json")]),
    ):
        make(store, stage, KEYS[0], inputs=inputs)
    assert run_table(store).set_index("run").loc[KEYS[0], "status"] == "done"
    (folder / "r0001.h5").write_bytes(b"other frames")
    row = run_table(store).set_index("run").loc[KEYS[0]]
    assert (row["status"], row["stage"], row["hits"]) == ("stale", "run_metrics", 100)
    assert (
        row["error"]
        == "r0001.h5 was replaced or changed since; raw_run, run_statistics, run_metrics must be made again"
    )


def test_hits_and_indexed_frames_are_told_as_soon_as_they_exist(store):
    key = KEYS[3]
    make(store, "raw_run", key, figures={"frames": 200})
    assert (run_table(store).set_index("run").loc[key, ["finder", "hits"]] == ["", 0]).all()
    make(store, "classical_peaks", key, figures={"frames": 200, "hits": 90, "mean_peaks_per_frame": 20.0})
    row = run_table(store).set_index("run").loc[key]
    assert (row["finder"], row["hits"], row["classical_hits"], row["mean_peaks"]) == (
        "classical",
        90,
        90,
        20.0,
    )
    assert row["hit_rate"] == pytest.approx(90 / 200)
    assert math.isnan(row["indexing_rate"])
    line = next(line for line in format_runs(run_table(store)).splitlines() if line.startswith(key))
    assert line.split()[3:] == ["200", "90", "45.0%", "–", "–", "–", "–", "20.0", "–", "–"]
    make(store, "classical_index", key, figures={"indexed": 75, "indexed_hits": 72})
    row = run_table(store).set_index("run").loc[key]
    assert (row["indexed"], row["indexed_hits"], row["classical_indexed"]) == (75, 72, 75)
    assert row["indexing_rate"] == pytest.approx(72 / 90)
    assert row["indexing_yield"] == pytest.approx(75 / 200)
