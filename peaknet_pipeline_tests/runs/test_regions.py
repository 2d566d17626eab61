"""Shadows, rings and edges are found where they are, and nowhere else."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.runs.edges import chip_edge_pixels, edge_pixels, find_wide_pixels
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.rings import RingParams, find_rings, radial_profile, ring_pixels, ring_summary
from peaknet_pipeline.runs.shadow import ShadowParams, estimate_shadow
from peaknet_pipeline.runs.statistics import compute_statistics
from peaknet_pipeline_tests.geometry.detectors import flat_panel
from peaknet_pipeline_tests.runs.files import slab_geometry

SIZE = 300
Y, X = np.mgrid[0:SIZE, 0:SIZE] - SIZE / 2
RADIUS = np.hypot(Y, X)[None].astype(np.float32)


def _mean_image(seed: int = 0) -> np.ndarray:
    """Falling background with a broad water ring and a sharp ring, Poisson noise of 50 frames."""
    level = 20 * np.exp(-RADIUS / 80) + 12 * np.exp(-0.5 * ((RADIUS - 90) / 20) ** 2)
    level += 15 * np.exp(-0.5 * ((RADIUS - 60) / 1.5) ** 2)
    return np.random.default_rng(seed).poisson(50 * level).astype(np.float32) / 50


def test_a_beamstop_and_its_arm_are_in_shadow_and_rings_are_not() -> None:
    mean = _mean_image()
    shade = (RADIUS[0] < 12) | ((np.abs(Y) < 4) & (X > 0))
    mean[0][shade] *= 0.05
    shadow = estimate_shadow(mean, RADIUS, np.zeros(mean.shape, bool))[0]
    deep = ndimage.binary_erosion(shade, iterations=1)
    assert shadow[deep].mean() > 0.99
    far = ~ndimage.binary_dilation(shade, iterations=4)
    assert shadow[far].mean() < 0.0002


def test_without_a_shadow_there_is_none() -> None:
    assert not estimate_shadow(_mean_image(), RADIUS, np.zeros((1, SIZE, SIZE), bool)).any()
    assert not estimate_shadow(
        np.zeros((1, 9, 9), np.float32), RADIUS[:, :9, :9], np.ones((1, 9, 9), bool)
    ).any()


def test_small_dark_spots_are_no_shadow() -> None:
    mean = _mean_image()
    mean[0, 100:103, 100:103] = 0
    assert not estimate_shadow(mean, RADIUS, np.zeros(mean.shape, bool), ShadowParams(min_size=50)).any()


def test_the_beamstop_of_the_crystfel_simulation_is_found(realdata: Path) -> None:
    folder = realdata / "crystfel_simulated"
    with (
        open_run(folder / "sim1k.cxi", folder / "sim1k.geom") as run,
        h5py.File(folder / "sim1k.cxi") as file,
    ):
        assert run.geometry is not None
        beamstop = file["/entry_1/data_1/mask"][()] == 4
        mean = compute_statistics(run).mean
        shadow = estimate_shadow(mean, pixel_radius(run.geometry), run.bad_pixels & ~beamstop)[0]
    assert shadow[beamstop].mean() >= 0.99
    assert (shadow & ~ndimage.binary_dilation(beamstop, iterations=5)).sum() <= 10


def test_sharp_rings_are_found_at_their_resolution_and_broad_ones_are_not() -> None:
    inv_d = RADIUS * 0.002
    inv_ice = 1 / 3.67
    mean = (
        10
        + 8 * np.exp(-0.5 * ((inv_d - 0.12) / 0.03) ** 2)
        + 6 * np.exp(-0.5 * ((inv_d - inv_ice) / 0.002) ** 2)
    )
    mean = np.random.default_rng(0).poisson(100 * mean).astype(np.float32) / 100
    rings = find_rings(mean, inv_d, np.zeros(mean.shape, bool), RingParams(bin_width=0.002))
    assert [round(r.d_angstrom, 1) for r in rings] == [3.7]
    assert rings[0].is_ice
    assert 0.3 < rings[0].rise < 0.8
    assert "3.6" in ring_summary(rings) or "3.7" in ring_summary(rings)
    assert ring_summary(()) == "no sharp rings"


def test_left_out_rings_are_where_they_should_be() -> None:
    inv_d = np.linspace(0, 0.6, 601, dtype=np.float32).reshape(1, 1, 601)
    bad = ring_pixels(inv_d, RingParams(rings_angstrom=(4.0,), half_width=0.0055))
    assert np.flatnonzero(bad).tolist() == list(range(245, 256))
    assert not ring_pixels(inv_d, RingParams()).any()
    ice = ring_pixels(inv_d, RingParams(exclude_ice=True))
    assert ice[0, 0, round(1000 / 3.67)]
    assert not ice[0, 0, 320]


def test_the_radial_profile_is_the_median_of_each_bin() -> None:
    rng = np.random.default_rng(0)
    image, coordinate = (rng.random((2, 20, 20)).astype(np.float32) for _ in range(2))
    bad = rng.random((2, 20, 20)) < 0.3
    centres, median, error = radial_profile(image, coordinate, bad, 0.1)
    for i, centre in enumerate(centres):
        inside = (np.floor(coordinate / 0.1).astype(int) == i) & ~bad
        assert median[i] == pytest.approx(np.median(image[inside]), rel=1e-6), centre
    assert (error > 0).all()


def test_edges_of_panels_and_chips_are_marked_on_both_sides() -> None:
    edge = edge_pixels(slab_geometry(), 1)
    assert edge[0].sum() == 6 * 8 - 4 * 6
    unequal = dataclasses.replace(
        slab_geometry(), panels=(flat_panel(), flat_panel(name="q", max_fs=9, max_ss=9))
    )
    assert edge_pixels(unequal, 2)[1].sum() == 100 - 36
    chips = chip_edge_pixels((2, 512, 1024), (256, 256), 1)
    assert np.flatnonzero(chips[1, 0]).tolist() == [255, 256, 511, 512, 767, 768]
    assert np.flatnonzero(chips[0, :, 1]).tolist() == [255, 256]
    with pytest.raises(RunError, match=r"chips do not fit the panel"):
        chip_edge_pixels((1, 10, 10), (0, 5))


def test_wide_columns_are_found_by_what_they_count() -> None:
    mean = _mean_image()
    mean[0][:, [99, 100]] *= 2
    mean[0][150, 20:60] *= 2  # a bright streak is no wide line
    wide = find_wide_pixels(mean, np.zeros(mean.shape, bool))
    assert np.flatnonzero(wide[0].all(axis=0)).tolist() == [99, 100]
    assert wide.sum() == 2 * SIZE
