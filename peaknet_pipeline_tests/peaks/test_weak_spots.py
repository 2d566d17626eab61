"""Weak spots stand out by the significance that they were given, for many photons and for few."""

import numpy as np
import pytest

from peaknet_pipeline.geometry.usable import value_range
from peaknet_pipeline.peaks.local_background import block_background
from peaknet_pipeline.peaks.weak_spots import WeakSpotFinder, WeakSpotParams, draw_noise, spot_profile

SHAPE = (1, 256, 256)
NOTHING_BAD = np.zeros(SHAPE, dtype=bool)


def finder(sigma: float = 0.8, **options: object) -> WeakSpotFinder:
    return WeakSpotFinder(NOTHING_BAD, np.ones(1), WeakSpotParams(spot_sigma=sigma), **options)  # type: ignore[arg-type]


def with_spots(background: float, photons: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Poisson frame with 49 spots of the filter's own shape; returns it and the spots' centres (ss = fs)."""
    generator = np.random.default_rng(seed)
    expected = np.full(SHAPE[1:], background)
    profile = spot_profile(0.8)
    stamp = photons * np.outer(profile, profile)
    reach = len(profile) // 2
    centres = np.arange(20, 250, 34)
    for ss in centres:
        for fs in centres:
            expected[ss - reach : ss + reach + 1, fs - reach : fs + reach + 1] += stamp
    return generator.poisson(expected)[None].astype(np.float32), centres


def found_at(spots: object, centres: np.ndarray) -> np.ndarray:
    """Highest significance within 1.5 px of each centre; 0 where there is none."""
    best = []
    for ss in centres:
        for fs in centres:
            near = np.hypot(spots.ss - ss, spots.fs - fs) < 1.5  # type: ignore[attr-defined]
            best.append(float(spots.significance[near].max(initial=0.0)))  # type: ignore[attr-defined]
    return np.array(best)


@pytest.mark.parametrize("rate", [0.002, 0.05, 1.0, 30.0, 5000.0])
def test_the_background_is_the_rate_that_the_photons_were_drawn_with(rate: float) -> None:
    frame = np.random.default_rng(3).poisson(rate, SHAPE[1:]).astype(np.float32)
    mean, variance = block_background(frame, ~NOTHING_BAD[0], 1.0)
    assert np.median(mean) == pytest.approx(rate, rel=0.12 if rate < 0.01 else 0.03)
    assert np.median(variance) == pytest.approx(rate, rel=0.12 if rate < 0.01 else 0.06)


def test_a_spot_has_the_significance_of_its_photons_above_the_background_in_its_footprint() -> None:
    background, photons = 40.0, 150.0
    in_footprint = background / (spot_profile(0.8) ** 2).sum() ** 2
    seen = in_footprint + photons
    expected = np.sqrt(2.0 * (seen * np.log(seen / in_footprint) - photons))
    frame, centres = with_spots(background, photons, seed=1)
    found = found_at(finder().find(frame), centres)
    assert found.mean() == pytest.approx(expected, abs=0.5)
    assert found.std() == pytest.approx(1.0, abs=0.35)


def test_noise_alone_has_the_tail_that_a_normal_distribution_has() -> None:
    noise = np.random.default_rng(8).poisson(60.0, SHAPE).astype(np.float32)
    spots = finder().find(noise)
    independent = noise.size / 9.0
    assert (spots.significance > 4.5).sum() <= 6
    assert 0.3 < (spots.significance > 3.0).sum() / (independent * 0.00135 * 3.0) < 3.0


def test_where_photons_are_rare_one_of_them_is_little_and_four_together_are_much() -> None:
    frame = np.random.default_rng(2).poisson(0.003, SHAPE).astype(np.float32)
    frame[0, 100:108, 100:108] = 0.0
    frame[0, 103, 103] = 1.0
    one = found_at(finder().find(frame), np.array([103]))[0]
    frame[0, 103:105, 103:105] = 1.0
    four = found_at(finder().find(frame), np.array([103.5]))[0]
    assert 2.0 < one < 4.0
    assert four > one + 2.0
    gaussian = (spot_profile(0.8).max() ** 2) / np.sqrt((spot_profile(0.8) ** 2).sum() ** 2 * 0.003)
    assert one < gaussian, "read as a normal variable a single photon would have more than ten sigma"


def test_spots_are_found_neither_on_bad_pixels_nor_because_of_flagged_values() -> None:
    frame, centres = with_spots(20.0, 400.0, seed=4)
    bad = NOTHING_BAD.copy()
    bad[0, centres[0], centres[0]] = True
    frame[0, 200, 30] = 65535.0
    frame[0, 60, 60] = np.nan
    masked = WeakSpotFinder(bad, np.ones(1), usable=value_range(equal=65535.0)).find(frame)
    at = {(round(s), round(f)) for s, f in zip(masked.ss, masked.fs, strict=True)}
    assert (centres[0], centres[0]) not in at
    assert not {(200, 30), (60, 60)} & at
    assert (centres[1], centres[1]) in at


def test_drawn_noise_has_the_frames_background_and_no_spot() -> None:
    frame, _ = with_spots(3.0, 300.0, seed=5)
    noise = draw_noise(finder(), frame, np.random.default_rng(6))
    assert noise.mean() == pytest.approx(3.0, rel=0.05)
    assert finder().find(noise).significance.max() < 6.0 < finder().find(frame).significance.max()


@pytest.mark.parametrize("scale", [1e15, 1e25, 3e37])
def test_values_that_are_no_counts_have_a_finite_background_and_noise(scale: float) -> None:
    frame = (np.random.default_rng(5).random(SHAPE) * scale).astype(np.float32)
    mean, variance = block_background(frame[0], ~NOTHING_BAD[0], 1.0)
    assert np.isfinite(mean).all()
    assert np.isfinite(variance).all()
    noise = draw_noise(finder(), frame, np.random.default_rng(6))
    assert np.isfinite(noise).all()
    assert noise.mean(dtype=np.float64) == pytest.approx(0.5 * scale, rel=0.1)


def test_noise_of_very_many_photons_has_their_spread() -> None:
    frame = np.random.default_rng(7).normal(0.0, 1e6, SHAPE).astype(np.float32)
    assert draw_noise(finder(), frame, np.random.default_rng(8)).std() == pytest.approx(1e6, rel=0.05)
