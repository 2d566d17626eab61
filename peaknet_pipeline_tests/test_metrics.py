"""Rates with denominators; peaks against truth with weak spots neither background nor misses."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.hits import HIT_SCORE, hit_frames, hit_peaks
from peaknet_pipeline.metrics import (
    Rate,
    RunContext,
    TruthParams,
    count_rates,
    resolution_shells,
    score_peaks,
    score_run,
    wilson_interval,
)
from peaknet_pipeline.schemas import INDEX, PEAKS, SCORES, TRUTH_REFLECTIONS
from peaknet_pipeline.tables import check_table, empty_table, make_table


def make_peaks(frame, fs, panel=0):
    n = len(frame)
    ones = {
        name: np.ones(n) for name in ("intensity", "max_intensity", "background", "sigma", "snr", "n_pixels")
    }
    return make_table(
        PEAKS, {"frame": frame, "panel": np.full(n, panel), "fs": fs, "ss": np.full(n, 10.0), **ones}
    )


def make_truth(fs, snr, usable=None, inv_d=None):
    n = len(fs)
    zero = {
        name: np.zeros(n) for name in ("frame", "lattice", "h", "k", "l", "panel", "photons", "background")
    }
    return make_table(
        TRUTH_REFLECTIONS,
        {
            **zero,
            "fs": fs,
            "ss": np.full(n, 10.0),
            "inv_d": np.full(n, 0.3) if inv_d is None else inv_d,
            "snr": snr,
            "usable": np.ones(n, bool) if usable is None else usable,
        },
    )


def make_lattices(frames):
    n = len(frames)
    rest = {name: np.zeros(n) for name in INDEX.column_names() if name != "frame"}
    return make_table(INDEX, {"frame": frames, **rest, "residual": np.full(n, 0.001)})


def test_peaks_below_the_score_of_a_hit_are_kept_and_make_no_hit():
    peaks = make_peaks(np.repeat([0, 1, 2], 20), np.zeros(60))
    scores = np.repeat([HIT_SCORE, HIT_SCORE - 0.01, np.nan], 20)
    peaks["score"] = scores.astype(np.float32)
    assert hit_frames(peaks, min_peaks=15).tolist() == [0, 2]
    assert len(hit_peaks(peaks)) == 40
    assert len(peaks) == 60


def test_the_three_rates_have_their_own_denominators():
    frames = np.repeat([0, 1, 2, 3], [20, 15, 14, 3])
    rates = count_rates(make_peaks(frames, np.zeros(52)), make_lattices([0, 0, 2]), n_frames=10, min_peaks=15)
    assert (rates.hit_rate, rates.indexing_rate, rates.indexing_yield) == (
        Rate(2, 10),
        Rate(1, 2),
        Rate(2, 10),
    )


def test_a_frame_outside_the_run_is_refused():
    with pytest.raises(TableError, match=r"peaks: a frame outside the run, expected 0 … 4, found 5"):
        count_rates(make_peaks([5], [1.0]), empty_table(INDEX), n_frames=5, min_peaks=1)


@given(part=st.integers(0, 200), more=st.integers(0, 200))
def test_wilson_intervals_are_those_of_scipy(part, more):
    whole = part + more
    if whole:
        expected = binomtest(part, whole).proportion_ci(method="wilson")
        assert wilson_interval(part, whole) == pytest.approx((expected.low, expected.high), abs=1e-9)
    else:
        assert wilson_interval(0, 0) == (0.0, 1.0)


def test_weak_spots_excuse_peaks_and_are_no_misses():
    truth = make_truth([10.0, 50.0, 90.0, 130.0], [8.0, 2.0, 0.3, 12.0])
    scores = score_peaks(make_peaks([0, 0, 0], [10.5, 50.0, 90.0]), truth)
    assert scores.recall == Rate(1, 2)
    assert scores.precision == Rate(2, 3)
    assert scores.centre_error_px == pytest.approx(0.5)


def test_spots_on_bad_pixels_do_not_count_but_excuse():
    truth = make_truth([10.0, 50.0], [8.0, 80.0], usable=[True, False])
    scores = score_peaks(make_peaks([0, 0], [10.0, 50.0]), truth)
    assert (scores.recall, scores.precision) == (Rate(1, 1), Rate(2, 2))


def test_a_second_peak_on_the_same_spot_is_false():
    scores = score_peaks(make_peaks([0, 0], [10.0, 10.8]), make_truth([10.2], [9.0]))
    assert (scores.recall, scores.precision) == (Rate(1, 1), Rate(1, 2))


def test_a_weak_neighbour_does_not_take_a_strong_spots_peak():
    scores = score_peaks(make_peaks([0], [10.0]), make_truth([10.0, 11.5], [3.0, 9.0]))
    assert scores.recall == Rate(1, 1)


def test_other_frames_and_panels_do_not_match():
    truth = make_truth([10.0], [9.0])
    assert score_peaks(make_peaks([1], [10.0]), truth).recall == Rate(0, 1)
    assert score_peaks(make_peaks([0], [10.0], panel=1), truth).precision == Rate(0, 1)


def test_bands_and_shells_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    fs, snr = np.arange(300) * 10.0, rng.uniform(1, 60, 300)
    truth = make_truth(fs, snr, inv_d=rng.uniform(0.05, 0.6, 300))
    found = rng.random(300) < 0.7
    scores = score_peaks(make_peaks(np.zeros(found.sum()), fs[found]), truth, TruthParams(n_shells=5))
    strong = scores.by_snr[scores.by_snr["low"] >= 5]
    assert strong["n_true"].sum() == scores.by_shell["n_true"].sum() == scores.recall.whole
    assert strong["n_found"].sum() == scores.by_shell["n_found"].sum() == scores.recall.part
    assert len(scores.by_shell) == 5
    assert (scores.by_shell["recall_low"] <= scores.by_shell["recall"]).all()


def test_shells_have_equal_reciprocal_volume_and_hold_every_value():
    values = np.array([0.1, 0.3, 0.62], np.float32).astype(float)
    edges = resolution_shells(values, 4)
    assert np.diff(edges**3) == pytest.approx(np.full(4, (0.62**3 - 0.1**3) / 4), rel=1e-5)
    assert edges[0] <= values.min()
    assert edges[-1] > values.max()


def test_without_peaks_or_truth_rates_are_nan_not_errors():
    scores = score_peaks(empty_table(PEAKS), empty_table(TRUTH_REFLECTIONS))
    assert math.isnan(scores.precision.value)
    assert math.isnan(scores.recall.value)
    assert math.isnan(scores.centre_error_px)


def test_a_score_row_follows_its_schema_also_for_a_blank_run():
    context = RunContext("exp", "exp-r0001", "classical", 4, scrambled=2, false_indexed=1)
    peaks = make_peaks(np.repeat([0, 1], 15), np.arange(30) * 9.0)
    truth = score_peaks(peaks, make_truth(np.arange(15) * 9.0, np.full(15, 9.0)))
    full = score_run(context, peaks, make_lattices([0]), min_peaks=15, truth=truth)
    blank = score_run(context, empty_table(PEAKS), empty_table(INDEX), min_peaks=15)
    check_table(full, SCORES)
    check_table(blank, SCORES)
    row = full.iloc[0]
    assert (row["frames"], row["hits"], row["indexed"]) == (4, 2, 1)
    assert row["indexing_yield"] == pytest.approx(0.25)
    assert row["false_index_rate"] == pytest.approx(0.5)
    assert row["precision"] == pytest.approx(0.5)
    assert row["recall"] == pytest.approx(1.0)
    assert pd.isna(blank.iloc[0]["indexing_rate"])
