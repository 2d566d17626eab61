"""The droplet finder against a plain transcription of its rules, and what must hold for any frame."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.peaks.droplet import DropletParams, find_droplets
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import check_table
from peaknet_pipeline_tests.peaks.peak_scenes import radius_map, spotty_frame

SHAPE = (2, 60, 70)
RADIUS = radius_map(SHAPE)
GOOD = np.zeros(SHAPE, bool)
PARAMS = DropletParams(thr_low=25, thr_high=60, son_min=4)
COLUMNS = ["panel", "fs", "ss", "intensity", "max_intensity", "background", "sigma", "snr", "n_pixels"]


def plain_droplets(stack, bad, p):
    """Rows of one frame, rule by rule."""
    rows = []
    for panel, (image, mask) in enumerate(zip(stack.astype(float), bad, strict=True)):
        good = ~mask & np.isfinite(image)
        image = np.where(good, image, -np.inf)
        for ss, fs in np.argwhere(image > p.thr_high):
            top, left = max(ss - p.rank, 0), max(fs - p.rank, 0)
            square = image[top : ss + p.rank + 1, left : fs + p.rank + 1]
            if np.unravel_index(np.argmax(square), square.shape) != (ss - top, fs - left):
                continue
            blob = droplet(square > p.thr_low, ss - top, fs - left)
            values, (y, x) = square[blob], np.nonzero(blob)
            yy, xx = np.indices(image.shape)
            distance = np.hypot(yy - ss, xx - fs)
            ring = good & (distance >= p.r0) & (distance < p.r0 + p.dr) & (image <= p.thr_low)
            mean, sigma = (image[ring].mean(), image[ring].std()) if ring.any() else (0.0, 0.0)
            a = values - mean
            snr = a.sum() / sigma if sigma > 0 else 0
            passes = p.npix_min <= len(a) <= p.npix_max and a.max() >= p.amax_thr and a.sum() >= p.atot_thr
            if passes and snr / np.sqrt(len(a)) >= p.son_min:
                at = ((a * (x + left)).sum() / a.sum(), (a * (y + top)).sum() / a.sum())
                rows.append((panel, *at, a.sum(), a.max(), mean, sigma, snr, len(a)))
    return np.array(rows).reshape(-1, 9)


def droplet(above, ss, fs):
    """Grow from the maximum through edge neighbours until nothing changes."""
    blob = np.zeros_like(above)
    blob[ss, fs] = True
    while True:
        grown = blob.copy()
        grown[1:] |= blob[:-1]
        grown[:-1] |= blob[1:]
        grown[:, 1:] |= blob[:, :-1]
        grown[:, :-1] |= blob[:, 1:]
        grown &= above
        if (grown == blob).all():
            return blob
        blob = grown


def find(frame, bad=GOOD, params=PARAMS, **options):
    """Droplets of one frame."""
    return find_droplets(frame[None], bad_pixels=bad, params=params, **options)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float32", "uint16"]),
    rank=st.integers(1, 4),
    r0=st.sampled_from([2.0, 4.0, 6.0]),
    npix_max=st.sampled_from([6, 30]),
)
def test_droplets_are_those_of_the_plain_transcription(seed, dtype, rank, r0, npix_max):
    frame = spotty_frame(seed, SHAPE, RADIUS, level=10, dtype=dtype)
    bad = np.random.default_rng(seed).random(SHAPE) < 0.03
    params = dataclasses.replace(PARAMS, rank=rank, r0=r0, npix_max=npix_max, amax_thr=45, atot_thr=80)
    expected = plain_droplets(frame, bad, params)
    np.testing.assert_allclose(
        find(frame, bad, params)[COLUMNS].to_numpy(float), expected, rtol=1e-4, atol=1e-3
    )


def test_the_scenes_hold_droplets_to_compare():
    assert len(plain_droplets(spotty_frame(1, SHAPE, RADIUS, level=10), GOOD, PARAMS)) >= 10


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_masked_pixels_never_matter(value):
    frame = spotty_frame(2, SHAPE, RADIUS, level=10)
    bad = np.random.default_rng(2).random(SHAPE) < 0.1
    other = np.where(bad, np.float32(value), frame)
    assert find(other, bad).equals(find(frame, bad))


@pytest.mark.parametrize("value", [0, 100])
def test_a_constant_frame_holds_no_droplet(value):
    found = find(np.full(SHAPE, value, np.int32))
    assert found.empty
    check_table(found, PEAKS)


def test_equal_highest_pixels_make_one_peak():
    rng = np.random.default_rng(0)
    frame = rng.poisson(5, SHAPE).astype(np.float32)
    frame[0, 20:22, 20:22] = 100
    found = find(frame)
    assert len(found) == 1
    assert found.n_pixels[0] == 4
    np.testing.assert_allclose(found[["fs", "ss"]], [[20.5, 20.5]], atol=1e-5)


def test_frames_are_numbered_and_their_order_does_not_matter():
    frames = np.stack([spotty_frame(seed, SHAPE, RADIUS, level=10) for seed in range(3)])
    found = find_droplets(frames, bad_pixels=GOOD, params=PARAMS, first_frame=7)
    for i in range(3):
        alone = find(frames[i], first_frame=7 + i)
        assert found[found.frame == 7 + i].reset_index(drop=True).equals(alone)


def test_the_peak_limit_keeps_the_first():
    frame = spotty_frame(3, SHAPE, RADIUS, level=10)
    few = find(frame, params=dataclasses.replace(PARAMS, max_peaks=3))
    assert few.equals(find(frame).iloc[:3])


def test_crossed_thresholds_are_refused():
    with pytest.raises(ParameterError, match="below thr_low"):
        DropletParams(thr_low=50, thr_high=20)


def test_frames_that_do_not_fit_the_mask_are_refused():
    with pytest.raises(RunError, match="do not fit the mask"):
        find_droplets(np.zeros((1, 2, 3, 4), np.float32), bad_pixels=GOOD, params=PARAMS)
