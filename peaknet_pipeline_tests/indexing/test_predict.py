"""Prediction and integration against constructed frames."""

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.indexing.cell import reciprocal_matrix
from peaknet_pipeline.indexing.integrate import IntegrateParams, integrate_reflections
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.predict import PredictParams, predict_reflections
from peaknet_pipeline.indexing.qvectors import spot_vectors
from peaknet_pipeline.schemas import INDEX, REFLECTIONS
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import UnitCell
from peaknet_pipeline_tests.indexing.spots import (
    ENERGY_EV,
    LYSOZYME,
    WAVE,
    flat_geometry,
    random_rotation,
    simulated_frames,
)
from peaknet_pipeline_tests.indexing.test_lattice import peaks_of


def lattice_row(axes, frame=0):
    names = [f"{a}star_{x}" for a in "abc" for x in "xyz"]
    values = dict(zip(names, axes.T.ravel()[:, None], strict=True))
    return make_table(
        INDEX,
        {"frame": [frame], "lattice": [0], "n_peaks": [9], "n_explained": [9], "residual": [0.0], **values},
    )


def test_predicted_reflections_lie_where_their_lattice_points_meet_the_sphere():
    axes = random_rotation(np.random.default_rng(1)) @ reciprocal_matrix(LYSOZYME)
    geometry = flat_geometry()
    table = predict_reflections(
        lattice_row(axes),
        cell=LYSOZYME,
        geometry=geometry,
        photon_energy_ev=ENERGY_EV,
        params=PredictParams(profile_radius=0.001, max_inv_d=0.4),
    )
    points = table[["h", "k", "l"]].to_numpy() @ axes.T
    on_sphere = spot_vectors(table, geometry=geometry, photon_energy_ev=ENERGY_EV)
    distance = np.linalg.norm(points - on_sphere, axis=1)

    assert len(table) > 100
    assert np.allclose(distance, table["excitation_error"].abs(), atol=1e-6)
    assert np.allclose(np.linalg.norm(points, axis=1), table["inv_d"], atol=1e-6)
    assert table["excitation_error"].abs().max() <= 0.001
    assert table["excitation_error"].min() < 0 < table["excitation_error"].max()


def test_excitation_error_is_positive_outside_the_sphere():
    axes = random_rotation(np.random.default_rng(2)) @ reciprocal_matrix(LYSOZYME)
    table = predict_reflections(
        lattice_row(axes), cell=LYSOZYME, geometry=flat_geometry(), photon_energy_ev=ENERGY_EV,
        params=PredictParams(profile_radius=0.002, max_inv_d=0.3),
    )  # fmt: skip
    from_centre = np.linalg.norm(table[["h", "k", "l"]].to_numpy() @ axes.T + [0, 0, WAVE], axis=1)

    assert np.array_equal(from_centre > WAVE, table["excitation_error"] > 0)


def test_prediction_from_found_lattices_covers_their_peaks():
    geometry = flat_geometry()
    batch, _ = simulated_frames(LYSOZYME, n_frames=3, n_true=60, n_false=0, seed=3)
    peaks = peaks_of(batch, geometry)
    lattices = index_peaks(peaks, geometry=geometry, photon_energy_ev=ENERGY_EV, cell=LYSOZYME)
    table = predict_reflections(
        lattices, cell=LYSOZYME, geometry=geometry, photon_energy_ev=ENERGY_EV, peaks=peaks
    )
    covered = [
        np.hypot(near["fs"] - p.fs, near["ss"] - p.ss).min() < 3.0
        for p in peaks.itertuples()
        if len(near := table[(table["frame"] == p.frame) & (table["panel"] == p.panel)])
    ]

    assert np.mean(covered) > 0.85


def test_centring_absences_are_not_predicted():
    cell = UnitCell(78, 78, 38, 90, 90, 90, "tetragonal", "I", "c")
    axes = random_rotation(np.random.default_rng(4)) @ reciprocal_matrix(cell)
    table = predict_reflections(
        lattice_row(axes), cell=cell, geometry=flat_geometry(), photon_energy_ev=ENERGY_EV,
        params=PredictParams(profile_radius=0.002, max_inv_d=0.4),
    )  # fmt: skip

    assert len(table) > 50
    assert (table[["h", "k", "l"]].sum(axis=1) % 2 == 0).all()


def test_no_lattices_predict_an_empty_table():
    table = predict_reflections(
        lattice_row(np.eye(3)).iloc[:0], cell=LYSOZYME, geometry=flat_geometry(), photon_energy_ev=ENERGY_EV
    )

    assert len(table) == 0
    assert list(table.columns) == REFLECTIONS.column_names()


def spots_frame(positions, photons, generator, *, background=5.0, shape=(2, 80, 90)):
    ss, fs = np.mgrid[: shape[1], : shape[2]]
    expected = np.full(shape, background)
    for (panel, y, x), total in zip(positions, photons, strict=True):
        expected[panel] += (
            total / (2 * np.pi * 0.8**2) * np.exp(-((ss - y) ** 2 + (fs - x) ** 2) / (2 * 0.8**2))
        )
    return generator.poisson(expected).astype(np.uint16)[None]


def reflections_at(positions, frame=0):
    panel, ss, fs = np.array(positions).T
    n = len(panel)
    zero = dict.fromkeys(("lattice", "h", "k", "l", "inv_d", "excitation_error"), np.zeros(n))
    return make_table(REFLECTIONS, {"frame": np.full(n, frame), "panel": panel, "fs": fs, "ss": ss, **zero})


def test_integration_is_unbiased_and_its_sigma_is_the_scatter():
    generator = np.random.default_rng(5)
    positions = [(p, y, x) for p in (0, 1) for y in range(12, 72, 14) for x in range(12, 82, 14)]
    pulls = []
    for _ in range(40):
        frames = spots_frame(positions, [200.0] * len(positions), generator)
        table = integrate_reflections(
            frames,
            reflections_at(positions),
            bad_pixels=np.zeros(frames.shape[1:], dtype=bool),
            adu_per_photon=1.0,
            params=IntegrateParams(peak_radius=3.0, inner_radius=4.0),
        )
        pulls.append((table["intensity"] - 200.0) / table["sigma"])
    pulls = pd.concat(pulls)

    assert abs(pulls.mean()) < 0.1
    assert pulls.std() == pytest.approx(1.0, abs=0.1)


def test_bad_pixels_and_edges_give_nan_and_neighbours_do_not_enter_the_ring():
    generator = np.random.default_rng(6)
    positions = [(0, 40, 40), (0, 40, 45.0), (0, 0, 0), (1, 20, 20)]
    frames = spots_frame(positions, [500.0, 50_000.0, 100.0, 100.0], generator)
    bad = np.zeros(frames.shape[1:], dtype=bool)
    bad[1, 18:23, 18:23] = True
    table = integrate_reflections(frames, reflections_at(positions), bad_pixels=bad)

    assert table["intensity"][0] == pytest.approx(500.0, rel=0.3)
    assert table["intensity"][2:].isna().all()
    assert "intensity" in reflections_at(positions)
    assert reflections_at(positions)["intensity"].isna().all()


def test_reflections_of_other_frames_are_refused():
    frames = np.zeros((1, 1, 20, 20))
    with pytest.raises(IndexingError, match=r"expected frames 4 … 4, found 3 … 3"):
        integrate_reflections(
            frames,
            reflections_at([(0, 5, 5)], frame=3),
            bad_pixels=np.zeros((1, 20, 20), bool),
            first_frame=4,
        )
