"""The second look's benchmark: thinning is what a weaker beam does, the gain comes back, lattices are counted once."""

import numpy as np
import pytest

from peaknet_pipeline.bench import registry
from peaknet_pipeline.bench.held_run import HeldRun
from peaknet_pipeline.bench.second_look import count_right, measure_finder
from peaknet_pipeline.bench.second_look_cases import Case, estimate_gain, file_case, thinned
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.second_look.run_params import RunSecondLookParams
from peaknet_pipeline.schemas import INDEX, PEAKS
from peaknet_pipeline.tables import empty_table


@pytest.fixture(scope="module")
def case(realdata):
    whole = file_case(realdata, "sim1k")
    few = HeldRun(
        whole.run.frames[:6],
        whole.run.geometry,
        bad_pixels=whole.run.bad_pixels,
        photon_energy_ev=whole.run.photon_energy_ev[:6],
    )
    return Case("sim1k", few, whole.cell, {f: axes for f, axes in whole.true.items() if f < 6})


def test_thinned_counts_have_the_thinned_rate_and_stay_poisson_distributed(case):
    rng = np.random.default_rng(1)
    flat = HeldRun(
        rng.poisson(20.0, (4, *case.run.stack_shape)).astype(case.run.dtype),
        case.run.geometry,
        bad_pixels=case.run.bad_pixels,
        photon_energy_ev=case.run.photon_energy_ev[:4],
    )
    kept = thinned(Case("flat", flat, case.cell, {}), 0.1).run.frames.astype(np.float64)
    assert kept.mean() == pytest.approx(2.0, rel=0.01)
    assert kept.var() == pytest.approx(kept.mean(), rel=0.01)


@pytest.mark.parametrize("gain", [3.0, 14.0])
def test_gain_of_a_ccd_comes_back_from_its_noise_beside_a_region_of_texture(gain):
    rng = np.random.default_rng(2)
    rate = np.broadcast_to(np.linspace(5.0, 80.0, 1024), (3, 1, 1024, 1024)).copy()
    rate[..., 512:] *= rng.gamma(4.0, 0.25, rate[..., 512:].shape)
    found = estimate_gain(
        (gain * rng.poisson(rate)).astype(np.float32), np.zeros((1, 1024, 1024), dtype=np.bool_)
    )
    assert found == pytest.approx(gain, rel=0.1)


def test_the_second_look_adds_right_lattices_to_an_empty_list_and_its_copies_are_kept(case):
    few = thinned(case, 0.03)
    nothing = index_peaks(
        empty_table(PEAKS), geometry=few.run.geometry, photon_energy_ev=few.run.photon_energy_ev, cell=few.cell,
        params=IndexParams(),
    )  # fmt: skip
    params = RunSecondLookParams(n_controls=3, max_pairs=2500, n_refined=300, spot_sigma=0.8)
    figures = measure_finder(few, nothing, params)
    assert figures["list"]["frames"] == 0
    assert figures["with_second_look"]["frames_right"] == len(few.true) > 0
    assert figures["accepted"]["lattices_wrong"] == 0
    assert len(figures["copy_scores"]) == 3
    assert max(figures["copy_scores"]) < figures["bar"]


def test_a_true_lattice_counts_once_and_one_of_another_frame_is_wrong(case):
    (frame, axes), (other, _) = list(case.true.items())[:2]
    names = [f"{a}star_{x}" for a in "abc" for x in "xyz"]
    row = dict(zip(names, axes[0].T.reshape(9), strict=True))
    table = empty_table(INDEX).reindex([0, 1, 2])
    for name, value in row.items():
        table[name] = value
    table["frame"] = [frame, frame, other]
    assert count_right(table, case) == {
        "frames": 2, "frames_right": 1, "lattices": 3, "lattices_right": 1, "lattices_wrong": 2
    }  # fmt: skip


def test_an_unknown_finder_is_refused():
    with pytest.raises(ParameterError, match="no such finder"):
        registry.run("second-look", ['finders=["droplet"]'])
