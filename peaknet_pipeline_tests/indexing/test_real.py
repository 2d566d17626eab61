"""The indexer on real spots: the figures that the indexing issue asks for."""

import itertools
import json

import h5py
import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.control import control_vectors, false_index_control
from peaknet_pipeline.indexing.lattice import index_peaks, index_vectors
from peaknet_pipeline.indexing.predict import table_axes
from peaknet_pipeline.indexing.qvectors import SpotBatch, batch_spots
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.types import UnitCell

Y_FLIP = np.diag([1.0, -1.0, 1.0])
"""The refined A matrices of snase have y the other way round than CrystFEL's laboratory frame."""


def crystfel_peaks(folder):
    table = pd.read_csv(folder / "crystfel_peaks.csv")
    return table[["frame", "fs", "ss"]].assign(panel=0)


def index_folder(folder):
    geometry = read_geometry(folder / "stills.geom")
    cell = read_cell(next(folder.glob("*.cell")))
    energy = geometry.photon_energy_ev
    peaks = crystfel_peaks(folder)
    return (
        index_peaks(peaks, geometry=geometry, photon_energy_ev=energy, cell=cell),
        cell,
        (peaks, geometry, energy),
    )


def spot_list(realdata, name):
    frames, vectors, truth, wave = [], [], [], None
    with h5py.File(realdata / "spotlists.h5") as file:
        for number, group in enumerate(file[name].values()):
            vectors.append(group["q"][:])
            frames.append(np.full(len(vectors[-1]), number))
            truth.append(group["A"][:])
            wave = 1.0 / group.attrs["wavelength_A"] if "wavelength_A" in group.attrs else None
    batch = batch_spots(np.concatenate(frames), np.concatenate(vectors))
    # These lists are in DIALS's laboratory frame: the beam travels along -z.
    beam = None if wave is None else np.tile([0.0, 0.0, -wave], (len(truth), 1))
    return SpotBatch(batch.frame, batch.q, batch.used, batch.row, beam), truth


def correct_frames(found, truth, cell):
    return {
        int(b)
        for b, a in zip(found.batch, found.axes, strict=True)
        if misorientation_deg(a, truth[b], cell) < 0.5
    }


def test_all_snase_frames_have_their_refined_orientation(realdata):
    table, cell, _ = index_folder(realdata / "snase")
    refined = json.loads((realdata / "snase" / "refined_orientation.json").read_text())
    error = [
        misorientation_deg(axes, Y_FLIP @ np.array(refined[frame]["A_recip_invA"]), cell)
        for frame, axes in zip(table["frame"], table_axes(table), strict=True)
    ]

    assert sorted(table["frame"]) == list(range(10))
    assert max(error) < 0.5


def test_snase_turns_by_one_degree_from_still_to_still(realdata):
    table, cell, _ = index_folder(realdata / "snase")
    axes = table_axes(table)
    steps = [misorientation_deg(a, b, cell) for a, b in itertools.pairwise(axes)]

    assert np.allclose(steps, 1.0, atol=0.08)


def test_thaumatin_hits_index_as_crystfels_and_blanks_do_not(realdata):
    table, cell, (peaks, geometry, energy) = index_folder(realdata / "thaumatin")
    theirs = pd.read_csv(realdata / "thaumatin" / "crystfel_crystals.csv").set_index("frame")
    first = table[table["lattice"] == 0]
    error = [
        misorientation_deg(axes, theirs.loc[frame].to_numpy().reshape(3, 3).T, cell)
        for frame, axes in zip(first["frame"], table_axes(first), strict=True)
    ]
    control = false_index_control(peaks, geometry=geometry, photon_energy_ev=energy, cell=cell)

    assert list(first["frame"]) == list(range(8))
    assert max(error) < 0.5
    assert (control.n_scrambled, control.n_indexed) == (8, 0)


def test_lcls_lysozyme_spot_lists_are_98_percent_correct_and_do_not_index_scrambled(realdata):
    cell = UnitCell(79.14, 79.14, 38.15, 90, 90, 90, "tetragonal", "P", "c")
    batch, truth = spot_list(realdata, "lcls_lysozyme")
    found = index_vectors(batch, cell=cell)
    control = control_vectors(batch, cell=cell)

    assert len(truth) == 150
    assert len(correct_frames(found, truth, cell)) >= 147
    assert (control.n_scrambled, control.n_indexed) == (150, 0)


@pytest.mark.parametrize(
    ("name", "cell", "n"),
    [
        ("psi_lysozyme", UnitCell(78.24, 78.24, 36.84, 90, 90, 90, "tetragonal", "P", "c"), 10),
        ("dls_cunir", UnitCell(96.4, 96.4, 96.4, 90, 90, 90, "cubic", "P"), 2),
    ],
)
def test_spot_lists_with_outliers_all_index(name, cell, n, realdata):
    batch, truth = spot_list(realdata, name)
    found = index_vectors(batch, cell=cell)

    assert correct_frames(found, truth, cell) == set(range(n))


@pytest.mark.parametrize(
    ("name", "finder", "frames"),
    [
        ("snase", {"threshold": 300, "min_snr": 6, "max_pix": 100}, range(10)),
        ("thaumatin", {"threshold": 10, "max_res": 1500}, range(8)),
    ],
)
def test_real_runs_index_from_our_own_classical_peaks(name, finder, frames, realdata):
    from peaknet_pipeline.geometry.maps import pixel_radius
    from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
    from peaknet_pipeline.runs.open import open_run

    folder = realdata / name
    cell = read_cell(next(folder.glob("*.cell")))
    with open_run(folder / "stills.h5", folder / "stills.geom") as run:
        plan = Peakfinder8(
            pixel_radius(run.geometry), run.bad_pixels, Peakfinder8Params(**finder), usable=run.usable
        )
        peaks = plan.find(run.read(0, run.n_frames))
        found = {"geometry": run.geometry, "photon_energy_ev": run.photon_energy_ev, "cell": cell}
    table = index_peaks(peaks, **found)
    control = false_index_control(peaks, n_copies=3, **found)

    assert sorted(set(table["frame"])) == list(frames)
    assert (control.n_scrambled, control.n_indexed) == (3 * len(frames), 0)
    if name == "snase":
        refined = json.loads((folder / "refined_orientation.json").read_text())
        for frame, axes in zip(table["frame"], table_axes(table), strict=True):
            assert misorientation_deg(axes, Y_FLIP @ np.array(refined[frame]["A_recip_invA"]), cell) < 0.5
