"""Benchmark of the data engine: a simulated run found, indexed and labelled, and judged by its truth."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.maps import geometry_bad_pixels, pixel_radius
from peaknet_pipeline.indexing.integrate import integrate_reflections
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.predict import PredictParams, predict_reflections
from peaknet_pipeline.metrics import TruthScores
from peaknet_pipeline.peaks.fit_statistics import count_rejections
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params, find_peaks
from peaknet_pipeline.schemas import PeakTable, ReflectionTable
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.experiment import Experiment
from peaknet_pipeline.simulate.frames import SimulatedFrame, simulate_frames
from peaknet_pipeline.simulate.truth import Truth, collect_truth
from peaknet_pipeline.steps.label_frames import LabelRun, label_frames
from peaknet_pipeline.steps.label_quality import score_labels
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray


@dataclass(frozen=True)
class _Run:
    """A simulated run in memory."""

    experiment: Experiment
    frames: FrameArray
    truth: Truth
    bad_pixels: BoolArray
    adu_per_photon: Float64Array


def run(
    *,
    n_frames: int = 60,
    seed: int = 20,
    threshold_photons: float = 1.5,
    profile_quantile: float = 0.97,
    resolution_margin: float = 1.15,
) -> dict[str, Any]:
    """Simulate demo frames, label them by the chain's own stages, and compare the labels with the truth.

    Parameters
    ----------
    n_frames, seed : int
        Of the simulated run.
    threshold_photons : float
        peakfinder8's threshold, photons.
    profile_quantile, resolution_margin : float
        How widely reflections are predicted, see ``PredictParams``.

    Returns
    -------
    dict
        ``label_precision, label_recall, centre_error_px`` with counts, tables per SNR band and resolution
        shell, the fits' rejections, frames labelled per second, and the agreement with lmfit.

    """
    simulated = _simulate(n_frames, seed)
    predict = PredictParams(profile_quantile=profile_quantile, resolution_margin=resolution_margin)
    peaks, reflections = _index(simulated, threshold_photons * float(simulated.adu_per_photon[0]), predict)
    _label(simulated, peaks, reflections, audit_sample=0)
    start = time.perf_counter()
    labelled = _label(simulated, peaks, reflections, audit_sample=0)
    seconds = time.perf_counter() - start
    audited = _label(simulated, peaks, reflections, audit_sample=60)
    scores = score_labels(labelled.fits, labelled.frame_matches, simulated.truth.reflections)
    return _record(labelled, scores, seconds) | {
        "agreement": audited.audit.to_dict() if audited.audit is not None else None,
        "frames": n_frames,
        "frames_with_lattice": int(labelled.frame_matches["frame"].nunique()),
    }


def _simulate(n_frames: int, seed: int) -> _Run:
    experiment = demo_experiment(seed)
    frames: list[SimulatedFrame] = list(simulate_frames(experiment, n_frames, seed + 1))
    return _Run(
        experiment,
        np.stack([frame.data for frame in frames]),
        collect_truth(frames),
        geometry_bad_pixels(experiment.geometry) | make_pixel_maps(experiment).known_bad,
        np.array([panel.adu_per_photon for panel in experiment.geometry.panels]),
    )


def _index(run: _Run, threshold: float, predict: PredictParams) -> tuple[PeakTable, ReflectionTable]:
    geometry, cell = run.experiment.geometry, run.experiment.sample.cell
    finder = Peakfinder8Params(threshold=threshold, max_pix=60, local_bg_radius=4)
    peaks = find_peaks(run.frames, radius=pixel_radius(geometry), bad_pixels=run.bad_pixels, params=finder)
    energy = run.truth.frames.sort_values("frame")["photon_energy_ev"].to_numpy(np.float64)
    lattices = index_peaks(peaks, geometry=geometry, photon_energy_ev=energy, cell=cell)
    predicted = predict_reflections(
        lattices, cell=cell, geometry=geometry, photon_energy_ev=energy, peaks=peaks, params=predict
    )
    gain = float(run.adu_per_photon[0])
    return peaks, integrate_reflections(run.frames, predicted, bad_pixels=run.bad_pixels, adu_per_photon=gain)


def _label(run: _Run, peaks: PeakTable, reflections: ReflectionTable, *, audit_sample: int) -> LabelRun:
    with tempfile.TemporaryDirectory() as folder:
        return label_frames(
            lambda frame: run.frames[frame],
            peaks,
            reflections,
            Path(folder) / "labels.h5",
            bad_pixels=run.bad_pixels,
            adu_per_photon=run.adu_per_photon,
            audit_sample=audit_sample,
        )


def _record(labelled: LabelRun, scores: TruthScores, seconds: float) -> dict[str, Any]:
    return {
        "label_precision": scores.precision.value,
        "labels": scores.precision.whole,
        "label_recall": scores.recall.value,
        "true_reflections": scores.recall.whole,
        "centre_error_px": scores.centre_error_px,
        "labelled_frames": labelled.n_frames,
        "frames_per_second": labelled.n_frames / seconds,
        "fits": len(labelled.fits),
        "rejections": count_rejections(labelled.fits),
        "by_snr": _rows(scores.by_snr),
        "by_shell": _rows(scores.by_shell),
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): float(v) for k, v in row.items()} for row in table.to_dict("records")]
