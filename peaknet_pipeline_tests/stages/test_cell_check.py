"""A run's own peaks speak against a wrong cell, and never against the right one."""

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest

from peaknet_pipeline.geometry.maps import geometry_bad_pixels, pixel_radius
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.examine import CellCheckParams, examine_cell
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params, find_peaks
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.draw import find_sample
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.truth import collect_truth
from peaknet_pipeline.steps.judge_cell import judge_cell

FINDER = Peakfinder8Params(threshold=30, max_pix=60, local_bg_radius=4)


@dataclass
class Found:
    """A run's peaks, and what is needed to index them."""

    peaks: object
    about: dict
    cell: object
    tables: dict = field(default_factory=dict)

    def examine(self, cell=None, params=None):
        """Index with a cell, once, and ask the peaks about it."""
        cell = cell or self.cell
        about = {**self.about, "cell": cell}
        if cell not in self.tables:
            self.tables[cell] = index_peaks(self.peaks, **about)
        return examine_cell(self.peaks, self.tables[cell], **about, params=params)


def simulate(change=lambda e: e, *, n):
    experiment = demo_experiment(5)
    experiment = change(replace(experiment, shots=replace(experiment.shots, hit_fraction=0.9)))
    frames = list(simulate_frames(experiment, n, 7, with_maps=False))
    energy = collect_truth(frames).frames.sort_values("frame")["photon_energy_ev"].to_numpy(np.float64)
    bad = geometry_bad_pixels(experiment.geometry) | make_pixel_maps(experiment).known_bad
    stack, radius = np.stack([frame.data for frame in frames]), pixel_radius(experiment.geometry)
    peaks = find_peaks(stack, radius=radius, bad_pixels=bad, params=FINDER)
    about = {"geometry": experiment.geometry, "photon_energy_ev": energy}
    return Found(peaks, about, experiment.sample.cell)


def two_lattices(experiment):
    return replace(experiment, shots=replace(experiment.shots, multi_probability=1.0))


def weak(experiment):
    return replace(experiment, crystal=replace(experiment.crystal, spot_photons=60.0))


@cache
def lysozyme():
    return simulate(n=14)


@cache
def pairs():
    return simulate(two_lattices, n=10)


def real(folder, **finder):
    with open_run(folder / "stills.h5", folder / "stills.geom") as run:
        params = Peakfinder8Params(**finder)
        plan = Peakfinder8(pixel_radius(run.geometry), run.bad_pixels, params, usable=run.usable)
        about = {"geometry": run.geometry, "photon_energy_ev": run.photon_energy_ev}
        return Found(plan.find(run.read(0, run.n_frames)), about, read_cell(next(folder.glob("*.cell"))))


def scaled(cell, a=1.0, b=1.0, c=1.0):
    return replace(cell, a=cell.a * a, b=cell.b * b, c=cell.c * c)


WRONG = {
    "c × 1.617": {"c": 1.617},
    "c × 1.08": {"c": 1.08},
    "c doubled": {"c": 2.0},
    "a doubled": {"a": 2.0},
    "a and b doubled": {"a": 2.0, "b": 2.0},
    "c tripled": {"c": 3.0},
    "c halved": {"c": 0.5},
    "a halved": {"a": 0.5},
    "c × 1.5": {"c": 1.5},
    "a and b × 1.07": {"a": 1.07, "b": 1.07},
    "a × 1.06, b × 0.94": {"a": 1.06, "b": 0.94},
    "a and b × 1.3": {"a": 1.3, "b": 1.3},
}


@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_cell_of_a_simulated_run_is_told(name):
    run = lysozyme()
    found = run.examine(scaled(run.cell, **WRONG[name]))
    assert not judge_cell(found).passed, found


@pytest.mark.parametrize("name", ["c doubled", "c halved", "a halved", "a × 1.06, b × 0.94"])
def test_so_it_is_with_two_lattices_in_a_frame(name):
    run = pairs()
    found = run.examine(scaled(run.cell, **WRONG[name]))
    assert not judge_cell(found).passed, found


def test_the_right_cell_of_simulated_runs_is_not_doubted():
    for run in (lysozyme(), pairs(), simulate(weak, n=12)):
        found = run.examine()
        assert judge_cell(found).passed, found
        assert found.n_explained >= 0.95 * found.n_peaks
        assert found.layers.share < 0.03
        assert found.sublattice.share < 0.6


@pytest.mark.parametrize("sample", ["insulin", "receptor", "proteinase_k"])
def test_absences_that_the_cell_file_tells_and_screw_axes_are_no_doubt(sample):
    run = simulate(lambda e: replace(e, sample=find_sample(sample)), n=10)
    assert judge_cell(run.examine()).passed
    if run.cell.centering != "P":
        verdict = judge_cell(run.examine(replace(run.cell, centering="P")))
        assert not verdict.passed
        assert f"the centring {run.cell.centering} is missing" in verdict.message


def test_the_words_name_the_axis_that_is_doubled_and_the_direction_that_is_right():
    run = lysozyme()
    doubled = judge_cell(run.examine(scaled(run.cell, c=2.0))).message
    assert "l even" in doubled
    assert "axis c is 2 times too long" in doubled
    assert "h even" in judge_cell(run.examine(scaled(run.cell, a=2.0))).message
    stretched = judge_cell(run.examine(scaled(run.cell, a=1.07, b=1.07))).message
    assert "layers across [0 0 1]" in stretched


def test_with_few_peaks_nothing_is_said():
    run = lysozyme()
    wrong = scaled(run.cell, a=0.5)
    params = CellCheckParams(min_peaks=100_000)
    verdict = judge_cell(run.examine(wrong, params), params)
    assert verdict.passed
    assert "too few peaks to judge" in verdict.message
    none = Found(run.peaks[:0], run.about, run.cell).examine()
    assert (none.n_frames, none.n_peaks, none.layers.n, none.sublattice.n) == (0, 0, 0, 0)
    assert judge_cell(none).passed


@pytest.mark.parametrize(
    ("name", "finder", "others"),
    [
        ("snase", {"threshold": 300, "min_snr": 6, "max_pix": 100}, [{"c": 0.5}, {"c": 2.0}]),
        ("snase", {"threshold": 100, "min_snr": 4, "max_pix": 100}, []),
        ("thaumatin", {"threshold": 10, "max_res": 1500}, [{"a": 0.5}, {"c": 2.0}]),
    ],
    ids=["snase", "snase_with_noise", "thaumatin"],
)
def test_real_runs_with_their_split_crystals_agree_with_their_own_cell_alone(name, finder, others, realdata):
    run = real(realdata / name, **finder)
    assert judge_cell(run.examine()).passed
    for change in others:
        found = run.examine(scaled(run.cell, **change))
        assert not judge_cell(found).passed, (change, found)
