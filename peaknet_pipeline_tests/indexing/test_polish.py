"""The last refinement: as good as the spots allow, with the beam centre where it moves from frame to frame."""

import numpy as np
import pytest
import torch

from peaknet_pipeline.indexing.cell import reciprocal_matrix
from peaknet_pipeline.indexing.lattice import index_peaks, index_vectors
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.polish import polish_lattices
from peaknet_pipeline.indexing.predict import predict_reflections, table_axes
from peaknet_pipeline.indexing.symmetry import misorientation_deg, primitive_matrix, strain_basis
from peaknet_pipeline_tests.indexing.spots import (
    ENERGY_EV,
    LYSOZYME,
    WAVE,
    flat_geometry,
    random_rotation,
    simulated_frames,
)
from peaknet_pipeline_tests.indexing.test_lattice import peaks_of

ACROSS, ALONG = 0.0002, 0.001 * (2.0 / 3.0) ** 0.5
"""Standard deviations of the simulated spots across and along their rays, Å⁻¹; the latter of a normal width's members."""


def smallest_error_deg(q, n_draws, generator):
    """Return draws of the misorientation that the Cramér-Rao bound of these spots allows, cell known."""
    out = q + np.array([0.0, 0.0, WAVE])
    rays = out / np.linalg.norm(out, axis=1, keepdims=True)
    information = np.zeros((3, 3))
    for spot, ray in zip(q, rays, strict=True):
        turn = -np.array([[0, -spot[2], spot[1]], [spot[2], 0, -spot[0]], [-spot[1], spot[0], 0]])
        along = np.outer(ray, ray)
        information += turn.T @ ((np.eye(3) - along) / ACROSS**2 + along / ALONG**2) @ turn
    turns = generator.multivariate_normal(np.zeros(3), np.linalg.inv(information), n_draws)
    return np.degrees(np.linalg.norm(turns, axis=1))


def test_orientations_from_20_spots_among_9_false_ones_come_near_the_cramer_rao_bound():
    batch, truth = simulated_frames(LYSOZYME, n_frames=150, n_true=20, n_false=9, seed=61)
    found = index_vectors(batch, cell=LYSOZYME, params=IndexParams(max_lattices=1))
    error = np.array(
        [misorientation_deg(a, truth[b], LYSOZYME) for a, b in zip(found.axes, found.batch, strict=True)]
    )
    generator = np.random.default_rng(0)
    axes = np.linalg.inv(np.array(truth))
    true_spots = []
    for q, used, inverse in zip(batch.q, batch.used, axes, strict=True):
        index = q[used] @ inverse.T
        miss = np.linalg.norm((index - np.rint(index)) @ np.linalg.inv(inverse).T, axis=1)
        true_spots.append(q[used][np.argsort(miss)[:20]])
    bound = np.median(np.concatenate([smallest_error_deg(q, 20, generator) for q in true_spots]))

    assert (error < 0.5).sum() >= 0.95 * 150
    assert np.median(error) <= 0.05
    assert np.median(error) <= 1.15 * bound


@pytest.fixture(scope="module")
def wandering():
    """Return peaks of frames whose detector is displaced from the geometry, and the displacements, mm."""
    geometry = flat_geometry()
    batch, truth = simulated_frames(LYSOZYME, n_frames=16, n_true=60, n_false=10, seed=62)
    shift_px = np.random.default_rng(1).normal(0.0, 1.2, (16, 2))
    peaks = peaks_of(batch, geometry)
    moved = np.array([p.fs_vec[0] for p in geometry.panels])[peaks["panel"]]
    own = shift_px[peaks["frame"]]
    peaks = peaks.assign(fs=peaks["fs"] - moved * own[:, 0], ss=peaks["ss"] - moved * own[:, 1])
    return geometry, peaks, truth, shift_px * 0.1


def index_wandering(wandering, beam_sigma):
    geometry, peaks, _, _ = wandering
    params = IndexParams(max_lattices=1, beam_sigma=beam_sigma)
    return index_peaks(peaks, geometry=geometry, photon_energy_ev=ENERGY_EV, cell=LYSOZYME, params=params)


def test_the_beam_centre_of_each_frame_is_found_and_lowers_residual_and_error(wandering):
    _, _, truth, shift_mm = wandering
    kept, free = (index_wandering(wandering, sigma) for sigma in (0.0, 0.003))
    errors = [
        np.median(
            [
                misorientation_deg(a, truth[f], LYSOZYME)
                for f, a in zip(t["frame"], table_axes(t), strict=True)
            ]
        )
        for t in (kept, free)
    ]
    found = free[["shift_x_mm", "shift_y_mm"]].to_numpy()

    assert len(free) == 16
    assert kept["shift_x_mm"].isna().all()
    assert np.median(np.abs(found - shift_mm[free["frame"]])) < 0.01
    assert np.abs(found - shift_mm[free["frame"]]).max() < 0.05
    assert free["residual"].median() < 0.9 * kept["residual"].median()
    assert errors[1] < errors[0]


def test_reflections_of_a_shifted_lattice_are_predicted_where_its_peaks_are(wandering):
    geometry, peaks, _, _ = wandering
    distances = []
    for sigma in (0.0, 0.003):
        table = index_wandering(wandering, sigma)
        predicted = predict_reflections(
            table, cell=LYSOZYME, geometry=geometry, photon_energy_ev=ENERGY_EV, peaks=peaks
        )
        pairs = peaks.merge(predicted, on=["frame", "panel"])
        distance = np.hypot(pairs["fs_x"] - pairs["fs_y"], pairs["ss_x"] - pairs["ss_y"])
        distances.append(distance[distance < 4].median())

    assert distances[1] < 0.4
    assert distances[1] < 0.6 * distances[0]


def test_a_beam_that_stays_is_left_near_the_geometrys():
    geometry = flat_geometry()
    batch, _ = simulated_frames(LYSOZYME, n_frames=6, n_true=60, n_false=10, seed=63)
    params = IndexParams(max_lattices=1, beam_sigma=0.002)
    table = index_peaks(
        peaks_of(batch, geometry),
        geometry=geometry, photon_energy_ev=ENERGY_EV, cell=LYSOZYME, params=params,
    )  # fmt: skip

    assert table[["shift_x_mm", "shift_y_mm"]].abs().max().max() < 0.03


@pytest.mark.parametrize("with_beam", [True, False])
def test_from_a_turned_start_the_lattice_comes_back(with_beam):
    batch, truth = simulated_frames(LYSOZYME, n_frames=5, n_true=60, n_false=20, seed=64)
    basis = primitive_matrix(LYSOZYME)
    to_conventional = np.linalg.solve(basis, reciprocal_matrix(LYSOZYME))
    start = np.array(truth) @ np.linalg.inv(to_conventional)
    turn = random_rotation(np.random.default_rng(2))
    off = turn @ np.array([[1, -0.002, 0], [0.002, 1, 0], [0, 0, 1]]) @ turn.T
    done = polish_lattices(
        torch.from_numpy(batch.q), torch.from_numpy(batch.used),
        torch.from_numpy(batch.beam) if with_beam else None, torch.from_numpy(off @ start),
        torch.from_numpy(basis), torch.from_numpy(strain_basis(LYSOZYME)),
        tolerance=0.002, cell_sigma=0.01,
    )  # fmt: skip
    error = [
        misorientation_deg(a @ to_conventional, t, LYSOZYME)
        for a, t in zip(done.axes.numpy(), truth, strict=True)
    ]

    assert max(error) < 0.1
    assert torch.equal(done.shift, torch.zeros_like(done.shift))
