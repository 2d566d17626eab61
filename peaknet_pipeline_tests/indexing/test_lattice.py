"""The known-cell indexer against crystals in known orientations."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from peaknet_pipeline.errors import CellError, IndexingError
from peaknet_pipeline.indexing import lattice, refining, search, spin
from peaknet_pipeline.indexing.control import calibrate_gate, control_vectors, scramble_azimuths
from peaknet_pipeline.indexing.lattice import index_peaks, index_vectors
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.qvectors import batch_spots, energy_of_frames
from peaknet_pipeline.indexing.symmetry import misorientation_deg, systematically_absent
from peaknet_pipeline.indexing.target import make_target
from peaknet_pipeline.types import UnitCell
from peaknet_pipeline_tests.indexing.spots import (
    ENERGY_EV,
    LYSOZYME,
    flat_geometry,
    random_rotation,
    simulated_frames,
)
from peaknet_pipeline_tests.indexing.test_cell import BRAVAIS


def errors_deg(found, truth, cell):
    return np.array(
        [misorientation_deg(a, truth[b], cell) for a, b in zip(found.axes, found.batch, strict=True)]
    )


def n_correct(found, truth, cell):
    return len(set(found.batch[errors_deg(found, truth, cell) < 0.5]))


def test_frames_with_30_percent_false_spots_are_indexed_correctly():
    batch, truth = simulated_frames(LYSOZYME, n_frames=40, n_true=30, n_false=13, seed=1)
    found = index_vectors(batch, cell=LYSOZYME)

    assert n_correct(found, truth, LYSOZYME) >= 38
    assert np.median(errors_deg(found, truth, LYSOZYME)) <= 0.05


def test_ten_spots_among_ten_false_ones_are_mostly_found_and_never_wrongly():
    batch, truth = simulated_frames(LYSOZYME, n_frames=30, n_true=10, n_false=10, seed=2)
    found = index_vectors(batch, cell=LYSOZYME)
    error = errors_deg(found, truth, LYSOZYME)

    assert len(set(found.batch)) >= 24
    assert (error < 1.0).all()


@pytest.mark.parametrize("name", BRAVAIS)
def test_every_bravais_lattice_indexes(name):
    cell, _ = BRAVAIS[name]
    batch, truth = simulated_frames(
        cell,
        n_frames=4,
        n_true=25,
        n_false=10,
        seed=3,
        forbidden=lambda h: systematically_absent(h, cell.centering),
    )
    found = index_vectors(batch, cell=cell, params=IndexParams(max_lattices=1))

    assert n_correct(found, truth, cell) == 4
    assert (np.linalg.det(found.axes) > 0).all()


def test_two_lattices_in_one_frame_are_both_found():
    one, first = simulated_frames(LYSOZYME, n_frames=6, n_true=40, n_false=5, seed=4)
    two, second = simulated_frames(LYSOZYME, n_frames=6, n_true=35, n_false=5, seed=5)
    frames = np.concatenate(
        [np.repeat(b.frame[:, None], b.used.shape[1], axis=1)[b.used] for b in (one, two)]
    )
    both = batch_spots(frames, np.concatenate([one.q[one.used], two.q[two.used]]), photon_energy_ev=ENERGY_EV)
    found = index_vectors(both, cell=LYSOZYME)

    assert n_correct(found, first, LYSOZYME) == 6
    assert n_correct(found, second, LYSOZYME) >= 5


def test_a_cell_that_is_one_percent_off_still_indexes_and_is_refined():
    batch, truth = simulated_frames(LYSOZYME, n_frames=6, n_true=60, n_false=10, seed=6)
    off = UnitCell(79.8, 79.8, 37.55, 90, 90, 90, "tetragonal", "P", "c")
    found = index_vectors(batch, cell=off)
    lengths = 1.0 / np.linalg.norm(found.axes, axis=1)

    assert n_correct(found, truth, LYSOZYME) == 6
    assert np.median(lengths[:, 2]) == pytest.approx(37.9, abs=0.1)
    assert np.allclose(lengths[:, 0], lengths[:, 1])


def test_scrambled_frames_do_not_index():
    batch, _ = simulated_frames(LYSOZYME, n_frames=40, n_true=40, n_false=10, seed=7)
    control = control_vectors(batch, cell=LYSOZYME, seed=1)

    assert control.n_scrambled == 40
    assert control.n_indexed == 0
    assert 0.0 < control.upper_limit() < 0.1


def test_scrambling_keeps_resolution_and_the_ewald_sphere():
    batch, _ = simulated_frames(LYSOZYME, n_frames=2, n_true=40, n_false=10, seed=8)
    scrambled = scramble_azimuths(batch, np.random.default_rng(0))

    assert np.allclose(np.linalg.norm(scrambled.q, axis=2), np.linalg.norm(batch.q, axis=2))
    assert np.allclose(scrambled.q[..., 2], batch.q[..., 2])
    assert not np.allclose(scrambled.q[batch.used], batch.q[batch.used], atol=0.01)


def test_calibration_raises_the_gate_above_what_scrambled_frames_reach_and_never_lowers_it():
    batch, _ = simulated_frames(LYSOZYME, n_frames=20, n_true=25, n_false=10, seed=9)
    loose = IndexParams(min_significance=-50.0, min_fraction=0.0, min_explained=3, max_lattices=1)
    control = control_vectors(batch, cell=LYSOZYME, params=loose)
    calibrated = calibrate_gate(loose, control)

    assert control.n_indexed == 20
    assert sum(s >= calibrated.min_significance for s in control.significance) == 0
    assert calibrate_gate(IndexParams(min_significance=60.0), control).min_significance == 60.0


def test_order_of_the_spots_changes_nothing():
    batch, _ = simulated_frames(LYSOZYME, n_frames=3, n_true=30, n_false=10, seed=10)
    frames = np.repeat(batch.frame[:, None], batch.used.shape[1], axis=1)[batch.used]
    q = batch.q[batch.used]
    order = np.random.default_rng(0).permutation(len(q))
    straight = index_vectors(batch_spots(frames, q, photon_energy_ev=ENERGY_EV), cell=LYSOZYME)
    shuffled = index_vectors(batch_spots(frames[order], q[order], photon_energy_ev=ENERGY_EV), cell=LYSOZYME)

    assert np.array_equal(straight.axes, shuffled.axes)
    assert np.array_equal(straight.n_explained, shuffled.n_explained)


def test_other_frames_in_the_batch_change_nothing():
    batch, _ = simulated_frames(LYSOZYME, n_frames=5, n_true=30, n_false=10, seed=11)
    together = index_vectors(batch, cell=LYSOZYME)
    alone = index_vectors(batch.take(np.array([3])), cell=LYSOZYME)

    assert np.allclose(together.axes[together.batch == 3], alone.axes)


@pytest.mark.parametrize("seed", range(3))
def test_turning_all_spots_turns_the_solution(seed):
    batch, truth = simulated_frames(LYSOZYME, n_frames=2, n_true=40, n_false=5, seed=12 + seed)
    turn = random_rotation(np.random.default_rng(seed))
    turned = replace(batch, q=batch.q @ turn.T, beam=batch.beam @ turn.T)
    found = index_vectors(turned, cell=LYSOZYME)

    assert n_correct(found, [turn @ axes for axes in truth], LYSOZYME) == 2


def test_noise_spots_lower_the_significance_smoothly():
    levels = []
    for n_false in (0, 20, 60):
        batch, _ = simulated_frames(LYSOZYME, n_frames=6, n_true=20, n_false=n_false, seed=15)
        levels.append(np.median(index_vectors(batch, cell=LYSOZYME).significance))

    assert levels[0] > levels[1] > levels[2] > 5.0


def test_compiled_and_torch_search_and_refinement_agree():
    batch, _ = simulated_frames(LYSOZYME, n_frames=3, n_true=30, n_false=10, seed=16)
    target, params = make_target(LYSOZYME), IndexParams(max_pairs=60, n_candidates=12)
    device = torch.device("cpu")
    pairs = search.choose_pairs(batch.q, batch.used, target, params)
    tolerance, weight = search.search_tolerance(batch.q, target, params)
    frames = search.pair_frames(batch.q, pairs, target)
    arguments = (batch.q, tolerance, weight * batch.used, pairs.frame, *frames, target, 200, device)
    plain, compiled = search.spin_scores(*arguments), spin.spin_scores_compiled(*arguments)
    frame, rotation = search.find_orientations(batch.q, batch.used, target, params, device)
    refined = [
        refine(batch, batch.used, frame, rotation, target, params, device)
        for refine in (refining.refine_on_device, refining.refine_on_processor)
    ]

    assert np.allclose(plain[0], compiled[0], rtol=1e-3, atol=1e-2)
    assert np.array_equal(refined[0][1], refined[1][1])
    assert np.allclose(refined[0][0], refined[1][0], atol=1e-7)


def test_the_whole_indexer_gives_the_same_lattices_on_the_device_path(monkeypatch):
    batch, _ = simulated_frames(LYSOZYME, n_frames=3, n_true=25, n_false=8, seed=18)
    params = IndexParams(max_pairs=200, n_candidates=12, max_lattices=1)
    compiled = index_vectors(batch, cell=LYSOZYME, params=params)
    monkeypatch.setattr(search, "spin_scores_compiled", search.spin_scores)
    monkeypatch.setattr(lattice, "refine_on_processor", refining.refine_on_device)
    on_device = index_vectors(batch, cell=LYSOZYME, params=params)

    assert np.array_equal(compiled.batch, on_device.batch)
    assert len(compiled.batch) == 3
    assert np.allclose(compiled.axes, on_device.axes, atol=1e-6)
    assert np.array_equal(compiled.n_explained, on_device.n_explained)


def test_noise_spots_lower_the_rate_of_weak_frames_step_by_step():
    rates = []
    for n_false in (0, 25, 100):
        batch, truth = simulated_frames(LYSOZYME, n_frames=20, n_true=9, n_false=n_false, seed=19)
        found = index_vectors(batch, cell=LYSOZYME, params=IndexParams(max_lattices=1))
        rates.append(n_correct(found, truth, LYSOZYME) / 20)

    assert rates[0] >= 0.9
    assert rates[0] >= rates[1] >= rates[2]
    assert rates[2] < rates[0]


def test_peak_tables_give_lattices_in_the_laboratory_frame_of_the_geometry():
    geometry = flat_geometry()
    batch, truth = simulated_frames(LYSOZYME, n_frames=3, n_true=60, n_false=5, seed=17)
    peaks = peaks_of(batch, geometry)
    table = index_peaks(
        peaks, geometry=geometry, photon_energy_ev=np.full(3, ENERGY_EV), cell=LYSOZYME, params=IndexParams()
    )
    axes = table.filter(regex="star").to_numpy().reshape(-1, 3, 3).transpose(0, 2, 1)

    assert list(table["frame"]) == [0, 1, 2]
    assert max(misorientation_deg(a, b, LYSOZYME) for a, b in zip(axes, truth, strict=True)) < 0.2
    assert (np.linalg.det(axes) > 0).all()


def peaks_of(batch, geometry):
    from peaknet_pipeline.geometry.rays import project_rays

    frame = np.repeat(batch.frame[:, None], batch.used.shape[1], axis=1)[batch.used]
    beam = np.repeat(batch.beam[:, None], batch.used.shape[1], axis=1)[batch.used]
    panel, fs, ss = project_rays(geometry, batch.q[batch.used] + beam)
    seen = panel >= 0
    return pd.DataFrame({"frame": frame, "panel": panel, "fs": fs, "ss": ss})[seen]


def test_frames_with_too_few_peaks_and_empty_tables_have_no_row():
    empty = pd.DataFrame({n: np.zeros(0) for n in ("frame", "panel", "fs", "ss")})
    table = index_peaks(empty, geometry=flat_geometry(), photon_energy_ev=ENERGY_EV, cell=LYSOZYME)

    assert len(table) == 0
    assert list(table.columns)[:2] == ["frame", "lattice"]


def test_missing_energies_and_impossible_cells_are_told():
    with pytest.raises(IndexingError, match="photon energy unknown"):
        energy_of_frames(np.array([0.0, np.nan]), np.array([0, 1]))
    with pytest.raises(IndexingError, match="expected energies for 3 frames, found 2"):
        energy_of_frames(np.array([9500.0, 9500.0]), np.array([2]))
    batch, _ = simulated_frames(LYSOZYME, n_frames=1, n_true=20, n_false=0, seed=0)
    with pytest.raises(CellError, match="axis length"):
        index_vectors(batch, cell=UnitCell(0.0, 79, 38, 90, 90, 90))


def test_candidates_divided_among_threads_come_back_in_order(monkeypatch):
    monkeypatch.setattr(refining.numba, "get_num_threads", lambda: 3)
    parts = []

    def loop(part):
        parts.append(part)
        return np.arange(part.start, part.stop), np.full(part.stop - part.start, 2.0)

    order, twos = refining._in_threads(loop, 40)
    assert len(parts) == 3
    np.testing.assert_array_equal(order, np.arange(40))
    assert twos.shape == (40,)
