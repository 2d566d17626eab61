"""Peak matching per frame: counts, selection and its reasons."""

import time

import numpy as np
import pytest

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.peaks.match import MatchParams, match_peaks
from peaknet_pipeline.schemas import PEAKS, REFLECTIONS
from peaknet_pipeline.tables import empty_table, make_table


def make_peaks(frame, panel, fs, ss):
    n = len(frame)
    columns = {name: np.ones(n) for name in ("intensity", "max_intensity", "background", "sigma", "snr")}
    return make_table(
        PEAKS, {"frame": frame, "panel": panel, "fs": fs, "ss": ss, "n_pixels": np.ones(n), **columns}
    )


def make_reflections(frame, panel, fs, ss, snr=None):
    n = len(frame)
    zero = {name: np.zeros(n) for name in ("lattice", "h", "k", "l", "inv_d", "excitation_error")}
    strength = {} if snr is None else {"intensity": np.asarray(snr, float) * 2.0, "sigma": np.full(n, 2.0)}
    return make_table(REFLECTIONS, {"frame": frame, "panel": panel, "fs": fs, "ss": ss, **zero, **strength})


def test_a_frame_is_selected_by_pairs_precision_and_recall_and_says_why():
    frames = np.repeat([0, 1, 2], [10, 10, 4])
    place = np.concatenate([np.arange(10), np.arange(10), np.arange(4)]) * 20.0
    reflections = make_reflections(frames, np.zeros(24), place, place)
    shifted = place + np.where((frames == 1) & (place > 60), 8.0, 0.5)
    matches, per_frame = match_peaks(make_peaks(frames, np.zeros(24), shifted, place), reflections)
    assert per_frame["n_matched"].tolist() == [10, 4, 4]
    assert per_frame["selected"].tolist() == [True, False, False]
    assert per_frame["reason"].tolist()[0] == "selected"
    assert per_frame["reason"].tolist()[1:] == ["fewer than 8 pairs"] * 2
    assert per_frame["precision"].tolist() == pytest.approx([1.0, 0.4, 1.0])
    assert matches["distance"].max() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (MatchParams(min_precision=0.9), "precision below 0.9"),
        (MatchParams(min_precision=0.0, min_recall=0.8), "recall below 0.8"),
        (MatchParams(min_precision=0.0), "selected"),
    ],
)
def test_each_limit_gives_its_own_reason(params, reason):
    place = np.arange(20) * 20.0
    reflections = make_reflections(np.zeros(20), np.zeros(20), place, place)
    peaks = make_peaks(np.zeros(20), np.zeros(20), place + np.where(np.arange(20) < 10, 0.0, 9.0), place)
    assert match_peaks(peaks, reflections, params=params)[1]["reason"].tolist() == [reason]


def test_a_weak_prediction_that_lies_nearer_does_not_take_the_peak():
    reflections = make_reflections([0, 0], [0, 0], [10.0, 12.0], [10.0, 10.0], snr=[0.1, 5.0])
    matches, per_frame = match_peaks(make_peaks([0], [0], [10.0], [10.0]), reflections)
    assert matches["reflection"].tolist() == [1]
    assert per_frame["n_reflections"].tolist() == [1]


def test_frames_without_a_lattice_have_no_row_and_frames_without_peaks_are_left_out():
    reflections = make_reflections([3, 3], [0, 0], [10.0, 30.0], [10.0, 10.0])
    matches, per_frame = match_peaks(make_peaks([1, 2], [0, 0], [10.0, 30.0], [10.0, 10.0]), reflections)
    assert len(matches) == 0
    assert per_frame["frame"].tolist() == [3]
    assert not per_frame["selected"].any()
    assert np.isnan(per_frame["precision"]).all()


def test_empty_tables_give_empty_tables():
    matches, per_frame = match_peaks(empty_table(PEAKS), empty_table(REFLECTIONS))
    assert len(matches) == len(per_frame) == 0


def test_a_table_without_its_columns_is_refused():
    with pytest.raises(TableError, match="column fs is missing"):
        match_peaks(empty_table(PEAKS).drop(columns="fs"), empty_table(REFLECTIONS))


def test_a_thousand_frames_of_a_hundred_peaks_take_seconds_not_minutes():
    rng = np.random.default_rng(0)
    frame = np.repeat(np.arange(1000), 100)
    panel, fs, ss = rng.integers(0, 8, 100_000), rng.uniform(0, 500, 100_000), rng.uniform(0, 500, 100_000)
    reflections = make_reflections(frame, panel, fs, ss)
    peaks = make_peaks(frame, panel, fs + rng.normal(0, 0.3, 100_000), ss)
    start = time.perf_counter()
    matches, _ = match_peaks(peaks, reflections)
    assert time.perf_counter() - start < 10
    assert (matches["peak"] == matches["reflection"]).mean() > 0.99
