"""A geometry refined by itself: what was displaced comes back, and what is right stays."""

import numpy as np
import pytest

from peaknet_pipeline.indexing.geometry_motion import detector_motion, move_detector, move_panel, turn_matrix
from peaknet_pipeline.indexing.geometry_search import GeometrySearchParams, search_geometry
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline_tests.indexing.spots import ENERGY_EV, LYSOZYME, flat_geometry, simulated_frames
from peaknet_pipeline_tests.indexing.test_geometry_refine import displaced
from peaknet_pipeline_tests.indexing.test_lattice import peaks_of

FAST = IndexParams(max_lattices=1)


@pytest.fixture(scope="module")
def run():
    geometry = flat_geometry()
    batch, _ = simulated_frames(LYSOZYME, n_frames=14, n_true=45, n_false=5, seed=77, width=0.0005)
    return geometry, peaks_of(batch, geometry)


def searched(peaks, geometry, **settings):
    return search_geometry(
        peaks,
        geometry=geometry,
        photon_energy_ev=ENERGY_EV,
        cell=LYSOZYME,
        index=FAST,
        params=GeometrySearchParams(**settings),
    )


def test_shift_distance_tilt_and_panels_come_back_at_once(run):
    geometry, peaks = run
    wrong = displaced(geometry, x=1.2, y=-1.5, z_m=0.001, right=(0.8, -0.7))
    wrong = move_detector(wrong, np.zeros(3), np.radians([0.25, -0.2, 0.0]))
    found = searched(peaks, wrong)
    shift, turn, beyond = detector_motion(geometry, found.geometry)

    assert found.freed == ("place", "tilt", "panels")
    assert found.after >= found.before
    assert found.held_out_px[1] < 0.5 * found.held_out_px[0]
    assert np.abs(shift[:2]).max() < 0.1 * geometry.panels[0].pixel_size_m
    assert abs(shift[2]) < 5e-5
    assert np.degrees(np.abs(turn[:2]).max()) < 0.04
    assert np.abs(beyond[:, :2]).max() < 0.15 * geometry.panels[0].pixel_size_m


def test_a_right_geometry_is_kept_to_the_last_digit(run):
    geometry, peaks = run
    found = searched(peaks, geometry)
    assert found.freed == ()
    assert found.geometry == geometry
    assert found.residuals is not None


def test_a_detector_that_is_far_off_is_sought(run):
    geometry, peaks = run
    wrong = displaced(geometry, x=7.0, y=5.0)
    before = index_peaks(peaks, geometry=wrong, photon_energy_ev=ENERGY_EV, cell=LYSOZYME, params=FAST)
    found = searched(peaks, wrong, search_distance=0.0, search_shift_px=9.0)
    shift, _, _ = detector_motion(geometry, found.geometry)

    assert before["frame"].nunique() < 5
    assert found.freed[0] == "search"
    assert found.after == 14
    assert np.abs(shift[:2]).max() < 0.1 * geometry.panels[0].pixel_size_m


def test_too_few_indexed_frames_change_nothing(run):
    geometry, peaks = run
    few = peaks[peaks["frame"] < 5].reset_index(drop=True)
    found = searched(few, displaced(geometry, x=1.5), search_shift_px=0.0, search_distance=0.0)
    assert found.freed == ()
    assert "6 are needed" in found.told


def test_a_motion_is_told_as_it_was_made():
    geometry = flat_geometry()
    shift, turn = np.array([3e-4, -2e-4, 1e-3]), np.radians([0.3, -0.1, 0.0])
    told = detector_motion(geometry, move_detector(geometry, shift, turn))
    assert told[0] == pytest.approx(shift, abs=1e-6)
    assert told[1] == pytest.approx(turn, abs=1e-5)
    assert np.abs(told[2]).max() < 1e-6


def test_a_turn_of_a_panel_keeps_its_centre_and_its_size():
    panel = flat_geometry().panels[0]
    turned = move_panel(
        panel, np.zeros(3), turn_matrix(np.array([0.01, 0.02, 0.03])), np.array([0.0, 0.0, panel.clen_m])
    )
    assert np.linalg.norm(turned.fs_vec) == pytest.approx(np.linalg.norm(panel.fs_vec))
    assert np.dot(turned.fs_vec, turned.ss_vec) == pytest.approx(0.0, abs=1e-12)
    before, after = (
        np.array([p.corner_x * p.pixel_size_m, p.corner_y * p.pixel_size_m, p.clen_m - panel.clen_m])
        for p in (panel, turned)
    )
    assert np.linalg.norm(before) == pytest.approx(np.linalg.norm(after))
