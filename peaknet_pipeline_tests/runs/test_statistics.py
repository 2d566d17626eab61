"""Run statistics equal the textbook's, batch by batch; bad pixels are the planted ones."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.bad_pixels import BadPixelParams, find_bad_pixels
from peaknet_pipeline.runs.local_median import local_median
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.sample import sample_frames
from peaknet_pipeline.runs.statistics import (
    StatisticsAccumulator,
    compute_statistics,
    frame_ranges,
)
from peaknet_pipeline.types import RunStatistics
from peaknet_pipeline_tests.runs.files import (
    module_geometry,
    random_stack,
    slab_geometry,
    write_run,
    write_slab_run,
)


@given(
    hnp.arrays(np.float32, (7, 2, 3, 4), elements=st.floats(-1e6, 1e6, width=32) | st.just(np.nan)),
    st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_statistics_in_batches_equal_numpys(frames: np.ndarray, size: int) -> None:
    accumulator = StatisticsAccumulator((2, 3, 4))
    for start in range(0, 7, size):
        accumulator.add(frames[start : start + size])
    result = accumulator.result()
    wide = np.ma.masked_invalid(frames.astype(np.float64))
    np.testing.assert_allclose(result.mean, wide.mean(axis=0).filled(np.nan), rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(result.std, wide.std(axis=0).filled(np.nan), rtol=1e-5, atol=1e-2)
    np.testing.assert_array_equal(result.maximum, wide.max(axis=0).filled(np.nan).astype(np.float32))
    assert result.n_frames == 7


def test_a_small_spread_on_a_large_mean_survives() -> None:
    frames = (1e6 + np.arange(100) % 2)[:, None, None, None] * np.ones((1, 1, 2, 2))
    accumulator = StatisticsAccumulator((1, 2, 2))
    accumulator.add(frames)
    np.testing.assert_allclose(accumulator.result().std, 0.5, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint8", "float32", "float16", "float64"])
def test_every_dtype_of_detectors_is_taken(dtype: str) -> None:
    frames = random_stack(5, dtype=dtype)
    accumulator = StatisticsAccumulator(frames.shape[1:])
    accumulator.add(frames)
    np.testing.assert_allclose(accumulator.result().mean, frames.astype(np.float64).mean(axis=0), rtol=1e-6)


def test_a_run_is_read_in_ranges_with_progress_and_flags_left_out(tmp_path: Path) -> None:
    frames = random_stack(9, dtype="int32")
    frames[3, 1, 2, 3], frames[:, 0, 0, 0] = -1, -2
    write_run(tmp_path / "run.cxi", frames)
    seen: list[tuple[int, int]] = []
    geometry = module_geometry()
    with open_run(tmp_path / "run.cxi", geometry) as run:
        plain = compute_statistics(run, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (9, 9)
    np.testing.assert_allclose(plain.mean, frames.mean(axis=0), rtol=1e-6)
    text = "flag_lessthan = 0\n" + geometry.text
    (tmp_path / "flags.geom").write_text(text)
    with open_run(tmp_path / "run.cxi", tmp_path / "flags.geom") as run:
        flagged = compute_statistics(run)
    assert np.isnan(flagged.mean[0, 0, 0])
    kept = np.delete(frames[:, 1, 2, 3], 3)
    assert flagged.mean[1, 2, 3] == pytest.approx(kept.mean())
    assert flagged.std[1, 2, 3] == pytest.approx(kept.std(), rel=1e-5)


def test_sampled_frames_are_spread_over_the_run() -> None:
    assert sample_frames(10, None).tolist() == list(range(10))
    assert sample_frames(5, 9).tolist() == list(range(5))
    assert sample_frames(101, 3).tolist() == [0, 50, 100]
    assert frame_ranges(np.array([0, 1, 2, 3, 7, 8]), 3) == [(0, 3), (3, 4), (7, 9)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_the_local_median_is_numpys_over_each_window(seed: int, radius: int) -> None:
    rng = np.random.default_rng(seed)
    stack = rng.normal(size=(2, 7, 9)).astype(np.float32)
    bad = rng.random(stack.shape) < 0.3
    result = local_median(stack, bad, radius)
    good = np.where(bad, np.nan, stack)
    for p, y, x in np.ndindex(stack.shape):
        window = good[p].copy()
        window[y, x] = np.nan
        window = window[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
        values = window[np.isfinite(window)]
        if values.size:
            assert result[p, y, x] == pytest.approx(np.median(values), rel=1e-6)
        else:
            assert np.isnan(result[p, y, x])


def _planted_run(path: Path, seed: int = 3) -> dict[str, np.ndarray]:
    """Write 40 frames with rings, a shadow, Bragg spots and planted bad pixels; return where those are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:160, 0:200]
    r = np.hypot(y - 80, x - 90)
    level = 4 + 30 * np.exp(-0.5 * ((r - 55) / 1.2) ** 2) + 20 * np.exp(-r / 40)
    level[70:100, 80:100] = 0.02
    scale = rng.uniform(0.3, 2.0, 40)
    frames = rng.poisson(scale[:, None, None] * level).astype(np.int32)
    for frame in frames[::2]:
        for cy, cx in rng.integers(4, 150, (25, 2)):
            frame[cy - 1 : cy + 2, cx - 1 : cx + 2] += rng.poisson(120, (3, 3))
    order = rng.permutation(np.flatnonzero((level > 3).ravel()))
    kinds = {"hot": order[:30], "warm": order[30:40], "dead": order[40:60], "noisy": order[60:70]}
    flat = frames.reshape(40, -1)
    flat[:, kinds["hot"]] = rng.poisson(900, (40, 30))
    flat[:, kinds["warm"]] += 80
    flat[:, kinds["dead"]] = 0
    flat[:, kinds["noisy"]] += np.where(rng.random((40, 10)) < 0.4, 400, 0).astype(np.int32)
    write_run(path, frames)
    return kinds


def test_planted_hot_dead_and_noisy_pixels_are_found_and_rings_and_shadow_are_not(tmp_path: Path) -> None:
    kinds = _planted_run(tmp_path / "run.cxi")
    with open_run(tmp_path / "run.cxi") as run:
        report = find_bad_pixels(run)
    hot, dead, noisy = (m.ravel() for m in (report.hot, report.dead, report.noisy))
    assert hot[kinds["hot"]].all()
    assert hot[kinds["warm"]].all()
    assert dead[kinds["dead"]].mean() >= 0.9
    assert noisy[kinds["noisy"]].mean() >= 0.8
    planted = np.zeros(hot.size, bool)
    planted[np.concatenate(list(kinds.values()))] = True
    assert (report.bad_pixels.ravel() & ~planted).sum() <= 0.0002 * hot.size
    assert {s.name: s.n_new for s in report.sources}["hot"] == hot.sum()


def test_dead_pixels_with_read_noise_are_found_by_their_mean(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    level = np.full((80, 90), 2.0)
    level[:, :20] = 0.01  # where nothing shines nobody can tell
    frames = rng.poisson(level, (60, 80, 90)) + rng.normal(0, 0.3, (60, 80, 90))
    dead = rng.choice(np.flatnonzero(level > 1), 15, replace=False)
    frames.reshape(60, -1)[:, dead] = rng.normal(0, 0.3, (60, 15))
    write_run(tmp_path / "run.cxi", frames.astype(np.float32))
    with open_run(tmp_path / "run.cxi") as run:
        report = find_bad_pixels(run)
    assert np.flatnonzero(report.dead).tolist() == sorted(dead.tolist())
    assert report.bad_pixels.sum() == 15


def test_what_the_mask_knows_is_not_found_again(tmp_path: Path) -> None:
    kinds = _planted_run(tmp_path / "run.cxi")
    mask = np.zeros(160 * 200, np.uint8)
    mask[kinds["hot"]] = 1
    with h5py.File(tmp_path / "run.cxi", "a") as file:
        file["/entry_1/data_1/mask"] = mask.reshape(160, 200)
    with open_run(tmp_path / "run.cxi") as run:
        report = find_bad_pixels(run)
    assert not report.hot.ravel()[kinds["hot"]].any()
    assert report.bad_pixels.ravel()[kinds["hot"]].all()


def test_too_few_frames_tell_nothing(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi", 4)
    with open_run(tmp_path / "run.cxi", slab_geometry()) as run:
        report = find_bad_pixels(run, params=BadPixelParams(min_frames=8))
    assert not report.bad_pixels.any()


def test_frames_of_constant_value_have_no_bad_pixels(tmp_path: Path) -> None:
    write_run(tmp_path / "run.cxi", np.full((12, 3, 6, 8), 7, np.uint16))
    with open_run(tmp_path / "run.cxi", module_geometry()) as run:
        assert not find_bad_pixels(run).bad_pixels.any()


def test_statistics_of_another_detector_are_refused(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi", 9)
    zeros = np.zeros((1, 4, 4), np.float32)
    with (
        open_run(tmp_path / "run.cxi", slab_geometry()) as run,
        pytest.raises(RunError, match="another detector"),
    ):
        find_bad_pixels(run, RunStatistics(zeros, zeros, zeros, 9))


def test_hot_pixels_of_the_crystfel_simulation_are_found(realdata: Path) -> None:
    """At least 95 % of those its mask doesn't know, at most 0.02 % of good pixels lost.

    The reference is made from the frames another way: pixels that outshine the median of their 5×5
    neighbourhood by far in every single frame.
    """
    folder = realdata / "crystfel_simulated"
    with open_run(folder / "sim1k.cxi", folder / "sim1k.geom") as run:
        report = find_bad_pixels(run)
        known = run.bad_pixels[0]
        frames = run.read(0, run.n_frames)[:, 0].astype(np.float64)
    lowest = frames.min(axis=0)
    candidates = np.argwhere((lowest > 20) & ~known)
    hot = np.zeros(known.shape, bool)
    for y, x in candidates:
        window = frames[:, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].reshape(len(frames), -1)
        hot[y, x] = (frames[:, y, x] > 3 * np.median(window, axis=1) + 20).all()
    assert hot.sum() >= 20
    assert report.hot[0][hot].mean() >= 0.95
    lost = report.bad_pixels[0] & ~known & ~hot
    assert lost.sum() <= 0.0002 * (~known & ~hot).sum()
