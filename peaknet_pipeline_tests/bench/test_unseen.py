"""The comparison of the network with a tuned peakfinder8 on unseen experiments."""

import pandas as pd
import pytest

from peaknet_pipeline.bench import unseen
from peaknet_pipeline.bench.unseen import (
    add_up,
    compare_finders,
    judge,
    network_curve,
    network_peaks,
    peakfinder8_peaks,
    simulate_unseen,
    tune_peakfinder8,
)
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.peaks.scan import ScanParams
from peaknet_pipeline.steps.find_with_network import load_model

SEED = 905_000_005
"""A validation experiment on the smallest of the detectors."""


@pytest.fixture(scope="module")
def run():
    return simulate_unseen(SEED, 4, hit_fraction=0.75)


@pytest.fixture
def grid(monkeypatch):
    small = ScanParams(threshold=(4.0, 16.0), min_snr=(4.0, 8.0), min_pix=(1,), local_bg_radius=(3,))
    monkeypatch.setattr(unseen, "SCAN", small)
    return small


def test_the_curve_holds_what_the_network_finds_at_each_threshold(run):
    model = load_model(None)
    thresholds = (0.3, 0.55, 0.8)
    for threshold, peaks in zip(thresholds, network_curve(run, model, thresholds), strict=True):
        pd.testing.assert_frame_equal(peaks, network_peaks(run, model, threshold))


def test_no_setting_of_the_grid_indexes_more_than_the_tuned_one(run, grid):
    response = run.experiment.response
    best = judge(run, peakfinder8_peaks(run, tune_peakfinder8(run))).indexed
    for threshold in grid.threshold:
        for min_snr in grid.min_snr:
            level = response.offset_adu + threshold * response.adu_per_photon
            setting = Peakfinder8Params(threshold=level, min_snr=min_snr, min_pix=1, local_bg_radius=3)
            assert judge(run, peakfinder8_peaks(run, setting)).indexed <= best


def test_the_counts_of_runs_add_up(run, grid):
    model = load_model(None)
    one = compare_finders(run, model, thresholds=(0.2, 0.9))
    total = add_up([one, one], "network")
    assert one["hits"] == 3
    assert one["oracle"]["precision"][0] == one["oracle"]["precision"][1] > 0
    assert one["network"]["correct"] <= one["oracle"]["correct"] == 3
    assert total["frames"] == 8
    assert total["indexed"] == 2 * one["network"]["indexed"] == 8 * total["indexing_yield"]
    found, of = one["network"]["precision"]
    assert total["precision"] == {"share": round(found / of, 4), "of": 2 * of}
    equal, tuned = (one[name]["precision"] for name in ("at_equal_precision", "tuned"))
    assert equal[0] / equal[1] >= tuned[0] / tuned[1]
