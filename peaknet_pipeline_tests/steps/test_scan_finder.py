"""The scan of settings: tried on hits, and never worse than the setting in use."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.peaks.scan import ScanStageParams
from peaknet_pipeline.schemas import SCAN
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.simulate.truth import read_truth
from peaknet_pipeline.stages import raw_run, run_statistics
from peaknet_pipeline.stages.finder_scan import finder_scan
from peaknet_pipeline.steps.scan_finder import choose_frames, scan_table
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import read_bad_pixels, scan_path
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline.tables import read_table

KEY = "sparse-r0001"
N_FRAMES = 48


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A run with few hits, which frames have a crystal, and which of them are clear hits."""
    root = tmp_path_factory.mktemp("sparse")
    folder = root / "raw" / "sparse"
    experiment = demo_experiment(5, name="sparse")
    experiment = replace(experiment, shots=replace(experiment.shots, hit_fraction=0.2))
    write_experiment_files(experiment, folder)
    simulate_run(experiment, folder / "r0001.h5", n_frames=N_FRAMES, seed=31)
    (folder / "experiment.yaml").write_text("finder: {threshold: 70, max_pix: 60, local_bg_radius: 4}\n")
    store = Store(root)
    raw_run.raw_run(store, KEY)
    run_statistics.run_statistics(store, KEY)
    truth = read_truth(folder / "r0001.h5")
    bright = truth.reflections[truth.reflections["snr"] > 8]["frame"].value_counts()
    crystals = truth.frames["frame"][truth.frames["kind"] != "blank"]
    return store, set(crystals), set(bright[bright >= 12].index)


def choose(store, **params):
    context = read_context(store, KEY)
    with open_raw(context) as run:
        return choose_frames(
            run, read_bad_pixels(store, KEY), ScanStageParams(**params), Peakfinder8Params(max_pix=60)
        )


def test_settings_are_tried_on_hits_though_most_frames_are_blank(sparse):
    store, crystals, hits = sparse
    assert 4 <= len(hits) <= len(crystals) <= 16
    chosen = choose(store, frames=8)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == 8
    assert len(crystals & set(chosen)) >= 5  # of all frames a quarter has a crystal
    assert len(set(chosen) - crystals) >= 1  # and some tell what a setting finds in blank ones


def test_where_hits_are_fewer_than_wanted_other_frames_fill_up(sparse):
    store, _, hits = sparse
    chosen = choose(store, frames=30)
    assert len(chosen) == 30
    assert hits <= set(chosen)
    np.testing.assert_array_equal(choose(store, frames=N_FRAMES), np.arange(N_FRAMES))


def test_the_setting_in_use_is_tried_too_and_told_beside_the_best(sparse):
    store, _, _ = sparse
    poor = {"threshold": (3000.0,), "min_snr": (5.0,), "min_pix": (2,), "local_bg_radius": (4,), "frames": 8}
    result = finder_scan(store, KEY, overrides=poor)
    table = read_table(scan_path(store, KEY), SCAN)
    assert list(table["threshold"]) == [70.0, 3000.0]
    assert result.figures["best_threshold"] == 70.0
    assert result.figures["indexed"] == result.figures["indexed_in_use"] == table["indexed"].max() > 0
    assert result.figures["explained_in_use"] == table["explained"].iloc[0]
    assert f"the one in use {table['indexed'].iloc[0]}" in result.checks[0].description
    assert result.plots["scan"].startswith(b"\x89PNG")


def test_the_yield_decides_and_then_explained_peaks_without_noise():
    rows = [
        {"threshold": 1.0, "n_peaks": 900, "indexed": 7, "explained": 130},
        {"threshold": 2.0, "n_peaks": 400, "indexed": 8, "explained": 125},
        {"threshold": 3.0, "n_peaks": 120, "indexed": 8, "explained": 110},
        {"threshold": 4.0, "n_peaks": 20, "indexed": 8, "explained": 20},
        {"threshold": 5.0, "n_peaks": 0, "indexed": 0, "explained": 0},
    ]
    rest = {"min_snr": 5.0, "min_pix": 2, "max_pix": 200, "local_bg_radius": 3}
    table = scan_table(pd.DataFrame([{**row, **rest} for row in rows]), 10)
    assert list(table["threshold"]) == [3.0, 2.0, 4.0, 1.0, 5.0]
    assert table["merit"].iloc[0] == pytest.approx(0.8 + 1e-3 * 220 / 250)
