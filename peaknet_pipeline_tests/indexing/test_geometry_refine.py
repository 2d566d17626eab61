"""Geometry refinement and repeats: what was displaced is found again."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.indexing.geometry_refine import GeometryRefineParams, refine_geometry
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.repeats import find_repeats
from peaknet_pipeline_tests.indexing.spots import ENERGY_EV, LYSOZYME, flat_geometry, simulated_frames
from peaknet_pipeline_tests.indexing.test_lattice import peaks_of


@pytest.fixture(scope="module")
def run():
    geometry = flat_geometry()
    batch, _ = simulated_frames(LYSOZYME, n_frames=25, n_true=80, n_false=10, seed=31, width=0.0005)
    return geometry, peaks_of(batch, geometry)


def displaced(geometry, *, x=0.0, y=0.0, z_m=0.0, right=(0.0, 0.0)):
    left, other = geometry.panels
    moved = [
        replace(p, corner_x=p.corner_x + x + dx, corner_y=p.corner_y + y + dy, clen_m=p.clen_m + z_m)
        for p, (dx, dy) in zip((left, other), ((0.0, 0.0), right), strict=True)
    ]
    return replace(geometry, panels=tuple(moved))


def refined(run, wrong, **settings):
    _, peaks = run
    lattices = index_peaks(peaks, geometry=wrong, photon_energy_ev=ENERGY_EV, cell=LYSOZYME)
    assert lattices["frame"].nunique() >= 20
    return refine_geometry(
        peaks,
        lattices,
        geometry=wrong,
        photon_energy_ev=ENERGY_EV,
        cell=LYSOZYME,
        params=GeometryRefineParams(**settings),
    )


def test_distance_and_shift_are_found_again(run):
    found = refined(run, displaced(run[0], x=1.5, y=-1.0, z_m=0.0003), refine_panels=False)

    assert found.shift_m[0] == pytest.approx(-1.5e-4, abs=2e-5)
    assert found.shift_m[1] == pytest.approx(1.0e-4, abs=2e-5)
    assert found.shift_m[2] == pytest.approx(-3e-4, abs=3e-5)
    assert found.after_px < 0.7 * found.before_px


def test_a_displaced_panel_is_put_back(run, tmp_path):
    found = refined(run, displaced(run[0], right=(1.0, -0.6)))
    left, right = (np.array([p.corner_x, p.corner_y]) for p in found.geometry.panels)
    true_left, true_right = (np.array([p.corner_x, p.corner_y]) for p in run[0].panels)
    write_geometry(found.geometry, tmp_path / "refined.geom")
    again = read_geometry(tmp_path / "refined.geom")

    assert np.allclose((right - left) - (true_right - true_left), 0.0, atol=0.1)
    assert found.after_px < found.before_px
    assert again.panels[1].corner_x == pytest.approx(right[0], abs=1e-3)
    assert list(found.panels["name"]) == ["left", "right"]


def test_a_right_geometry_stays(run):
    found = refined(run, run[0])

    assert np.abs(found.shift_m).max() < 3e-5
    assert found.panels[["shift_x_px", "shift_y_px"]].abs().max().max() < 0.25


def test_too_few_spots_are_told(run):
    geometry, peaks = run
    lattices = index_peaks(peaks, geometry=geometry, photon_energy_ev=ENERGY_EV, cell=LYSOZYME)
    with pytest.raises(IndexingError, match="too few explained spots"):
        refine_geometry(
            peaks[:20], lattices[:1], geometry=geometry, photon_energy_ev=ENERGY_EV, cell=LYSOZYME
        )


def test_peaks_at_the_same_place_in_many_frames_are_left_out(run):
    geometry, peaks = run
    hot = pd.DataFrame({"frame": np.arange(25), "panel": 1, "fs": 200.2, "ss": 300.4})
    shaken = hot.assign(fs=hot["fs"] + np.tile([-0.8, 0.8, 0.0, 0.3, -0.2], 5))
    joined = pd.concat([peaks, shaken], ignore_index=True)
    repeats = find_repeats(joined, min_frames=10, min_fraction=0.1)
    params = IndexParams(repeat_frames=10)
    table = index_peaks(joined, geometry=geometry, photon_energy_ev=ENERGY_EV, cell=LYSOZYME, params=params)
    clean = index_peaks(peaks, geometry=geometry, photon_energy_ev=ENERGY_EV, cell=LYSOZYME, params=params)

    assert np.array_equal(np.flatnonzero(repeats), np.arange(len(peaks), len(joined)))
    assert table.equals(clean)
    assert not find_repeats(peaks.iloc[:0], min_frames=2, min_fraction=0.1).size
