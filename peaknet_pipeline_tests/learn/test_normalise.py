"""Significance: the same picture in any unit, calibrated noise, nothing from bad pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson as poisson_distribution

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.host.significance import normalise_cells
from peaknet_pipeline.learn.normalise import (
    NormaliseParameters,
    compress,
    compressed,
    estimate_background,
    expand_blocks,
    normalise,
)


def poisson(mean: float | np.ndarray, shape: tuple[int, int] = (128, 96), seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.poisson(np.broadcast_to(mean, shape)).astype(np.float32))[None]


def everywhere(image: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(image, dtype=torch.bool)


@settings(deadline=None, max_examples=25)
@given(gain=st.floats(1e-3, 1e3), pedestal=st.floats(-100, 100), seed=st.integers(0, 10))
def test_gain_and_pedestal_change_nothing(gain: float, pedestal: float, seed: int) -> None:
    image = poisson(20.0, (64, 64), seed)
    scaled = (image.double() * gain + pedestal * gain).float()
    ours, theirs = normalise(image, everywhere(image)), normalise(scaled, everywhere(image))
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("mean", [3.0, 30.0, 300.0])
def test_background_noise_has_unit_deviation(mean: float) -> None:
    image = poisson(mean, (256, 256))
    background = estimate_background(image, everywhere(image))
    assert float(background.mean.mean()) == pytest.approx(mean, rel=0.05)
    assert float(background.noise.mean()) == pytest.approx(mean**0.5, rel=0.05)


def test_a_slope_is_followed() -> None:
    slope = np.linspace(10, 60, 128)[:, None] * np.linspace(1, 2, 96)[None, :]
    image = poisson(slope)
    z = normalise(image, everywhere(image))[0, 0]
    for part in z[:128, :96].reshape(4, 32, 3, 32).permute(0, 2, 1, 3).reshape(12, -1):
        assert abs(float(part.mean())) < 0.25
    assert float(z.std()) == pytest.approx(1.0, abs=0.12)


def test_bright_peaks_do_not_raise_the_background() -> None:
    image = poisson(10.0)
    quiet = estimate_background(image, everywhere(image))
    bright = image.clone()
    bright[0, 5:125:16, 5:90:16] += 50_000
    loud = estimate_background(bright, everywhere(image))
    assert float((loud.mean - quiet.mean).abs().max()) < 1.0
    assert float((loud.noise / quiet.noise - 1).abs().max()) < 0.2


@settings(deadline=None, max_examples=20)
@given(value=st.sampled_from([float("nan"), float("inf"), -1e9, 1e9, 0.0]), seed=st.integers(0, 100))
def test_values_of_bad_pixels_never_count(value: float, seed: int) -> None:
    image = poisson(12.0, (70, 50), seed)
    good = torch.from_numpy(np.random.default_rng(seed).random((1, 70, 50)) > 0.3)
    expected = normalise(image, good)
    assert torch.equal(normalise(torch.where(good, image, value), good), expected)
    assert bool((expected[:, 0][~good] == 0).all())


def test_not_a_number_counts_as_bad() -> None:
    image = poisson(12.0, (64, 64))
    image[0, 10:20] = float("nan")
    z = normalise(image, everywhere(image))
    assert bool(torch.isfinite(z).all())
    assert bool((z[0, 0, 10:20] == 0).all())


def test_a_gap_takes_its_neighbours_background() -> None:
    image = poisson(np.where(np.arange(192) < 96, 10.0, 100.0)[None, :], (128, 192))
    good = everywhere(image)
    good[:, :64, :] = False
    full = expand_blocks(estimate_background(image, good).mean, (128, 192), NormaliseParameters())
    assert bool(torch.isfinite(full).all())
    assert float(full[0, :64, :32].mean()) == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (31, 33), (200, 7)])
def test_small_and_odd_panels_work(shape: tuple[int, int]) -> None:
    image = poisson(9.0, shape)
    z = normalise(image, everywhere(image))
    assert z.shape == (1, 1, *shape)
    assert bool(torch.isfinite(z).all())


def test_empty_and_constant_and_masked_panels_give_zero() -> None:
    image = torch.stack([torch.zeros(40, 40), torch.full((40, 40), 7.0), torch.full((40, 40), 7.0)])
    good = torch.ones_like(image, dtype=torch.bool)
    good[2] = False
    assert float(normalise(image, good).abs().max()) == 0


@pytest.mark.parametrize("mean", [0.0005, 0.005, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("gain", [1.0, 12.5])
def test_where_photons_are_rare_one_photon_is_the_noise_if_asked_for(mean: float, gain: float) -> None:
    image = poisson(mean, (256, 256)) * gain
    z = normalise(image, everywhere(image), NormaliseParameters(poisson_noise=False))[0, 0]
    single = z[image[0] == gain]
    assert 0.5 < float(single.median()) < 1.3
    assert float(single.max()) < 2


@pytest.mark.parametrize("mean", [0.001, 0.01, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("gain", [1.0, 12.5])
def test_four_pixels_that_hardly_ever_hold_so_many_photons_reach_the_significance_of_a_peak(
    mean: float, gain: float
) -> None:
    image = poisson(mean, (512, 512)) * gain
    noise = float(estimate_background(image, everywhere(image)).noise.median()) / gain
    seen = np.arange(1, 30)
    probability = poisson_distribution.sf(seen - 1, 4 * mean)
    z = (seen - 4 * mean) / (2 * noise)
    assert (probability[z > 4.0] < 1e-3).all()
    assert (probability[z < 2.5] > 1e-4).all()


def test_many_photons_have_the_noise_that_they_have() -> None:
    image = poisson(50.0, (256, 256))
    noises = [
        estimate_background(image, everywhere(image), NormaliseParameters(poisson_noise=way)).noise
        for way in (True, False)
    ]
    torch.testing.assert_close(*noises)


def test_panels_are_normalised_alone() -> None:
    images = torch.cat([poisson(3.0), poisson(300.0)])
    together = normalise(images, everywhere(images))
    assert torch.equal(together[1:], normalise(images[1:], everywhere(images[1:])))


def test_integer_frames_are_accepted() -> None:
    image = poisson(30.0, (64, 64))
    for dtype in (torch.uint16, torch.int32):
        assert torch.equal(normalise(image.to(dtype), everywhere(image)), normalise(image, everywhere(image)))


def test_shapes_must_fit() -> None:
    with pytest.raises(ModelError, match="do not fit"):
        normalise(torch.zeros(1, 8, 8), torch.ones(1, 8, 9, dtype=torch.bool))


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64", ">i4"])
@pytest.mark.parametrize("stem", [2, 4])
def test_compiled_cells_are_the_same_significance(dtype: str, stem: int) -> None:
    rng = np.random.default_rng(3)
    images = rng.poisson(40, (2, 101, 87)).astype(dtype)
    good = rng.random(images.shape) > 0.1
    good[0, 30:80] = False
    if images.dtype.kind == "f":
        images[1, 5, 5:9] = [np.nan, np.inf, -np.inf, 1e12]
    z = normalise(torch.from_numpy(images.astype(np.float32)), torch.from_numpy(good))
    padded = torch.nn.functional.pad(z, (0, -87 % 8, 0, -101 % 8))
    expected = torch.nn.functional.pixel_unshuffle(padded, stem)
    cells = normalise_cells(images, good, stem=stem, pad_to=8)
    assert cells.dtype == torch.bfloat16
    assert cells.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(cells.float(), expected, atol=1e-4, rtol=2**-8)


def test_compiled_cells_agree_on_empty_and_masked_panels() -> None:
    images = np.stack(
        [np.zeros((40, 48)), np.full((40, 48), 7), np.random.default_rng(0).poisson(0.002, (40, 48))]
    )
    good = np.ones(images.shape, dtype=bool)
    good[1] = False
    expected = torch.nn.functional.pixel_unshuffle(
        normalise(torch.from_numpy(images), torch.from_numpy(good)), 4
    )
    torch.testing.assert_close(normalise_cells(images, good, stem=4).float(), expected, atol=1e-4, rtol=2**-8)


@given(st.floats(-4.0, 4.0))
def test_faint_significance_passes_unchanged(z: float) -> None:
    assert float(compress(torch.tensor([z]), 4.0)) == pytest.approx(z, abs=1e-5)


@given(st.floats(1.0, 1e6), st.sampled_from([1.0, -1.0]))
def test_each_doubling_beyond_adds_the_same(z: float, sign: float) -> None:
    one, two = compress(torch.tensor([sign * z, sign * (2.0 * z + 4.0)]), 4.0).tolist()
    assert two - one == pytest.approx(4.0 * sign, abs=1e-3)


def test_one_compressed_significance_is_that_of_the_tensor() -> None:
    params = NormaliseParameters()
    for sigma in (-7.5, -1.0, 0.0, 2.4, 3.0, 4.0, 11.9, 300.0):
        tensor = compress(torch.tensor(sigma), params.compression)
        assert compressed(sigma, params) == pytest.approx(float(tensor), rel=1e-6)
