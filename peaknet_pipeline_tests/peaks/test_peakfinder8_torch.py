"""The device finder gives the compiled finder's peaks, with torch and with Triton; on a GPU where there is one.

Without a GPU Triton's kernels run in its interpreter, which ``conftest`` asks for before anything imports Triton.
"""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import ModelError, ParameterError, RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.geometry.usable import value_range
from peaknet_pipeline.peaks import peakfinder8
from peaknet_pipeline.peaks.peakfinder8 import PEAKFINDER8, Peakfinder8Params, find_peaks
from peaknet_pipeline.peaks.peakfinder8_kernels import device_peakfinder8
from peaknet_pipeline_tests.peaks.peak_scenes import paired, radius_map, spotty_frame

HAS_GPU = torch.cuda.is_available()
HAS_TRITON = importlib.util.find_spec("triton") is not None
TRITON = pytest.param("triton", marks=pytest.mark.skipif(not HAS_TRITON, reason="no Triton"))
BOTH = pytest.mark.parametrize("kernels", ["torch", TRITON])
DEVICE = "cuda" if HAS_GPU else "cpu"
SHAPE = (2, 120, 140)
RADIUS = radius_map(SHAPE)
SMALL = (2, 26, 30)
"""What the interpreter gets through in a second or two."""
POSITIONS = ["frame", "panel", "fs", "ss", "n_pixels"]


def both(frames, radius, bad, params, kernels, **options):
    """Tables of the device finder and of the compiled one."""
    finder = device_peakfinder8(radius, bad, params, device=DEVICE, kernels=kernels, **options)
    ours = finder.find(torch.from_numpy(frames))
    return ours.to_table(5), find_peaks(
        frames, radius=radius, bad_pixels=bad, params=params, first_frame=5, **options
    )


def scene(kernels, n_frames=3, **options):
    """Frames, radius map and mask of a size that the kernels get through quickly."""
    shape, n_spots = (SHAPE, 60) if HAS_GPU or kernels == "torch" else (SMALL, 8)
    n_frames = n_frames if HAS_GPU or kernels == "torch" else 2
    radius = radius_map(shape)
    frames = [spotty_frame(seed, shape, radius, n_spots=n_spots, **options) for seed in range(n_frames)]
    return np.stack(frames), radius, np.random.default_rng(0).random(shape) < 0.02


def assert_same(found, expected):
    """Same peaks in the same order; a background moved by a rounding tie may differ for a few."""
    assert len(found) == len(expected)
    np.testing.assert_allclose(
        found[POSITIONS].to_numpy(float), expected[POSITIONS].to_numpy(float), rtol=1e-5, atol=1e-4
    )
    for name in ("intensity", "max_intensity", "background", "sigma", "snr"):
        close = np.isclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
        assert (~close).sum() <= max(1, 0.05 * len(close)), name
        np.testing.assert_allclose(found[name], expected[name], rtol=0.25, atol=1.0)


@BOTH
@pytest.mark.parametrize(("dtype", "level"), [("float32", 0.5), ("int32", 30.0), ("uint16", 30.0)])
def test_a_batch_gives_the_compiled_peaks(kernels, dtype, level):
    frames, radius, bad = scene(kernels, 4, level=level, dtype=dtype)
    params = Peakfinder8Params(threshold=3, min_snr=4.03, min_res=2, max_res=110, max_pix=80)
    found, expected = both(frames, radius, bad, params, kernels)
    assert len(expected) > (40 if radius.size > 10000 else 4)
    assert_same(found, expected)


@BOTH
def test_sampled_statistics_use_the_same_sample(kernels):
    frames, radius, bad = scene(kernels)
    params = Peakfinder8Params(threshold=3, min_snr=4.03, statistics="sampled", sample_size=40)
    assert_same(*both(frames, radius, bad, params, kernels))


@BOTH
def test_nan_flagged_values_and_the_peak_limit(kernels):
    frames, radius, bad = scene(kernels)
    n_peaks = 9 if radius.size > 10000 else 2
    frames[np.random.default_rng(1).random(frames.shape) < 0.01] = np.nan
    frames[np.random.default_rng(2).random(frames.shape) < 0.01] = -5
    params = Peakfinder8Params(threshold=3, min_snr=4.03, max_peaks=n_peaks)
    found, expected = both(frames, radius, bad, params, kernels, usable=value_range(0, 1e5))
    assert (expected.frame.value_counts() == n_peaks).all()
    assert_same(found, expected)


@BOTH
@pytest.mark.parametrize("masked", [False, True])
def test_nothing_found_is_an_empty_table(kernels, masked):
    _, radius, _ = scene(kernels)
    frames = np.full((1, *radius.shape), 7, np.float32)
    bad = np.full(radius.shape, masked)
    found, expected = both(frames, radius, bad, Peakfinder8Params(threshold=3), kernels)
    assert found.empty
    assert expected.empty


@pytest.mark.parametrize("kernels", ["torch", *(["triton"] if HAS_GPU and HAS_TRITON else [])])
def test_a_real_frame_gives_the_compiled_peaks(kernels, realdata):
    import h5py
    import hdf5plugin  # noqa: F401

    with h5py.File(realdata / "thaumatin" / "stills.h5") as file:
        frames = file["entry/data/data"][:1][:, None]
    radius = pixel_radius(read_geometry(realdata / "thaumatin" / "stills.geom"))
    params, bad = Peakfinder8Params(threshold=10, max_res=1500), np.zeros(radius.shape, bool)
    found, expected = both(frames, radius, bad, params, kernels, usable=value_range(0))
    precision, recall, _ = paired(found, expected, within=0.01)
    assert precision >= 0.999
    assert recall >= 0.999
    assert len(expected) > 300


def test_frames_of_another_shape_are_refused():
    finder = device_peakfinder8(RADIUS, np.zeros(SHAPE, bool), Peakfinder8Params(), device="cpu")
    with pytest.raises(RunError, match="do not fit the radius map"):
        finder.find(torch.zeros(1, 2, 3, 4))


def test_unknown_kernels_are_refused():
    with pytest.raises(ParameterError, match="unknown kernels"):
        device_peakfinder8(RADIUS, np.zeros(SHAPE, bool), Peakfinder8Params(), device="cpu", kernels="fast")


@BOTH
@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 30, 34), (3, 17, 25), (4, 13, 40)]),
    dtype=st.sampled_from(["float32", "uint16", "int16", "int32", "float64"]),
    masked=st.sampled_from([0.0, 0.05, 0.5]),
    silent_panel=st.booleans(),
    statistics=st.sampled_from(["exact", "sampled"]),
)
def test_any_detector_mask_and_type_gives_the_compiled_peaks(
    kernels, seed, shape, dtype, masked, silent_panel, statistics
):
    radius = radius_map(shape)
    rng = np.random.default_rng(seed)
    frames = np.stack([spotty_frame(seed + k, shape, radius, n_spots=6) for k in range(2)]).astype(dtype)
    bad = rng.random(shape) < masked
    bad[0] |= silent_panel
    params = Peakfinder8Params(threshold=20, min_snr=4.03, statistics=statistics, sample_size=40)
    assert_same(*both(frames, radius, bad, params, kernels, usable=value_range(0, 60000, 25)))


@pytest.mark.skipif(not HAS_TRITON, reason="no Triton")
def test_rings_longer_than_the_registers_give_the_same_limits(monkeypatch):
    from peaknet_pipeline.peaks import peakfinder8_triton

    frames, radius, bad = scene("triton")
    params = Peakfinder8Params(threshold=3, min_snr=4.03)
    short, expected = both(frames, radius, bad, params, "triton")
    monkeypatch.setattr(peakfinder8_triton, "MIN_BLOCK", 16)
    monkeypatch.setattr(peakfinder8_triton, "MAX_IN_REGISTERS", 32)
    long, _ = both(frames, radius, bad, params, "triton")
    assert len(expected) > 4
    pd.testing.assert_frame_equal(long, short, rtol=1e-6)


@pytest.mark.skipif(not HAS_TRITON, reason="no Triton")
def test_more_pixels_above_their_limit_than_expected_are_all_kept(monkeypatch):
    from peaknet_pipeline.peaks import peakfinder8_triton

    monkeypatch.setattr(peakfinder8_triton, "EXPECTED_SHARE", 10**9)
    monkeypatch.setattr(peakfinder8_triton, "SCAN_BLOCK", 64)
    frames, radius, bad = scene("triton", 1)
    params = Peakfinder8Params(threshold=3, min_snr=2.03)
    assert_same(*both(frames, radius, bad, params, "triton"))


@pytest.mark.skipif(not HAS_TRITON, reason="no Triton")
def test_the_bytes_of_a_frame_are_two_reads_and_a_share_of_the_plan():
    finder = device_peakfinder8(
        RADIUS, np.zeros(SHAPE, bool), Peakfinder8Params(), device=DEVICE, kernels="triton"
    )
    n = RADIUS.size
    assert finder.bytes_moved(1, 4) == 2 * 4 * n + (4 + 2) * n
    assert finder.bytes_moved(64, 2) == 2 * 2 * n + (4 + 2) * n // 64


@BOTH
def test_the_order_of_frames_does_not_matter(kernels):
    frames, radius, bad = scene(kernels)
    params = Peakfinder8Params(threshold=3, min_snr=4.03)
    forward, _ = both(frames, radius, bad, params, kernels)
    backward, _ = both(frames[::-1].copy(), radius, bad, params, kernels)
    backward["frame"] = 9 + len(frames) - backward["frame"]
    again = backward.sort_values("frame", kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(forward, again, check_dtype=False, rtol=1e-5)


def test_the_finder_runs_on_the_device_that_its_parameters_name(monkeypatch, realdata):
    """With the way of any other device taken on this machine's: same peaks, from read-only frames of any type."""
    geometry = read_geometry(realdata / "thaumatin" / "stills.geom")
    bad = np.zeros(pixel_radius(geometry).shape, bool)
    frames = np.random.default_rng(4).poisson(3.0, (2, *bad.shape)).astype(np.float64)
    frames[:, 0, 500:503, 700:702] += 80
    frames.flags.writeable = False
    params = PEAKFINDER8.parameters(threshold=20)
    expected = PEAKFINDER8.make(params, geometry, bad)(frames, 7)
    monkeypatch.setattr(peakfinder8, "is_cpu", lambda name: False)
    found = PEAKFINDER8.make(params, geometry, bad)(frames, 7)
    assert set(expected.frame) == {7, 8}
    assert_same(found, expected)


def test_a_device_that_is_not_there_is_refused(realdata):
    geometry = read_geometry(realdata / "thaumatin" / "stills.geom")
    bad = np.zeros(pixel_radius(geometry).shape, bool)
    with pytest.raises(ModelError, match="no such device"):
        PEAKFINDER8.make(PEAKFINDER8.parameters(device="gpu9"), geometry, bad)
