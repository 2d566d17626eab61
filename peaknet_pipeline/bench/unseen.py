"""The shipped network against peakfinder8 on simulated experiments that neither training nor validation has seen.

Each experiment is one run of a detector of its own. peakfinder8 gets the best setting of a scan over that very run,
all of its frames included, and its default setting besides; the network gets nothing but its stored threshold. An
oracle, given every true spot that counts and nothing else, tells how many frames any finder could lead to a lattice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.geometry.usable import usable_values
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import table_axes
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.infer.decode import decode_frames
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.metrics import TruthParams, TruthScores, score_peaks
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.peaks.scan import ScanParams, best_setting, parameter_grid, scan_parameters
from peaknet_pipeline.schemas import PEAKS, IndexTable, PeakTable
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import Experiment, RunConditions
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.truth import Truth, join_truth, truth_columns
from peaknet_pipeline.steps.index_run import index_with_control
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.steps.scan_finder import index_scorer, merit
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import BoolArray, FrameArray, Geometry

DETECTORS = ("demo", "epix10k2m", "agipd1m", "cspad", "jungfrau4m", "rayonix", "eiger4m")
"""Taken in turn, so that a few experiments meet many detectors."""

SCAN = ScanParams(
    threshold=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0), min_snr=(3.5, 4.0, 5.0, 6.0, 8.0), min_pix=(1, 2, 3)
)
"""The expert's grid; thresholds in photons above the pedestal, since detectors differ in their unit."""

CORRECT_DEG = 1.0
"""Misorientation below which a lattice is the simulated one."""

BRIGHTNESS = (0.15, 2.0)
"""Of crystals, as a multiple of the experiment's own: drawn towards what is hard to index."""

LEAST_SNR = 3.0
"""Expected SNR from which a true spot counts."""

BANDS = ((3.0, 6.0), (6.0, 12.0), (12.0, np.inf))


@dataclass(frozen=True)
class UnseenRun:
    """One simulated run: frames (n, n_panels, ss, fs), the pixels its mask calls bad, its truth."""

    experiment: Experiment
    frames: FrameArray
    bad_pixels: BoolArray
    truth: Truth


@dataclass(frozen=True)
class Outcome:
    """What one finder led to on one run."""

    peaks: PeakTable
    scores: TruthScores
    indexed: int
    correct: int
    scrambled: int
    false_indexed: int


def simulate_unseen(
    seed: int, n_frames: int, *, hit_fraction: float, brightness: tuple[float, float] = BRIGHTNESS
) -> UnseenRun:
    """Simulate a run of a random experiment, its brightness drawn log-uniformly from a range."""
    experiment = draw_experiment(seed, detector=DETECTORS[seed % len(DETECTORS)])
    generator = np.random.default_rng((seed, 31))
    conditions = RunConditions(
        hit_fraction=hit_fraction,
        brightness_factor=float(np.exp(generator.uniform(*np.log(brightness)))),
    )
    frames, columns = [], []
    for frame in simulate_frames(
        experiment, n_frames, seed, conditions=conditions, workers=1, with_maps=False
    ):
        frames.append(frame.data)
        columns.append(truth_columns(frame))
    bad = make_pixel_maps(experiment).known_bad
    return UnseenRun(experiment, np.stack(frames), bad, join_truth(columns))


def compare_finders(run: UnseenRun, model: LoadedModel, *, thresholds: tuple[float, ...]) -> dict[str, Any]:
    """Return the figures of the network, and of peakfinder8 tuned and untuned, on one run."""
    tuned = tune_peakfinder8(run)
    outcomes = {
        "tuned": judge(run, peakfinder8_peaks(run, tuned)),
        "default": judge(run, peakfinder8_peaks(run, Peakfinder8Params())),
        "network": judge(run, network_peaks(run, model, model.card.threshold)),
        "oracle": judge(run, oracle_peaks(run)),
    }
    curve = [score(run, peaks) for peaks in network_curve(run, model, thresholds)]
    wanted = outcomes["tuned"].scores.precision.value
    reaching = [s for s in curve if s.precision.value >= wanted] if np.isfinite(wanted) else []
    return {
        "name": run.experiment.name,
        "frames": len(run.frames),
        "hits": int((run.truth.frames["kind"] != "blank").sum()),
        "setting": {name: getattr(tuned, name) for name in SCAN.to_dict()},
        **{name: figures_of(outcome) for name, outcome in outcomes.items()},
        "at_equal_precision": band_counts(reaching[0]) if reaching else None,
    }


def tune_peakfinder8(run: UnseenRun) -> Peakfinder8Params:
    """Return the best setting of :data:`SCAN` on the run, chosen as the asset ``finder_scan`` chooses."""
    return tune_on_frames(
        run.frames,
        lambda peaks: _index(run, peaks),
        geometry=run.experiment.geometry,
        bad_pixels=run.bad_pixels,
        offset_adu=run.experiment.response.offset_adu,
        adu_per_photon=run.experiment.response.adu_per_photon,
    )


def tune_on_frames(
    frames: FrameArray,
    index: Callable[[PeakTable], IndexTable],
    *,
    geometry: Geometry,
    bad_pixels: BoolArray,
    offset_adu: float,
    adu_per_photon: float,
) -> Peakfinder8Params:
    """Return the best setting of :data:`SCAN` on frames (n, n_panels, ss, fs), scored by what ``index`` makes of its peaks."""
    levels = tuple(offset_adu + t * adu_per_photon for t in SCAN.threshold)
    scored = index_scorer(index, len(frames))
    scan = scan_parameters(
        frames,
        radius=pixel_radius(geometry),
        bad_pixels=bad_pixels,
        grid=parameter_grid(ScanParams.from_mapping({**SCAN.to_dict(), "threshold": levels})),
        score=lambda peaks, _: scored(peaks),
        usable=usable_values(geometry).of(frames.dtype.name),
    )
    scan["merit"] = merit(scan, len(frames))
    return best_setting(scan, "merit")


def peakfinder8_peaks(run: UnseenRun, params: Peakfinder8Params) -> PeakTable:
    """Return peakfinder8's peaks at one setting."""
    radius = pixel_radius(run.experiment.geometry)
    return Peakfinder8(radius, run.bad_pixels, params).find(run.frames)


def network_peaks(run: UnseenRun, model: LoadedModel, threshold: float) -> PeakTable:
    """Return the network's peaks, decoded as ``peaknet find`` does."""
    decode, engine = InferenceParams(device="cpu").parts()
    network = Network.from_checkpoint(model, threshold=threshold)
    return Engine(network, bad_pixels=run.bad_pixels, decode=decode, params=engine)(run.frames)


def oracle_peaks(run: UnseenRun) -> PeakTable:
    """Return every true spot that counts, at its true place."""
    truth = run.truth.reflections
    spots = truth[truth["usable"] & (truth["snr"] >= LEAST_SNR)].sort_values(
        ["frame", "panel"], kind="stable"
    )
    constant = {"background": 0.0, "sigma": 1.0, "n_pixels": 1, "score": 1.0, "inv_d": np.nan}
    columns = {name: spots[name].to_numpy() for name in ("frame", "panel", "fs", "ss", "snr")}
    photons = spots["photons"].to_numpy()
    columns |= {"intensity": photons, "max_intensity": photons}
    columns |= {name: np.full(len(spots), value) for name, value in constant.items()}
    return make_table(PEAKS, columns)


def network_curve(run: UnseenRun, model: LoadedModel, thresholds: tuple[float, ...]) -> Iterator[PeakTable]:
    """Give the network's peaks at each threshold; the network runs once."""
    decode, engine = InferenceParams(device="cpu").parts()
    network = Network.from_checkpoint(model)
    logits = Engine(network, bad_pixels=run.bad_pixels, decode=decode, params=engine).logits(run.frames)
    for threshold in thresholds:
        yield decode_frames(run.frames, logits, run.bad_pixels, threshold=threshold, params=decode)


def score(run: UnseenRun, peaks: PeakTable) -> TruthScores:
    """Score peaks against the run's truth."""
    return score_peaks(peaks, run.truth.reflections, TruthParams(max_distance=3.0, min_snr=LEAST_SNR))


def judge(run: UnseenRun, peaks: PeakTable) -> Outcome:
    """Score and index peaks; count the lattices that are the simulated ones."""
    experiment = run.experiment
    energy = run.truth.frames["photon_energy_ev"].to_numpy(np.float64)
    table, control = index_with_control(
        peaks, experiment.geometry, energy, experiment.sample.cell, IndexParams()
    )
    correct = {
        int(f) for f, axes in zip(table["frame"], table_axes(table), strict=True) if _is_true(run, f, axes)
    }
    return Outcome(
        peaks,
        score(run, peaks),
        int(table["frame"].nunique()),
        len(correct),
        control.n_scrambled,
        control.n_indexed,
    )


def band_counts(scores: TruthScores) -> dict[str, tuple[int, int]]:
    """Return (found, true) spots per band of expected SNR, and (true, all) peaks as ``precision``."""
    rows = scores.by_snr
    counts = {"precision": (scores.precision.part, scores.precision.whole)}
    for low, high in BANDS:
        inside = rows[(rows["low"] >= low) & (rows["high"] <= high)]
        counts[f"{low:g}-{high:g}"] = (int(inside["n_found"].sum()), int(inside["n_true"].sum()))
    return counts


def figures_of(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome's counts."""
    return {
        "indexed": outcome.indexed,
        "correct": outcome.correct,
        "scrambled": outcome.scrambled,
        "false_indexed": outcome.false_indexed,
        "centre_px": round(outcome.scores.centre_error_px, 3),
        **band_counts(outcome.scores),
    }


def add_up(runs: list[dict[str, Any]], finder: str) -> dict[str, Any]:
    """Return a finder's yield, precision and recall over all runs, with their counts."""
    rows = [run[finder] for run in runs if run[finder] is not None]
    total: dict[str, Any] = {}
    for name in ("precision", *(f"{low:g}-{high:g}" for low, high in BANDS)):
        part, whole = np.sum([row[name] for row in rows], axis=0) if rows else (0, 0)
        total[name] = {"share": round(float(part / max(whole, 1)), 4), "of": int(whole)}
    if finder == "at_equal_precision":
        return total
    frames = sum(run["frames"] for run in runs)
    for name in ("indexed", "correct", "scrambled", "false_indexed"):
        total[name] = int(sum(row[name] for row in rows))
    return {**total, "frames": frames, "indexing_yield": round(total["indexed"] / max(frames, 1), 4)}


def _index(run: UnseenRun, peaks: PeakTable) -> IndexTable:
    experiment = run.experiment
    return index_peaks(
        peaks,
        geometry=experiment.geometry,
        photon_energy_ev=run.truth.frames["photon_energy_ev"].to_numpy(np.float64),
        cell=experiment.sample.cell,
        params=IndexParams(),
    )


def _is_true(run: UnseenRun, frame: int, axes: Any) -> bool:
    lattices: pd.DataFrame = run.truth.lattices
    true = table_axes(lattices[lattices["frame"] == frame])
    return any(misorientation_deg(axes, one, run.experiment.sample.cell) < CORRECT_DEG for one in true)
