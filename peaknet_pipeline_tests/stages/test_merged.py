"""The merged set as assets: each run by itself, then all of an experiment, with files that others read."""

import gemmi
import numpy as np
import pytest

from peaknet_pipeline.bench.merging_references import Crystals
from peaknet_pipeline.schemas import MERGE_CRYSTALS, MERGE_FIGURES, MERGED, REFLECTIONS
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.stages.merged import merged, not_falling
from peaknet_pipeline.stages.run_merge import run_merge
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import merge_crystals_path, merged_file, reflections_path
from peaknet_pipeline.tables import empty_table, read_table, write_table

KEYS = ["small-r0001", "small-r0002"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two runs of one simulated experiment whose reflections are known crystals', and a third that has none."""
    store = Store(tmp_path_factory.mktemp("merged"))
    experiment = demo_experiment(6, name="small")
    folder = store.raw_root / "small"
    write_experiment_files(experiment, folder)
    settings = folder / "experiment.yaml"
    settings.write_text((settings.read_text() if settings.exists() else "") + "merge: {symmetry: P43212}\n")
    table = Crystals("lysozyme", 60, seed=31).table
    for number, key in enumerate(KEYS):
        simulate_run(experiment, folder / f"r000{number + 1}.h5", n_frames=1, seed=1, run_number=number + 1)
        path = reflections_path(store, key, "classical")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(table[table["frame"] % 2 == number].reset_index(drop=True), path, REFLECTIONS)
    return store


def test_runs_are_merged_by_themselves_and_then_together(store):
    first = run_merge(store, KEYS[0])
    multiplicity = read_table(merged(store, KEYS).output, MERGE_FIGURES)["multiplicity"].item()
    second = run_merge(store, KEYS[1])
    both = merged(store, KEYS)

    assert first.figures["crystals"] + second.figures["crystals"] >= 55
    figures = read_table(both.output, MERGE_FIGURES)
    assert figures["runs"].tolist() == [2]
    assert figures["crystals"].item() == first.figures["crystals"] + second.figures["crystals"]
    assert figures["multiplicity"].item() > 1.3 * multiplicity
    assert [check.name for check in both.checks] == ["cc_half_not_falling", "enough_multiplicity"]
    assert both.checks[0].passed
    crystals = read_table(merge_crystals_path(store, KEYS[0]), MERGE_CRYSTALS)
    assert set(crystals["run"]) == {KEYS[0]}
    table = read_table(merged_file(store, "small", ".parquet"), MERGED)
    mtz = gemmi.read_mtz_file(str(merged_file(store, "small", ".mtz")))
    assert mtz.nreflections == len(table)
    assert mtz.spacegroup.hm == "P 43 21 2"
    assert merged_file(store, "small", ".hkl").is_file()
    assert both.plots["small"].startswith(b"\x89PNG")


def test_a_falling_correlation_is_seen_where_its_errors_do_not_allow_it(store):
    run_merge(store, KEYS[0])
    now = read_table(merged(store, KEYS).output, MERGE_FIGURES)
    better = now.assign(cc_half=np.minimum(now["cc_half"] + 0.5, 1.2), cc_half_error=0.01)

    assert not not_falling(better, now.assign(cc_half_error=0.01)).passed
    assert not_falling(now, now).passed
    assert not_falling(empty_table(MERGE_FIGURES), now).passed


def test_a_run_without_reflections_gives_nothing_and_stops_nobody(store):
    path = reflections_path(store, KEYS[1], "classical")
    kept = path.read_bytes()
    write_table(empty_table(REFLECTIONS), path, REFLECTIONS)
    nothing = run_merge(store, KEYS[1])
    path.write_bytes(kept)

    assert nothing.figures["crystals"] == 0
    assert merged(store, KEYS).figures["experiments"] == 1
