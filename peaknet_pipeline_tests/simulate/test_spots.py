"""Spot profiles, and what the truth's signal-to-noise ratio promises."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from peaknet_pipeline.simulate.blur import blur_panels, gaussian_taps
from peaknet_pipeline.simulate.detectors import make_detector
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.ewald import Spots
from peaknet_pipeline.simulate.experiment import RunConditions, ShotParameters
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.spots import draw_spots, expected_snr, spot_area

GEOMETRY = make_detector("demo", 0.1, 9500.0)


def one_spot(fs, ss, photons, cov_ff, cov_fs, cov_ss):
    """A single reflection on panel 0."""
    return Spots(*(np.array([v]) for v in (0, 0, fs, ss, 0.1, 0.0, photons, cov_ff, cov_fs, cov_ss)))


def drawn(spot):
    image = np.zeros(GEOMETRY.stack_shape, dtype=np.float32)
    draw_spots(image, spot, GEOMETRY)
    return image


@settings(max_examples=25, deadline=None)
@given(st.floats(30, 140), st.floats(30, 140), st.floats(0.5, 1.5), st.floats(0.5, 1.5), st.floats(-0.8, 0.8))
def test_a_profile_keeps_its_photons_position_and_widths(fs, ss, sigma_f, sigma_s, correlation):
    cov = (sigma_f**2, correlation * sigma_f * sigma_s, sigma_s**2)
    image = drawn(one_spot(fs, ss, 1000.0, *cov))[0].astype(float)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    assert image.sum() == pytest.approx(1000, rel=1e-4)
    assert (image * rows).sum() / 1000 == pytest.approx(ss, abs=0.01)
    assert (image * columns).sum() / 1000 == pytest.approx(fs, abs=0.01)
    assert (image * (columns - fs) ** 2).sum() / 1000 == pytest.approx(sigma_f**2 + 1 / 12, rel=0.03)
    assert (image * (rows - ss) * (columns - fs)).sum() / 1000 == pytest.approx(cov[1], abs=0.02)


def test_pixels_integrate_the_profile_and_do_not_sample_it():
    image = drawn(one_spot(60.3, 50.8, 1.0, 0.25, 0.0, 0.25))[0]
    edges_f, edges_s = np.arange(-0.5, 256, 1), np.arange(-0.5, 176, 1)
    exact = np.outer(np.diff(stats.norm.cdf(edges_s, 50.8, 0.5)), np.diff(stats.norm.cdf(edges_f, 60.3, 0.5)))
    assert np.abs(image - exact).max() < 0.003


def test_a_profile_is_cut_at_the_panels_edge():
    image = drawn(one_spot(0.0, 90.0, 1000.0, 1.0, 0.0, 1.0))
    assert 600 < image[0].sum() < 720
    assert not image[1:].any()


@pytest.mark.parametrize("background", [0.02, 0.5, 5.0])
@pytest.mark.parametrize("photons", [10.0, 40.0, 400.0])
@pytest.mark.parametrize("sigma", [0.6, 1.3])
def test_expected_snr_is_what_profile_fitting_attains(sigma, photons, background):
    """Monte Carlo: weighted least squares with the known profile, on Poisson frames with read noise."""
    generator = np.random.default_rng(1)
    errors, promised = [], []
    for _ in range(4):
        spot = one_spot(*(100 + generator.random(2)), photons, sigma**2, 0.1, 1.2 * sigma**2)
        profile = drawn(spot)[0, 88:114, 88:114].astype(float) / photons
        mean = photons * profile + background
        shape = (2000, *mean.shape)
        frames = generator.poisson(mean, shape) + generator.normal(0, 0.1, shape)
        weight = profile / (mean + 0.01)
        fitted = ((frames - background) * weight).sum(axis=(1, 2)) / (profile * weight).sum()
        assert fitted.mean() == pytest.approx(photons, rel=0.02 + 0.1 / np.sqrt(photons))
        errors.append(fitted.std())
        promised.append(expected_snr(spot.photons, spot_area(spot), np.array([background]), 0.1)[0])
    assert np.mean(promised) == pytest.approx(photons / np.mean(errors), rel=0.08)


@pytest.mark.parametrize("sigma", [0.4, 1.1])
def test_blurring_is_a_gaussian_filter_that_stays_in_the_panel(sigma):
    generator = np.random.default_rng(0)
    image = generator.random((2, 30, 40), dtype=np.float32)
    sizes = np.array([[30, 40], [20, 35]])
    blurred = blur_panels(image, sizes, sigma)
    taps = gaussian_taps(sigma)
    exact = ndimage.convolve1d(image[0].astype(float), taps, axis=0, mode="constant")
    exact = ndimage.convolve1d(exact, taps, axis=1, mode="constant")
    np.testing.assert_allclose(blurred[0], exact, atol=1e-5)
    assert not blurred[1, 20:].any()
    assert not blurred[1, :, 35:].any()
    edges = np.arange(-0.5 - len(taps) // 2, len(taps) // 2 + 1)
    np.testing.assert_allclose(taps, np.diff(stats.norm.cdf(edges, 0, sigma)), atol=1e-4)


def test_a_ccd_correlates_the_noise_of_neighbours_and_its_spot_map_follows():
    experiment = replace(
        draw_experiment(3, detector="rayonix", sample="lysozyme"), shots=ShotParameters(hit_fraction=1.0)
    )
    response = replace(
        experiment.response, read_noise_photons=0.0, gain_spread=0.0, dtype="float32", offset_adu=0.0
    )
    frame = next(simulate_frames(replace(experiment, response=response), 1, 2))
    good = slice(700, 900)
    residual = frame.data[0, good, good] / response.adu_per_photon
    residual = residual - frame.background_photons[0, good, good] - frame.spot_photons[0, good, good]
    clipped = np.clip(residual, *np.percentile(residual, [0.5, 99.5]))
    neighbour = (clipped[:, 1:] * clipped[:, :-1]).mean() / clipped.var()
    assert 0.2 < neighbour < 0.7
    assert abs(clipped.mean()) < 0.05 * max(1.0, frame.background_photons[0, good, good].mean())


def test_a_run_whose_crystals_changed_has_wider_spots_of_the_same_photons():
    experiment = replace(
        draw_experiment(3, detector="demo", sample="lysozyme"), shots=ShotParameters(hit_fraction=1.0)
    )
    plain, wide = (
        next(simulate_frames(experiment, 1, 1, conditions=RunConditions(spot_width_factor=factor)))
        for factor in (1.0, 2.0)
    )
    before, after = plain.reflections, wide.reflections
    assert after["photons"] == pytest.approx(before["photons"])
    assert wide.spot_photons.max() < 0.5 * plain.spot_photons.max()
