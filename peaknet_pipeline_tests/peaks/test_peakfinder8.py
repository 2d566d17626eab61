"""peakfinder8 against a plain transcription of its rules, and what must hold for any frame."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.geometry.usable import value_range
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params, find_peaks
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import check_table
from peaknet_pipeline_tests.peaks.peak_scenes import paired, radius_map, spotty_frame
from peaknet_pipeline_tests.peaks.plain_peakfinder8 import plain_find_peaks

SHAPE = (2, 80, 96)
RADIUS = radius_map(SHAPE)
GOOD = np.zeros(SHAPE, bool)
PARAMS = Peakfinder8Params(threshold=20, min_snr=4)
COLUMNS = ["panel", "fs", "ss", "intensity", "n_pixels"]


def find(frame, *, radius=RADIUS, bad_pixels=GOOD, params=PARAMS, **options):
    """Peaks of one frame."""
    return find_peaks(frame[None], radius=radius, bad_pixels=bad_pixels, params=params, **options)


def assert_same_peaks(found, expected):
    """Same peaks in the same order, to single precision."""
    assert len(found) == len(expected)
    if len(expected):
        np.testing.assert_allclose(
            found[COLUMNS].to_numpy(float), np.array(expected, float), rtol=2e-5, atol=1e-4
        )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    level=st.sampled_from([0.02, 0.5, 5.0, 200.0]),
    threshold=st.sampled_from([1.0, 20.0, 60.0]),
    min_snr=st.sampled_from([2.03, 3.57, 6.01]),
    dtype=st.sampled_from(["float32", "uint16", "int32", "float64"]),
)
def test_peaks_are_those_of_the_plain_transcription(seed, level, threshold, min_snr, dtype):
    frame = spotty_frame(seed, SHAPE, RADIUS, level=level, dtype=dtype)
    rng = np.random.default_rng(seed)
    bad = rng.random(SHAPE) < 0.03
    params = Peakfinder8Params(threshold=threshold, min_snr=min_snr, min_res=5, max_res=85, max_pix=60)
    expected = plain_find_peaks(frame, RADIUS, bad, params)
    assert_same_peaks(find(frame, bad_pixels=bad, params=params), expected)


def test_the_scenes_hold_peaks_to_compare():
    frame = spotty_frame(3, SHAPE, RADIUS)
    assert len(plain_find_peaks(frame, RADIUS, GOOD, PARAMS)) >= 15


def test_rings_that_contradict_their_sample_are_still_exact():
    # One pixel in 64 of a ring is sampled; here exactly those are wild, so every core is wrong.
    frame = spotty_frame(5, (1, 300, 300), radius_map((1, 300, 300)))
    radius = radius_map((1, 300, 300))
    plan = Peakfinder8(radius, np.zeros(radius.shape, bool), PARAMS).plan
    wild = np.setdiff1d(plan.sample, plan.sample[::3])
    for value in (0, 9, 5000):
        frame.ravel()[wild] = value
        expected = plain_find_peaks(frame, radius, np.zeros(radius.shape, bool), PARAMS)
        assert_same_peaks(find(frame, radius=radius, bad_pixels=np.zeros(radius.shape, bool)), expected)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), value=st.sampled_from([-1e6, 0.0, 7.0, 65535.0, 1e12, np.nan, np.inf]))
def test_masked_pixels_never_enter_a_peak_or_the_statistics(seed, value):
    frame = spotty_frame(seed, SHAPE, RADIUS)
    bad = np.random.default_rng(seed).random(SHAPE) < 0.1
    other = np.where(bad, np.float32(value), frame)
    pd.testing.assert_frame_equal(find(frame, bad_pixels=bad), find(other, bad_pixels=bad))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_count_as_masked(value):
    frame = spotty_frame(8, SHAPE, RADIUS)
    bad = np.random.default_rng(8).random(SHAPE) < 0.1
    pd.testing.assert_frame_equal(find(np.where(bad, np.float32(value), frame)), find(frame, bad_pixels=bad))


def test_values_outside_the_usable_range_count_as_masked():
    frame = spotty_frame(9, SHAPE, RADIUS, dtype=np.int32)
    bad = np.random.default_rng(9).random(SHAPE) < 0.1
    flagged = np.where(bad, -1, frame)
    expected = find(frame, bad_pixels=bad)
    pd.testing.assert_frame_equal(find(flagged, usable=value_range(0)), expected)
    assert len(expected) != len(find(flagged)) or not expected.equals(find(flagged))


def test_saturated_spots_are_found_and_can_be_excluded():
    frame = np.minimum(spotty_frame(10, SHAPE, RADIUS).astype(np.uint32) * 400, 65535).astype(np.uint16)
    params = Peakfinder8Params(threshold=20000, min_snr=4)
    with_saturated = find(frame, params=params)
    without = find(frame, params=params, usable=value_range(high=65534))
    assert (with_saturated.max_intensity + with_saturated.background > 65534).any()
    assert not (without.max_intensity + without.background > 65534).any()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.sampled_from([20, 40]))
def test_splitting_into_panels_keeps_peaks_away_from_edges(seed, rows):
    shape = (1, 80, 96)
    radius = radius_map(shape)
    frame = spotty_frame(seed, shape, radius)
    whole = find(frame, radius=radius, bad_pixels=np.zeros(shape, bool))
    cut = (80 // rows, rows, 96)
    parts = find(frame.reshape(cut), radius=radius.reshape(cut), bad_pixels=np.zeros(cut, bool))
    parts = parts.assign(ss=parts.ss + parts.panel * rows)
    names = ["fs", "ss", "intensity", "snr", "n_pixels"]
    margin = 14
    inner = [t[names][(t.ss % rows).between(margin, rows - 1 - margin)].to_numpy() for t in (whole, parts)]
    if rows == 40:
        inner = [t[t[:, 4] <= 30] for t in inner]
    order = [t[np.lexsort((t[:, 0], t[:, 1]))] for t in inner]
    np.testing.assert_allclose(order[0], order[1], rtol=1e-5)


def test_the_order_of_frames_does_not_matter():
    frames = np.stack([spotty_frame(seed, SHAPE, RADIUS) for seed in range(5)])
    options = {"radius": RADIUS, "bad_pixels": GOOD, "params": PARAMS}
    forward = find_peaks(frames, **options)
    backward = find_peaks(frames[::-1], **options)
    backward["frame"] = 4 - backward["frame"]
    back = backward.sort_values("frame", kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(forward, back, check_dtype=False)


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_threads_do_not_change_the_table(n_threads):
    frames = np.stack([spotty_frame(seed, SHAPE, RADIUS) for seed in range(6)])
    one = find_peaks(frames, radius=RADIUS, bad_pixels=GOOD, params=PARAMS, n_threads=1)
    pd.testing.assert_frame_equal(
        find_peaks(frames, radius=RADIUS, bad_pixels=GOOD, params=PARAMS, n_threads=n_threads), one
    )


@pytest.mark.parametrize("n_threads", [2, 5, 64])
def test_one_frame_worked_on_by_several_threads_gives_the_same_table(n_threads):
    shape = (2, 150, 300)
    radius = radius_map(shape)
    frame = spotty_frame(17, shape, radius, n_spots=150)
    tables = [
        find(frame, radius=radius, bad_pixels=np.zeros(shape, bool), n_threads=n) for n in (1, n_threads)
    ]
    assert len(tables[0]) > 50
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int16", "int32", "uint16", "uint32", "int64", ">f4"]
)
def test_every_pixel_type_gives_the_same_peaks(dtype):
    frame = np.minimum(spotty_frame(11, SHAPE, RADIUS), 2000)
    pd.testing.assert_frame_equal(find(frame.astype(dtype)), find(frame))


def test_frames_that_are_not_contiguous_are_read_right():
    frame = spotty_frame(12, SHAPE, RADIUS)
    wide = np.repeat(frame, 2, axis=2)
    pd.testing.assert_frame_equal(find(wide[:, :, ::2]), find(frame))


@pytest.mark.parametrize("value", [0, 5, 1000, 65535])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_constant_frame_holds_no_peak(value, dtype):
    assert find(np.full(SHAPE, value, dtype)).empty


def test_an_all_masked_panel_is_silent_and_leaves_the_others_alone():
    frame = spotty_frame(13, SHAPE, RADIUS)
    bad = GOOD.copy()
    bad[0] = True
    with_masked = find(frame, bad_pixels=bad)
    alone = find(frame[1:], radius=RADIUS[1:], bad_pixels=GOOD[1:])
    assert (with_masked.panel == 1).all()
    pd.testing.assert_frame_equal(with_masked.drop(columns="panel"), alone.drop(columns="panel"))


def test_a_frame_masked_everywhere_gives_an_empty_table():
    found = find(spotty_frame(14, SHAPE, RADIUS), bad_pixels=np.ones(SHAPE, bool))
    assert found.empty
    check_table(found, PEAKS)


def test_no_frames_give_an_empty_table():
    found = find_peaks(np.zeros((0, *SHAPE), np.float32), radius=RADIUS, bad_pixels=GOOD, params=PARAMS)
    assert found.empty
    check_table(found, PEAKS)


def test_the_table_follows_its_schema_and_counts_from_first_frame():
    frames = np.stack([spotty_frame(seed, SHAPE, RADIUS) for seed in range(2)])
    found = find_peaks(frames, radius=RADIUS, bad_pixels=GOOD, params=PARAMS, first_frame=100)
    check_table(found, PEAKS)
    assert set(found.frame) == {100, 101}
    assert found.inv_d.isna().all()
    assert found.score.isna().all()
    np.testing.assert_allclose(found.snr, found.intensity / found.sigma, rtol=1e-5)


def test_one_mask_per_frame():
    frames = np.stack([spotty_frame(1, SHAPE, RADIUS)] * 2)
    masks = np.stack([GOOD, np.random.default_rng(0).random(SHAPE) < 0.2])
    both = find_peaks(frames, radius=RADIUS, bad_pixels=masks, params=PARAMS)
    for i in range(2):
        alone = find(frames[i], bad_pixels=masks[i], first_frame=i)
        pd.testing.assert_frame_equal(both[both.frame == i].reset_index(drop=True), alone)


def test_the_peak_limit_keeps_the_first_in_raster_order():
    frame = spotty_frame(15, SHAPE, RADIUS, n_spots=60)
    every = find(frame)
    few = find(frame, params=Peakfinder8Params(threshold=20, min_snr=4, max_peaks=5))
    pd.testing.assert_frame_equal(few, every.iloc[:5])


def test_sampled_statistics_find_nearly_the_same_peaks():
    shape = (1, 400, 400)
    radius = radius_map(shape)
    frame = spotty_frame(16, shape, radius, n_spots=150)
    clean = np.zeros(shape, bool)
    exact = find(frame, radius=radius, bad_pixels=clean)
    sampled = find(
        frame, radius=radius, bad_pixels=clean,
        params=Peakfinder8Params(threshold=20, min_snr=4, statistics="sampled"),
    )  # fmt: skip
    precision, recall, _ = paired(sampled, exact)
    assert precision > 0.9
    assert recall > 0.9


def test_a_threshold_of_zero_is_refused():
    with pytest.raises(ParameterError, match=r"threshold.*> 0"):
        Peakfinder8Params(threshold=0)


def test_frames_of_another_shape_are_refused():
    with pytest.raises(RunError, match=r"do not fit the radius map.*2, 80, 96"):
        find(np.zeros((2, 80, 95), np.float32))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ParameterError, match="not stacks of one shape"):
        find(np.zeros(SHAPE, np.float32), bad_pixels=GOOD[:1])


def test_pixels_that_are_no_numbers_are_refused():
    with pytest.raises(RunError, match="not numbers"):
        find(np.zeros(SHAPE, bool))
