"""The torch finder gives the compiled finder's peaks; it runs on a GPU where there is one."""

import numpy as np
import pytest
import torch

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params, find_peaks
from peaknet_pipeline.peaks.peakfinder8_torch import TorchPeakfinder8
from peaknet_pipeline_tests.peaks.peak_scenes import paired, radius_map, spotty_frame

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
SHAPE = (2, 120, 140)
RADIUS = radius_map(SHAPE)
POSITIONS = ["frame", "panel", "fs", "ss", "n_pixels"]


def both(frames, radius, bad, params, device, **options):
    """Tables of the torch finder and of the compiled one."""
    ours = TorchPeakfinder8(radius, bad, params, device=device, **options).find(torch.from_numpy(frames))
    return ours.to_table(5), find_peaks(
        frames, radius=radius, bad_pixels=bad, params=params, first_frame=5, **options
    )


def assert_same(found, expected):
    """Same peaks in the same order; a background moved by a rounding tie may differ for a few."""
    assert len(found) == len(expected)
    np.testing.assert_allclose(
        found[POSITIONS].to_numpy(float), expected[POSITIONS].to_numpy(float), rtol=1e-5, atol=1e-4
    )
    for name in ("intensity", "max_intensity", "background", "sigma", "snr"):
        close = np.isclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
        assert close.mean() >= 0.95, name
        np.testing.assert_allclose(found[name], expected[name], rtol=0.25, atol=1.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint16"])
@pytest.mark.parametrize("level", [0.5, 30.0])
def test_a_batch_gives_the_compiled_peaks(device, dtype, level):
    frames = np.stack(
        [spotty_frame(seed, SHAPE, RADIUS, level=level, dtype=dtype, n_spots=60) for seed in range(4)]
    )
    bad = np.random.default_rng(0).random(SHAPE) < 0.02
    params = Peakfinder8Params(threshold=3, min_snr=4.03, min_res=5, max_res=110, max_pix=80)
    found, expected = both(frames, RADIUS, bad, params, device)
    assert len(expected) > 40
    assert_same(found, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_sampled_statistics_use_the_same_sample(device):
    frames = spotty_frame(3, SHAPE, RADIUS)[None]
    params = Peakfinder8Params(threshold=3, min_snr=4.03, statistics="sampled", sample_size=40)
    assert_same(*both(frames, RADIUS, np.zeros(SHAPE, bool), params, device))


@pytest.mark.parametrize("device", DEVICES)
def test_nan_flagged_values_and_the_peak_limit(device):
    frames = np.stack([spotty_frame(seed, SHAPE, RADIUS, n_spots=60) for seed in range(3)])
    frames[np.random.default_rng(1).random(frames.shape) < 0.01] = np.nan
    frames[np.random.default_rng(2).random(frames.shape) < 0.01] = -5
    params = Peakfinder8Params(threshold=3, min_snr=4.03, max_peaks=9)
    found, expected = both(frames, RADIUS, np.zeros(SHAPE, bool), params, device, valid_range=(0, 1e5))
    assert (expected.frame.value_counts() == 9).all()
    assert_same(found, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("masked", [False, True])
def test_nothing_found_is_an_empty_table(device, masked):
    frames = np.full((2, *SHAPE), 7, np.float32)
    found, expected = both(frames, RADIUS, np.full(SHAPE, masked), Peakfinder8Params(threshold=3), device)
    assert found.empty
    assert expected.empty


@pytest.mark.parametrize("device", DEVICES)
def test_a_real_frame_gives_the_compiled_peaks(device, realdata):
    import h5py
    import hdf5plugin  # noqa: F401

    with h5py.File(realdata / "thaumatin" / "stills.h5") as file:
        frames = file["entry/data/data"][:1][:, None]
    radius = pixel_radius(read_geometry(realdata / "thaumatin" / "stills.geom"))
    params = Peakfinder8Params(threshold=10, max_res=1500)
    found, expected = both(
        frames, radius, np.zeros(radius.shape, bool), params, device, valid_range=(0, np.inf)
    )
    precision, recall, _ = paired(found, expected, within=0.01)
    assert precision >= 0.999
    assert recall >= 0.999
    assert len(expected) > 300


def test_frames_of_another_shape_are_refused():
    finder = TorchPeakfinder8(RADIUS, np.zeros(SHAPE, bool), Peakfinder8Params(), device="cpu")
    with pytest.raises(RunError, match="do not fit the radius map"):
        finder.find(torch.zeros(1, 2, 3, 4))
