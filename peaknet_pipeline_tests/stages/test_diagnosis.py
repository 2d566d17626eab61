"""A run with exactly one fault is told to have exactly that fault, and a healthy run none."""

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from peaknet_pipeline.geometry.maps import geometry_bad_pixels, pixel_radius, resolution_map
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params, find_peaks
from peaknet_pipeline.schemas import DIAGNOSIS
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.simulate.truth import collect_truth
from peaknet_pipeline.stages import classical_peaks, diagnosis, raw_run, run_index, run_statistics
from peaknet_pipeline.steps import find_causes, peak_tables
from peaknet_pipeline.steps.peak_causes import DiagnosisParams, Evidence
from peaknet_pipeline.store import paths
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import UnitCell

N_FRAMES = 24
FINDER = Peakfinder8Params(threshold=30, max_pix=60, local_bg_radius=4)
OTHER_CELL = UnitCell(67.0, 67.0, 41.0, 90, 90, 120, "hexagonal", "P", "c")


@dataclass
class World:
    """Simulated frames and what belongs to them; a fault is a change of one of them."""

    experiment: object
    frames: np.ndarray
    energy: np.ndarray
    bad: np.ndarray

    def evidence(self, *, frames=None, geometry=None, cell=None, finder=FINDER):
        """Find and index, with the given things changed."""
        frames = self.frames if frames is None else frames
        geometry, cell = geometry or self.experiment.geometry, cell or self.experiment.sample.cell
        peaks = find_peaks(frames, radius=pixel_radius(geometry), bad_pixels=self.bad, params=finder)
        peaks = peak_tables.add_resolution(peaks, geometry, self.energy)
        found = index_peaks(peaks, geometry=geometry, photon_energy_ev=self.energy, cell=cell)
        return Evidence(
            len(frames), peaks, found, geometry, self.energy, cell, finder, IndexParams(), frames, self.bad,
            DiagnosisParams(max_shift_px=7.2),
        )  # fmt: skip


def simulate(change=lambda e: e, *, n=N_FRAMES):
    experiment = demo_experiment(5)
    experiment = change(replace(experiment, shots=replace(experiment.shots, hit_fraction=0.7)))
    frames = list(simulate_frames(experiment, n, 7, with_maps=False))
    energy = collect_truth(frames).frames.sort_values("frame")["photon_energy_ev"].to_numpy(np.float64)
    bad = geometry_bad_pixels(experiment.geometry) | make_pixel_maps(experiment).truly_bad
    return World(experiment, np.stack([frame.data for frame in frames]), energy, bad)


@pytest.fixture(scope="module")
def world():
    return simulate()


def move_panels(geometry, dx=0.0, dy=0.0, factor=1.0):
    panels = [
        replace(p, corner_x=p.corner_x + dx, corner_y=p.corner_y + dy, clen_m=p.clen_m * factor)
        for p in geometry.panels
    ]
    return replace(geometry, panels=tuple(panels))


def light(frames, panel, ss, fs, adu):
    """Add a spot of 2 × 2 pixels."""
    frames[panel, ss : ss + 2, fs : fs + 2] += adu


def test_a_healthy_run_has_nothing_wrong(world):
    evidence = world.evidence()
    findings = find_causes.find_causes(evidence)
    assert findings == []
    hits = len(evidence.hits())
    assert find_causes.describe(evidence, findings) == (
        f"Nothing wrong: {hits} of {N_FRAMES} frames are hits, {len(evidence.indexed_hits())} of them index."
    )


def only_cause(evidence):
    findings = find_causes.find_causes(evidence)
    assert len(findings) == 1, findings
    return findings[0]


def test_a_wrong_cell_is_told_with_the_one_that_is_there(world):
    cause = only_cause(world.evidence(cell=OTHER_CELL))
    assert cause.cause == "wrong cell"
    assert "tetragonal P 79" in cause.told
    assert cause.figures["indexed"] >= 0.8 * len(world.evidence().hits())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a": 0.5}, "layers across"),
        ({"c": 2.0}, "l even.*axis c is 2 times too long"),
        ({"c": 1.617}, "layers across"),
    ],
    ids=["halved", "doubled", "stretched"],
)
def test_a_wrong_cell_that_indexes_most_hits_is_told_with_the_one_that_is_there(world, change, words):
    right = world.experiment.sample.cell
    wrong = replace(right, **{axis: factor * getattr(right, axis) for axis, factor in change.items()})
    evidence = world.evidence(cell=wrong)
    cause = only_cause(evidence)
    assert len(evidence.indexed_hits()) >= 0.5 * len(evidence.hits())
    assert cause.cause == "wrong cell"
    assert re.search(f"{words}.*agree on another cell, tetragonal P 7[89]", cause.told)
    assert cause.figures["explained"] >= 0.9


def test_a_moved_beam_is_told_with_its_shift(world):
    cause = only_cause(world.evidence(geometry=move_panels(world.experiment.geometry, 5.0, -6.0)))
    assert cause.cause == "geometry off: beam centre"
    assert cause.figures["shift_x_px"] == pytest.approx(-5.0, abs=0.3)
    assert cause.figures["shift_y_px"] == pytest.approx(6.0, abs=0.3)


def test_a_small_shift_is_seen_by_the_lattices_of_a_run_that_indexes(world):
    cause = only_cause(world.evidence(geometry=move_panels(world.experiment.geometry, 1.5, 1.0)))
    assert cause.cause == "geometry off: beam centre"
    assert cause.figures["shift_x_px"] == pytest.approx(-1.5, abs=0.2)
    assert cause.figures["after_px"] < 0.5 * cause.figures["before_px"]


def test_a_wrong_distance_is_told_with_the_right_one(world):
    cause = only_cause(world.evidence(geometry=move_panels(world.experiment.geometry, factor=1.05)))
    assert cause.cause == "geometry off: distance"
    true = 1e3 * world.experiment.geometry.panels[0].clen_m
    assert cause.figures["clen_mm"] == pytest.approx(true, rel=0.005)


def test_a_threshold_that_hides_the_peaks_is_told_with_a_lower_one(world):
    cause = only_cause(world.evidence(finder=replace(FINDER, threshold=2000)))
    assert cause.cause == "too few peaks"
    assert cause.figures["hits_lower"] > cause.figures["hits_now"]


def test_a_blank_run_is_told():
    blank = simulate(lambda e: replace(e, shots=replace(e.shots, hit_fraction=0.0)), n=10)
    cause = only_cause(blank.evidence())
    assert cause.cause == "blank run"
    assert re.search(r"[0-2] of 10 frames have 15 peaks or more", cause.told)


def test_saturated_spots_are_told_with_their_level():
    dark = simulate(lambda e: replace(e, response=replace(e.response, saturation_photons=12.0)))
    causes = {f.cause: f for f in find_causes.find_causes(dark.evidence())}
    assert set(causes) == {"saturated"}
    assert causes["saturated"].figures["level"] == pytest.approx(
        12 * dark.experiment.response.adu_per_photon, rel=0.1
    )


def test_flickering_pixels_are_told_with_their_number(world):
    rng, frames = np.random.default_rng(3), world.frames.copy()
    places = [(rng.integers(8), rng.integers(5, 168), rng.integers(5, 248)) for _ in range(20)]
    for frame in frames:
        for place in places:
            if rng.random() < 0.6:
                light(frame, *place, 4000)
    cause = only_cause(world.evidence(frames=frames))
    assert cause.cause == "hot pixels"
    assert cause.figures["places"] == pytest.approx(20, abs=4)


@pytest.mark.parametrize(
    ("spacings", "kind"), [((3.90, 3.67, 3.44), "ice rings"), ((2.82,), "salt or powder rings")]
)
def test_spotty_rings_are_told_with_their_spacing(world, spacings, kind):
    rng, frames = np.random.default_rng(4), world.frames.copy()
    inv_d = resolution_map(world.experiment.geometry, float(np.median(world.energy)))
    for frame in frames:
        for d in spacings:
            rows = np.argwhere(np.abs(inv_d - 1 / d) < 0.0015)
            for panel, ss, fs in rows[rng.choice(len(rows), 24)]:
                light(frame, panel, ss, fs, int(rng.integers(300, 900)))
    findings = find_causes.find_causes(world.evidence(frames=frames))
    ring = next(f for f in findings if "rings" in f.cause)
    assert ring.cause == kind
    told = [float(text) for text in re.findall(r"(\d\.\d\d) Å", ring.told)]
    assert told == pytest.approx(sorted(spacings, reverse=True), abs=0.02)
    assert {f.cause for f in findings} <= {kind, "not indexed"}


def test_the_stage_writes_table_and_words(tmp_path):
    experiment = demo_experiment(5, name="small")
    folder = tmp_path / "raw" / "small"
    write_experiment_files(experiment, folder)
    simulate_run(experiment, folder / "r0001.h5", n_frames=12, seed=31)
    (folder / "experiment.yaml").write_text("finder: {threshold: 30, max_pix: 60, local_bg_radius: 4}\n")
    store, key = Store(tmp_path), "small-r0001"
    for stage in (
        raw_run.raw_run,
        run_statistics.run_statistics,
        classical_peaks.classical_peaks,
        run_index.classical_index,
    ):
        stage(store, key)
    result = diagnosis.diagnosis(store, key)
    assert result.checks[0].passed
    assert len(read_table(paths.diagnosis_path(store, key), DIAGNOSIS)) == 0
    record = json.loads(paths.diagnosis_text_path(store, key).read_text())
    assert record["run"] == key
    assert record["text"].startswith("Nothing wrong")
