"""Pixel maps, rays and assembly agree with the definition of a panel."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import (
    geometry_bad_pixels,
    panel_shape,
    peak_inv_d,
    peak_positions_m,
    pixel_radius,
    resolution_map,
)
from peaknet_pipeline.geometry.rays import project_rays
from peaknet_pipeline.geometry.resolve import resolve_geometry
from peaknet_pipeline.types import HC_EV_ANGSTROM, BadRegion, Geometry
from peaknet_pipeline_tests.geometry.detectors import flat_panel, geometries


def test_the_radius_truncates_x_and_y_toward_zero_before_squaring() -> None:
    geometry = Geometry(panels=(flat_panel(corner_x=-2.6, corner_y=-1.2, max_fs=5, max_ss=3),))
    radius = pixel_radius(geometry)
    assert radius.dtype == np.float32
    for ss in range(4):
        for fs in range(6):
            x, y = int(-2.6 + fs), int(-1.2 + ss)  # int() truncates toward zero
            assert radius[0, ss, fs] == pytest.approx(math.sqrt(x * x + y * y), rel=1e-6)


@given(geometries(), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_rays_through_pixels_come_back_to_those_pixels(geometry: Geometry, seed: int) -> None:
    rng = np.random.default_rng(seed)
    panel = rng.integers(0, len(geometry.panels), 50)
    shapes = np.array([panel_shape(p) for p in geometry.panels])[panel]
    ss, fs = rng.uniform(-0.49, shapes[:, 0] - 0.51), rng.uniform(-0.49, shapes[:, 1] - 0.51)
    positions = peak_positions_m(geometry, panel, fs, ss)
    back = project_rays(geometry, positions * rng.uniform(0.1, 9.0, (50, 1)))
    # Two tilted panels can lie behind each other: then the nearer one is hit.
    hidden = back[0] != panel
    assert hidden.mean() <= 0.5
    np.testing.assert_allclose(back[1][~hidden], fs[~hidden], atol=1e-6)
    np.testing.assert_allclose(back[2][~hidden], ss[~hidden], atol=1e-6)


def test_the_nearer_of_two_panels_in_the_way_is_hit() -> None:
    geometry = Geometry(panels=(flat_panel(name="far", clen_m=0.2), flat_panel(name="near", clen_m=0.1)))
    panel, fs, ss = project_rays(geometry, np.array([[0.0, 0.0, 1.0]]))
    assert (panel[0], fs[0], ss[0]) == (1, pytest.approx(29.5), pytest.approx(19.5))


def test_rays_backward_and_beside_miss() -> None:
    geometry = Geometry(panels=(flat_panel(),))
    panel, fs, ss = project_rays(geometry, np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.9, 0.0, 1.0]]))
    assert panel.tolist() == [-1, -1, -1]
    assert np.isnan(fs).all()
    assert np.isnan(ss).all()


def test_no_rays_give_no_pixels() -> None:
    panel, fs, ss = project_rays(Geometry(panels=(flat_panel(),)), np.empty((0, 3)))
    assert panel.shape == fs.shape == ss.shape == (0,)


def test_resolution_follows_bragg() -> None:
    geometry = Geometry(panels=(flat_panel(),))
    two_theta = math.atan2(math.hypot(29.5e-4, 19.5e-4), 0.1)
    expected = 2 * math.sin(two_theta / 2) / (HC_EV_ANGSTROM / 9500.0)
    assert resolution_map(geometry, 9500.0)[0, 39, 59] == pytest.approx(expected, rel=1e-6)
    corner = peak_inv_d(geometry, np.array([0]), np.array([59.0]), np.array([39.0]), 9500.0)
    assert corner[0] == pytest.approx(expected, rel=1e-12)


@given(geometries())
@settings(max_examples=30, deadline=None)
def test_the_resolution_map_is_the_resolution_at_pixel_centres(geometry: Geometry) -> None:
    maps = resolution_map(geometry, 9500.0)
    for number, panel in enumerate(geometry.panels):
        height, width = panel_shape(panel)
        ss, fs = np.mgrid[0:height, 0:width].reshape(2, -1).astype(float)
        values = peak_inv_d(geometry, np.full(ss.size, number), fs, ss, 9500.0)
        np.testing.assert_allclose(maps[number, :height, :width].ravel(), values, rtol=1e-5)
        assert not maps[number, height:].any()


@given(geometries())
@settings(max_examples=30, deadline=None)
def test_assembly_shows_at_each_peak_position_its_own_pixel(geometry: Geometry) -> None:
    panels = tuple(
        dataclasses.replace(p, fs_vec=(*p.fs_vec[:2], 0.0), ss_vec=(*p.ss_vec[:2], 0.0))
        for p in geometry.panels
    )
    geometry = dataclasses.replace(geometry, panels=panels)
    stack = np.arange(math.prod(geometry.stack_shape), dtype=np.float64).reshape(geometry.stack_shape)
    image = assemble(stack, geometry)
    left, _, _, top = image_extent(geometry)
    number, (height, width) = len(panels) - 1, panel_shape(panels[-1])
    rows, columns = np.nonzero(np.isfinite(image))
    hit, fs, ss = project_rays(
        geometry,
        np.stack(
            [(left + columns + 0.5) * 1e-4, (top - rows - 0.5) * 1e-4, np.full(rows.size, panels[-1].clen_m)],
            1,
        ),
    )
    mine = hit == number
    expected = stack[number, np.rint(ss[mine]).astype(int), np.rint(fs[mine]).astype(int)]
    same = image[rows, columns][mine] == expected
    assert same.mean() > 0.95  # pixel borders and panels at other distances
    assert np.isfinite(image).sum() >= 0.8 * (height * width)


def test_assembly_puts_higher_y_above_and_higher_x_to_the_right() -> None:
    stack = np.zeros((1, 40, 60), dtype=np.uint16)
    stack[0, 39, 59] = 7
    image = assemble(stack, Geometry(panels=(flat_panel(),)), fill=0)
    assert image.shape == (40, 60)
    assert image.dtype == np.uint16
    assert image[0, 59] == 7
    assert image.sum() == 7


def test_gaps_are_filled_with_nan() -> None:
    two = (flat_panel(), flat_panel(name="p1", corner_x=40.0, min_ss=40, max_ss=79))
    image = assemble(np.ones((2, 40, 60), dtype=np.int32), Geometry(panels=two))
    assert image.shape == (40, 130)
    assert np.isnan(image).sum() == 40 * 10


def test_a_stack_of_another_shape_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"does not fit, expected \(1, 40, 60\), found \(1, 40, 61\)"):
        assemble(np.zeros((1, 40, 61)), Geometry(panels=(flat_panel(),)))


def test_bad_regions_in_fs_ss_count_in_the_slab_and_include_their_limits() -> None:
    panels = (flat_panel(), flat_panel(name="p1", min_ss=40, max_ss=79))
    region = BadRegion("bad_a", "p1", True, 2, 3, 41, 42)
    bad = geometry_bad_pixels(Geometry(panels=panels, bad_regions=(region,)))
    assert np.argwhere(bad).tolist() == [[1, 1, 2], [1, 1, 3], [1, 2, 2], [1, 2, 3]]


def test_bad_regions_in_x_y_take_pixels_by_their_centres() -> None:
    region = BadRegion("bad_b", None, False, -1.0, 1.0, -1.0, 1.0)
    bad = geometry_bad_pixels(Geometry(panels=(flat_panel(),), bad_regions=(region,)))
    assert np.argwhere(bad[0]).tolist() == [[19, 29], [19, 30], [20, 29], [20, 30]]


def test_what_a_small_panel_does_not_fill_is_bad() -> None:
    panels = (flat_panel(), flat_panel(name="p1", max_fs=49, max_ss=29))
    bad = geometry_bad_pixels(Geometry(panels=panels))
    assert not bad[0].any()
    assert bad[1].sum() == 40 * 60 - 30 * 50


def test_an_open_camera_length_is_named_until_it_is_resolved() -> None:
    geometry = Geometry(panels=(flat_panel(clen_m=math.nan, coffset_m=0.01),), clen_path="/clen")
    with pytest.raises(GeometryError, match=r"camera length is not known.*found /clen"):
        peak_positions_m(geometry, np.array([0]), np.array([0.0]), np.array([0.0]))
    resolved = resolve_geometry(geometry, clen_m=0.1)
    assert peak_positions_m(resolved, np.array([0]), np.array([0.0]), np.array([0.0]))[0, 2] == pytest.approx(
        0.11
    )


def test_a_panel_number_out_of_range_is_refused() -> None:
    with pytest.raises(GeometryError, match="panel number out of range"):
        peak_positions_m(Geometry(panels=(flat_panel(),)), np.array([-1]), np.array([0.0]), np.array([0.0]))


@pytest.mark.parametrize("name", ["crystfel_simulated/jf4m.geom", "snase/stills.geom"])
def test_a_real_detector_maps_every_pixel_centre_back_to_itself(realdata: Path, name: str) -> None:
    geometry = read_geometry(realdata / name)
    n_panels, n_ss, n_fs = geometry.stack_shape
    panel, ss, fs = (a.ravel() for a in np.mgrid[0:n_panels, 0:n_ss:37, 0:n_fs:41])
    hit, x, y = project_rays(geometry, peak_positions_m(geometry, panel, fs.astype(float), ss.astype(float)))
    assert np.array_equal(hit, panel)
    np.testing.assert_allclose(x, fs, atol=1e-8)
    np.testing.assert_allclose(y, ss, atol=1e-8)


@pytest.mark.parametrize("folder", ["snase", "thaumatin", "pilatus6m"])
def test_crystfels_own_peak_resolutions_are_reproduced(realdata: Path, folder: str) -> None:
    """CrystFEL wrote 1/d (to 0.01 nm⁻¹) beside its peaks, on a tilted panel too: an independent answer."""
    table = np.genfromtxt(realdata / folder / "crystfel_peaks.csv", delimiter=",", names=True)
    geometry = read_geometry(
        realdata / folder / ("crystfel_run.geom" if folder == "pilatus6m" else "stills.geom")
    )
    energy = geometry.photon_energy_ev
    assert energy is not None
    values = peak_inv_d(geometry, np.zeros(table.size, int), table["fs"], table["ss"], energy)
    np.testing.assert_allclose(10 * values, table["inv_d_per_nm"], atol=0.012)
