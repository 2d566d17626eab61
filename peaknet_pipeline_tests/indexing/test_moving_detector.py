"""Frames whose camera length or photon energy is their own, or is missing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.crystfel_write import format_geometry
from peaknet_pipeline.geometry.distance import camera_lengths_m, select_frames
from peaknet_pipeline.geometry.resolve import resolve_geometry
from peaknet_pipeline.indexing.geometry_refine import refine_geometry
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.predict import predict_reflections
from peaknet_pipeline.indexing.stream_file import StreamSource, write_stream
from peaknet_pipeline.indexing.stream_read import read_stream
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline_tests.indexing.spots import ENERGY_EV, LYSOZYME, flat_geometry, simulated_frames
from peaknet_pipeline_tests.indexing.test_lattice import peaks_of

CLEN_M = np.array([0.1, 0.104, 0.098, np.nan, 0.1])
"""Where the detector stood; nobody knows in frame 3."""

ENERGIES_EV = np.array([ENERGY_EV] * 4 + [np.nan])
MOVING = replace(resolve_geometry(flat_geometry(), clen_m=CLEN_M), clen_path="/LCLS/encoder", clen_unit="m")
KNOWN = [0, 1, 2]


@pytest.fixture(scope="module")
def run():
    """Peaks of five frames, each with a crystal of its own, and the true bases."""
    batch, truth = simulated_frames(LYSOZYME, n_frames=5, n_true=50, n_false=5, seed=21)
    parts = []
    for frame, clen in enumerate(np.nan_to_num(CLEN_M, nan=0.1)):
        parts.append(peaks_of(batch.take(np.array([frame])), flat_geometry(distance_m=clen)))
    return pd.concat(parts, ignore_index=True).assign(intensity=10.0), truth


@pytest.fixture(scope="module")
def lattices(run):
    return index_peaks(run[0], geometry=MOVING, photon_energy_ev=ENERGIES_EV, cell=LYSOZYME)


def test_each_frame_is_indexed_at_its_own_distance_and_frames_without_one_or_without_energy_not_at_all(
    run, lattices
):
    truth = run[1]
    axes = lattices.filter(regex="star").to_numpy().reshape(-1, 3, 3).transpose(0, 2, 1)
    assert list(lattices["frame"]) == KNOWN
    assert all(misorientation_deg(a, truth[f], LYSOZYME) < 0.2 for a, f in zip(axes, KNOWN, strict=True))
    np.testing.assert_allclose(np.linalg.det(axes), [np.linalg.det(truth[f]) for f in KNOWN], rtol=0.01)


def test_reflections_lie_where_the_frames_detector_stood(run, lattices):
    moving = predict_reflections(
        lattices, cell=LYSOZYME, geometry=MOVING, photon_energy_ev=ENERGIES_EV, peaks=run[0]
    )
    there = moving[moving["frame"] == 1].reset_index(drop=True)
    alone = predict_reflections(
        lattices[lattices["frame"] == 1],
        cell=LYSOZYME,
        geometry=flat_geometry(distance_m=0.104),
        photon_energy_ev=ENERGY_EV,
        peaks=run[0],
    )
    both = there.merge(alone, on=["h", "k", "l", "panel"])
    assert len(both) > 50
    np.testing.assert_allclose(both["fs_x"], both["fs_y"], atol=0.01)
    np.testing.assert_allclose(both["ss_x"], both["ss_y"], atol=0.01)


def test_a_geometry_refined_from_frames_at_several_distances_stays_where_it_is(run, lattices):
    found = refine_geometry(run[0], lattices, geometry=MOVING, photon_energy_ev=ENERGIES_EV, cell=LYSOZYME)
    assert found.before_px < 1.0
    assert abs(found.shift_m[2]) < 5e-4
    assert f"clen = {MOVING.clen_path} m" in format_geometry(found.geometry)


def test_streams_hold_each_frames_distance_and_give_it_back(run, lattices, tmp_path):
    path = tmp_path / "a.stream"
    write_stream(
        path,
        source=StreamSource(tmp_path / "a.cxi", 5),
        geometry=replace(MOVING, text=format_geometry(MOVING)),
        cell=LYSOZYME,
        photon_energy_ev=ENERGIES_EV,
        peaks=run[0].assign(intensity=10.0),
        lattices=lattices,
        reflections=predict_reflections(
            lattices, cell=LYSOZYME, geometry=MOVING, photon_energy_ev=ENERGIES_EV, peaks=run[0]
        ),
    )
    text = path.read_text(encoding="utf-8")
    assert "nan" not in text
    lengths = [float(x.split()[2]) for x in text.splitlines() if x.startswith("average_camera_length")]
    assert lengths == [0.1, 0.104, 0.098]
    stream = read_stream(path)
    assert sorted(stream.photon_energy_ev) == KNOWN
    assert stream.geometry.panels[0].clen_m == pytest.approx(0.1)
    assert (stream.lattices["n_explained"] > 0.75 * stream.lattices["n_peaks"]).all()
    assert stream.lattices["residual"].max() < 0.0016


def test_frames_beyond_the_runs_camera_lengths_are_refused():
    chosen = select_frames(MOVING, np.array([1, 2]))
    np.testing.assert_allclose(camera_lengths_m(chosen, np.array([1, 0])), [0.098, 0.104])
    with pytest.raises(GeometryError, match="expected camera lengths of 3 frames, found 2"):
        camera_lengths_m(chosen, np.array([2]))
