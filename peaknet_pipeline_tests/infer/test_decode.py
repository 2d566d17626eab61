"""A decoded peak is measured right, whatever surrounds it; device path and compiled path agree."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import erf

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.decode import decode_frames, logit_of, probability_of
from peaknet_pipeline.infer.decode_torch import decode_tensors
from peaknet_pipeline.infer.params import DecodeParams
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import check_table
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, FrameArray, IntArray
from peaknet_pipeline_tests.infer.fakes import gaussian_frames

SHAPE = (2, 3, 40, 48)
EVERY = {"min_snr": 0.0, "min_neighbour": 0.0}
"""Keeps every peak, however weak or lonely."""
SPOTS = np.array(
    [
        [0, 0, 12.3, 20.8, 200.0],
        [0, 0, 30.0, 7.4, 80.0],
        [0, 2, 21.6, 33.1, 150.0],
        [1, 1, 8.9, 40.5, 300.0],
    ]
)


def as_logits(frames: FrameArray, level: float = 30.0) -> Float32Array:
    return ((frames - level) / 10.0).astype(np.float32)


def decode_on_torch(
    frames: FrameArray, logits: Float32Array, bad: BoolArray, *, threshold: float, params: DecodeParams
) -> PeakTable:
    pixels = torch.from_numpy(frames.astype(np.float32)).flatten(0, 1)
    good = ~torch.from_numpy(np.broadcast_to(bad, frames.shape).copy()).flatten(0, 1) & pixels.isfinite()
    flat = torch.from_numpy(logits).flatten(0, 1)
    return decode_tensors(pixels, flat, good, logit_of(threshold), frames.shape[1], params=params).peaks


def reference(
    frames: FrameArray, logits: Float32Array, bad: BoolArray, threshold: float, params: DecodeParams
) -> pd.DataFrame:
    """The same rules, slowly, with scipy."""
    rows = []
    for frame, panel in np.ndindex(frames.shape[:2]):
        image, usable = frames[frame, panel].astype(float), ~bad[panel] & np.isfinite(frames[frame, panel])
        peak_pixels = (logits[frame, panel] >= logit_of(threshold)) & usable
        labels, n = ndimage.label(peak_pixels, np.ones((3, 3)))
        guard = peak_pixels  # scipy takes 0 iterations for endless ones
        if params.guard:
            guard = ndimage.binary_dilation(peak_pixels, np.ones((3, 3)), iterations=params.guard)
        ss, fs = np.indices(image.shape)
        for number in range(1, n + 1):
            member = labels == number
            if not params.min_pix <= member.sum() <= params.max_pix:
                continue
            distance2 = (ss - np.rint(ss[member].mean())) ** 2 + (fs - np.rint(fs[member].mean())) ** 2
            around = image[(distance2 <= params.background_radius**2) & usable & ~guard]
            if around.size < 12:
                around = image[(distance2 <= (2 * params.background_radius) ** 2) & usable & ~guard]
            mean, sigma = (around.mean(), around.std()) if around.size else (0.0, 0.0)
            above = image[member] - mean
            weight = np.clip(above, 0, None)
            weight = weight if weight.sum() > 0 else np.ones_like(weight)
            own = np.average(ss[member], weights=weight), np.average(fs[member], weights=weight)
            top = np.argwhere(member)[np.argmax(above)]
            around_top = (
                reference_centre(np.where(usable, image - mean, 0.0), top) if member.sum() <= 25 else None
            )
            centre = own if around_top is None else around_top
            rows.append(
                {
                    "frame": frame,
                    "panel": panel,
                    "ss": centre[0],
                    "fs": centre[1],
                    "intensity": above.sum(),
                    "max_intensity": above.max(),
                    "background": mean,
                    "sigma": sigma,
                    "snr": above.sum() / sigma if sigma > 0 else 0.0,
                    "n_pixels": member.sum(),
                    "score": probability_of(np.float64(logits[frame, panel][member].max())),
                }
            )
    return pd.DataFrame(rows)


def reference_centre(values: Float64Array, top: IntArray) -> Float64Array | None:
    """The centre around the highest pixel: 3x3 centre of mass of sharp spots, else windowed; None if there is none."""
    image = np.pad(values, 4)[top[0] : top[0] + 9, top[1] : top[1] + 9]
    steps = np.stack(np.mgrid[-4:5, -4:5])
    ring = np.abs(steps).max(axis=0)
    if image[ring <= 1].sum() >= 0.901 * image[ring <= 2].sum():
        weight = np.clip(image, 0, None) * (ring <= 1)
        return top + (weight * steps).sum(axis=(1, 2)) / weight.sum() if weight.sum() > 0 else None
    shift = np.zeros(2)
    for _ in range(4):
        apart = steps - shift[:, None, None]
        weight = image * np.exp(-0.5 * (apart**2).sum(axis=0))
        if weight.sum() <= 0.1 * np.abs(weight).sum():
            return None
        shift = shift + np.clip(2 * (weight * apart).sum(axis=(1, 2)) / weight.sum(), -1, 1)
    return top + shift if np.abs(shift).max() <= 2 else None


def assert_same_peaks(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert len(found) == len(expected)
    for name in expected.columns:
        np.testing.assert_allclose(
            found[name].to_numpy(float), expected[name].to_numpy(float), rtol=2e-4, atol=2e-3, err_msg=name
        )


def random_case(seed: int) -> tuple[FrameArray, Float32Array, BoolArray]:
    rng = np.random.default_rng(seed)
    shape = (2, 2, *rng.integers(5, 30, 2))
    frames = rng.poisson(8.0, shape).astype(rng.choice([np.float32, np.float64, np.uint16, np.int32]))
    logits = ndimage.gaussian_filter(rng.normal(-0.2, 2.0, shape), (0, 0, 0.8, 0.8)).astype(np.float32)
    bad = rng.random(shape[1:]) < 0.1
    if frames.dtype.kind == "f":
        frames[rng.random(shape) < 0.02] = np.nan
    return frames, logits, bad


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), guard=st.integers(0, 2), radius=st.integers(2, 5), min_pix=st.integers(1, 3)
)
def test_every_figure_follows_the_rules(seed: int, guard: int, radius: int, min_pix: int) -> None:
    frames, logits, bad = random_case(seed)
    params = DecodeParams(guard=guard, background_radius=radius, min_pix=min_pix, max_pix=40, **EVERY)
    expected = reference(frames, logits, bad, 0.6, params)
    assert_same_peaks(decode_frames(frames, logits, bad, threshold=0.6, params=params), expected)
    assert_same_peaks(decode_on_torch(frames, logits, bad, threshold=0.6, params=params), expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), distance=st.integers(1, 3))
def test_device_and_compiled_splitting_agree(seed: int, distance: int) -> None:
    frames, logits, bad = random_case(seed)
    params = DecodeParams(split_distance=distance, **EVERY)
    compiled = decode_frames(frames, logits, bad, threshold=0.5, params=params)
    on_device = decode_on_torch(frames, logits, bad, threshold=0.5, params=params)
    assert_same_peaks(on_device, compiled.drop(columns="inv_d"))


def test_centres_of_known_spots() -> None:
    frames = gaussian_frames(SPOTS, SHAPE)
    table = decode_frames(frames, as_logits(frames), np.zeros(SHAPE[1:], bool), threshold=0.5)
    check_table(table, PEAKS)
    assert table[["frame", "panel"]].to_numpy().tolist() == [[0, 0], [0, 0], [0, 2], [1, 1]]
    np.testing.assert_allclose(table[["ss", "fs"]], SPOTS[:, 2:4], atol=0.1)
    assert table["inv_d"].isna().all()


@pytest.mark.parametrize(
    ("sigma", "photons", "least"),
    [(0.35, 300, 0.08), (0.35, 60, 0.2), (0.5, 300, 0.08), (0.8, 300, 0.13), (1.2, 1000, 0.13)],
)
def test_centres_come_near_what_the_pixels_tell_however_sharp_the_spot(
    sigma: float, photons: float, least: float
) -> None:
    rng = np.random.default_rng(5)
    edges = np.arange(31) - 0.5
    centres = 15 + rng.uniform(-0.5, 0.5, (200, 2))
    ss, fs = (np.diff(erf((edges - c[:, None]) / (np.sqrt(2) * sigma)) / 2, axis=1) for c in centres.T)
    expected = photons * ss[:, None, :, None] * fs[:, None, None, :] + 2.0
    frames = rng.poisson(expected).astype(np.float32)
    # The pixels of at least half of the expected maximum, as the network is taught.
    high = expected - 2 >= 0.5 * (expected - 2).max(axis=(2, 3), keepdims=True)
    logits = np.where(high, 5.0, -5.0).astype(np.float32)
    bad = np.zeros((1, 30, 30), dtype=bool)
    table = decode_frames(frames, logits, bad, threshold=0.5, params=DecodeParams(**EVERY))
    assert table["frame"].tolist() == list(range(200))
    apart = table[["ss", "fs"]].to_numpy() - centres
    assert np.sqrt((apart**2).sum(axis=1).mean()) < least


def test_intensity_is_above_the_background_and_background_is_right() -> None:
    rng = np.random.default_rng(3)
    frames = gaussian_frames(SPOTS, SHAPE, background=0.0) + rng.normal(50.0, 4.0, SHAPE)
    logits = as_logits(gaussian_frames(SPOTS, SHAPE), level=14.0)
    table = decode_frames(frames, logits, np.zeros(SHAPE[1:], bool), threshold=0.5)
    full = SPOTS[:, 4] * 2 * np.pi * 0.9**2
    np.testing.assert_allclose(table["intensity"], full, rtol=0.1)
    np.testing.assert_allclose(table["background"], 50.0, atol=2.0)
    np.testing.assert_allclose(table["sigma"], 4.0, atol=1.2)
    np.testing.assert_allclose(table["snr"], table["intensity"] / table["sigma"], rtol=1e-5)


def test_a_neighbouring_spot_does_not_raise_the_background() -> None:
    spots = np.array([[0, 0, 20.0, 20.0, 100.0], [0, 0, 20.0, 27.0, 3000.0]])
    frames = gaussian_frames(spots, (1, 1, 40, 48))
    table = decode_frames(frames, as_logits(frames, 15.0), np.zeros((1, 40, 48), bool), threshold=0.5)
    assert table["background"].iloc[0] == pytest.approx(10.0, abs=0.2)


def test_bad_and_non_finite_pixels_belong_to_no_peak_and_no_background() -> None:
    frames = gaussian_frames(SPOTS[:1], (1, 1, 40, 48))
    clean = decode_frames(frames, as_logits(frames), np.zeros((1, 40, 48), bool), threshold=0.5)
    bad = np.zeros((1, 40, 48), bool)
    bad[0, 12, 17] = bad[0, 30, 30] = True
    hurt = frames.copy()
    hurt[0, 0, bad[0]] = 1e6
    hurt[0, 0, 15, 22], hurt[0, 0, 5, 5] = np.nan, np.inf
    logits = as_logits(hurt)
    assert logits[0, 0, 5, 5] == np.inf
    table = decode_frames(hurt, logits, bad, threshold=0.5)
    assert len(table) == 1
    np.testing.assert_allclose(table["intensity"], clean["intensity"], rtol=1e-3)


def test_components_do_not_cross_panels() -> None:
    frames = gaussian_frames(np.array([[0, 0, 39.5, 20, 100.0], [0, 1, -0.5, 20, 100.0]]), (1, 2, 40, 48))
    table = decode_frames(frames, as_logits(frames), np.zeros((2, 40, 48), bool), threshold=0.5)
    assert table["panel"].tolist() == [0, 1]


@pytest.mark.parametrize("corner", [(0, 0), (0, 47), (39, 0), (39, 47)])
def test_peaks_in_the_corner_are_found(corner: tuple[int, int]) -> None:
    frames = gaussian_frames(np.array([[0, 0, *corner, 100.0]]), (1, 1, 40, 48))
    table = decode_frames(frames, as_logits(frames), np.zeros((1, 40, 48), bool), threshold=0.5)
    assert len(table) == 1
    np.testing.assert_allclose(table[["ss", "fs"]].to_numpy()[0], corner, atol=0.6)


def test_merged_spots_are_split_on_request() -> None:
    spots = np.array([[0, 0, 20.0, 20.0, 100.0], [0, 0, 21.0, 24.0, 120.0]])
    frames = gaussian_frames(spots, (1, 1, 40, 48), sigma=1.2)
    logits, bad = as_logits(frames, 15.0), np.zeros((1, 40, 48), bool)
    assert len(decode_frames(frames, logits, bad, threshold=0.5)) == 1
    table = decode_frames(frames, logits, bad, threshold=0.5, params=DecodeParams(split_distance=2, **EVERY))
    np.testing.assert_allclose(table[["ss", "fs"]], spots[:, 2:4], atol=0.3)


def test_size_limits_are_inclusive() -> None:
    logits = np.full((1, 1, 9, 30), -5.0, dtype=np.float32)
    for n in (1, 2, 3, 4):
        logits[0, 0, 4, 6 * n : 6 * n + n] = 5.0
    frames, bad = np.ones(logits.shape), np.zeros((1, 9, 30), bool)
    table = decode_frames(
        frames, logits, bad, threshold=0.5, params=DecodeParams(min_pix=2, max_pix=3, **EVERY)
    )
    assert table["n_pixels"].tolist() == [2, 3]


def test_a_lone_bright_pixel_is_no_peak_where_a_neighbour_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    frames = rng.poisson(5.0, SHAPE).astype(np.float32)
    frames[0, 0, 10, 10] = 900.0
    frames[0, 0, 25, 30], frames[0, 0, 25, 31] = 80.0, 30.0
    frames[1, 2, 0, 0], frames[1, 2, 1, 0] = 80.0, 30.0
    bad = np.zeros(SHAPE[1:], dtype=bool)
    params = DecodeParams(min_neighbour=4.0)
    found = decode_frames(frames, as_logits(frames, 50.0), bad, threshold=0.5, params=params)
    on_torch = decode_on_torch(frames, as_logits(frames, 50.0), bad, threshold=0.5, params=params)
    assert found[["frame", "panel"]].to_numpy().tolist() == [[0, 0], [1, 2]]
    assert np.hypot(found["ss"][0] - 25, found["fs"][0] - 30) < 0.5
    pd.testing.assert_frame_equal(found, on_torch, rtol=1e-4)


def test_a_dim_pixel_beside_a_hot_one_is_no_peak_where_a_neighbour_is_asked_for() -> None:
    frames = np.random.default_rng(3).poisson(5.0, SHAPE).astype(np.float32)
    frames[0, 0, 10, 10] = 900.0
    frames[0, 0, 20, 20:22] = 80.0, 30.0
    logits = np.full(SHAPE, -5.0, dtype=np.float32)
    logits[0, 0, 10, 11] = logits[0, 0, 20, 20] = 5.0  # the network calls the hot pixel's neighbour a peak
    bad = np.zeros(SHAPE[1:], dtype=bool)
    params = DecodeParams(min_neighbour=3.0)
    for decode in (decode_frames, decode_on_torch):
        found = decode(frames, logits, bad, threshold=0.5, params=params)
        assert len(found) == 1
        np.testing.assert_allclose(found[["ss", "fs"]].to_numpy()[0], [20.0, 20.27], atol=0.15)


def test_a_spot_on_no_background_at_all_is_kept_and_a_lone_photon_is_not() -> None:
    frames = np.zeros(SHAPE, dtype=np.float32)
    frames[0, 0, 10, 10:12] = 6.0, 3.0
    frames[1, 1, 20, 20] = 1.0
    bad = np.zeros(SHAPE[1:], dtype=bool)
    params = DecodeParams(min_snr=1.0, min_neighbour=3.0)
    found = decode_frames(frames, as_logits(frames, 0.5), bad, threshold=0.5, params=params)
    on_torch = decode_on_torch(frames, as_logits(frames, 0.5), bad, threshold=0.5, params=params)
    assert found[["frame", "n_pixels"]].to_numpy().tolist() == [[0, 2]]
    pd.testing.assert_frame_equal(found, on_torch)


@given(seed=st.integers(0, 10_000), least=st.sampled_from([0.5, 1.5, 3.0]))
@settings(max_examples=15, deadline=None)
def test_device_and_compiled_neighbours_agree(seed: int, least: float) -> None:
    frames, logits, bad = random_case(seed)
    params = DecodeParams(min_snr=0.0, min_neighbour=least)
    found = decode_frames(frames, logits, bad, threshold=0.6, params=params)
    on_torch = decode_on_torch(frames, logits, bad, threshold=0.6, params=params)
    assert len(found) == len(on_torch)
    np.testing.assert_allclose(found["snr"], on_torch["snr"], rtol=2e-4, atol=2e-3)


def test_too_many_peaks_keep_the_best_scores_of_each_frame() -> None:
    logits = np.full((2, 1, 30, 30), -5.0, dtype=np.float32)
    heights = np.random.default_rng(1).permutation(np.linspace(0.5, 4.0, 25)).astype(np.float32)
    logits[:, 0, 1::6, 1::6] = heights.reshape(5, 5)
    params = DecodeParams(max_peaks=7, **EVERY)
    table = decode_frames(
        np.ones(logits.shape), logits, np.zeros((1, 30, 30), bool), threshold=0.5, params=params
    )
    best = probability_of(heights[np.sort(np.argsort(-heights)[:7])].astype(float))
    for frame in (0, 1):
        np.testing.assert_allclose(table.loc[table["frame"] == frame, "score"], best, rtol=1e-6)


def test_nothing_found_is_an_empty_table() -> None:
    logits = np.full((3, 2, 8, 8), -9.0, dtype=np.float32)
    frames, bad = np.ones(logits.shape, np.uint16), np.zeros((2, 8, 8), bool)
    params = DecodeParams()
    for table in (
        decode_frames(frames, logits, bad, threshold=0.5),
        decode_frames(frames[:0], logits[:0], bad, threshold=0.5),
        decode_on_torch(frames, logits, bad, threshold=0.5, params=params),
    ):
        check_table(table, PEAKS)
        assert len(table) == 0


def test_threads_give_the_same_table() -> None:
    frames = gaussian_frames(SPOTS, SHAPE)
    bad = np.zeros(SHAPE[1:], bool)
    one = decode_frames(frames, as_logits(frames), bad, threshold=0.5)
    assert decode_frames(frames, as_logits(frames), bad, threshold=0.5, n_threads=4).equals(one)


def test_foreign_byte_order_is_read() -> None:
    frames = gaussian_frames(SPOTS, SHAPE).astype(">u2")
    logits = as_logits(frames.astype(float))
    table = decode_frames(frames, logits, np.zeros(SHAPE[1:], bool), threshold=0.5)
    assert len(table) == 4


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StreamError, match="do not fit"):
        decode_frames(
            np.ones((1, 2, 4, 4)), np.ones((1, 2, 4, 5), np.float32), np.zeros((2, 4, 4), bool), threshold=0.5
        )


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, float("nan")])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(StreamError, match="no usable threshold"):
        logit_of(threshold)


@given(st.floats(1e-6, 1 - 1e-6))
def test_logit_and_probability_are_inverse(p: float) -> None:
    assert probability_of(np.float64(logit_of(p))) == pytest.approx(p)
