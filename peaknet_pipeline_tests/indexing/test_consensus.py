"""The unknown cell: Bravais class from a basis, and the cell that frames agree on."""

import json

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.indexing.bravais import conventional_cell
from peaknet_pipeline.indexing.consensus import find_cell, find_cell_vectors
from peaknet_pipeline.indexing.control import scramble_azimuths
from peaknet_pipeline.indexing.lattice import index_vectors
from peaknet_pipeline.indexing.symmetry import (
    misorientation_deg,
    primitive_matrix,
    systematically_absent,
)
from peaknet_pipeline_tests.indexing.spots import LYSOZYME, random_rotation, simulated_frames
from peaknet_pipeline_tests.indexing.test_cell import BRAVAIS


def lengths(cell):
    return np.array([cell.a, cell.b, cell.c])


@pytest.mark.parametrize("name", [n for n in BRAVAIS if n not in ("aP", "rhombohedral axes")])
@pytest.mark.parametrize("seed", range(3))
def test_conventional_cell_is_found_from_any_noisy_primitive_basis(name, seed):
    cell, _ = BRAVAIS[name]
    generator = np.random.default_rng(seed)
    rows = np.linalg.inv(primitive_matrix(cell)) @ random_rotation(generator).T
    mixing = np.array([[1, 1, 0], [0, 1, 0], [2, 0, 1]]) if seed else np.eye(3)
    found = conventional_cell(mixing @ (rows @ (np.eye(3) + generator.normal(0.0, 0.001, (3, 3)))))

    assert (found.lattice_type, found.centering) == (cell.lattice_type, cell.centering)
    assert np.allclose(lengths(found), lengths(cell), rtol=0.005)
    assert found.beta == pytest.approx(cell.beta, abs=0.3)


@pytest.mark.parametrize("name", ["tP", "aP", "cF", "mC"])
def test_the_cell_of_a_run_is_found_by_consensus_and_indexes_it(name):
    cell, _ = BRAVAIS[name]
    batch, truth = simulated_frames(
        cell,
        n_frames=5,
        n_true=60,
        n_false=15,
        seed=41,
        forbidden=lambda h: systematically_absent(h, cell.centering),
    )
    found = find_cell_vectors(batch)
    lattices = index_vectors(batch, cell=found.cell)

    assert found.n_agreeing >= 4
    assert (found.cell.lattice_type, found.cell.centering) == (cell.lattice_type, cell.centering)
    assert np.allclose(lengths(found.cell), lengths(cell), rtol=0.003)
    assert len(set(lattices.batch)) == 5
    if name != "aP":
        turned = [
            misorientation_deg(a, truth[b], cell) for a, b in zip(lattices.axes, lattices.batch, strict=True)
        ]
        assert np.median(turned) < 0.1


def test_frames_of_noise_agree_on_no_cell():
    batch, _ = simulated_frames(LYSOZYME, n_frames=5, n_true=50, n_false=10, seed=42)
    with pytest.raises(IndexingError, match=r"no cell that frames agree on, expected ≥ 3"):
        find_cell_vectors(scramble_azimuths(batch, np.random.default_rng(1)))


@pytest.mark.parametrize(("name", "a", "c"), [("snase", 48.39, 63.31), ("thaumatin", 58.0, 151.0)])
def test_the_cells_of_real_runs_are_found_blind(name, a, c, realdata):
    folder = realdata / name
    geometry = read_geometry(folder / "stills.geom")
    peaks = pd.read_csv(folder / "crystfel_peaks.csv")[["frame", "fs", "ss"]].assign(panel=0)
    found = find_cell(
        peaks[peaks["frame"] < 8], geometry=geometry, photon_energy_ev=geometry.photon_energy_ev
    )

    assert (found.cell.lattice_type, found.cell.centering) == ("tetragonal", "P")
    assert found.cell.a == pytest.approx(a, rel=0.02)
    assert found.cell.c == pytest.approx(c, rel=0.02)
    assert json.dumps(found.agreeing)
