"""Lattices and predictions against the simulator's truth, which knows nothing of the indexer."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.predict import predict_reflections, table_axes
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.truth import collect_truth


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    experiment = demo_experiment(1)
    truth = collect_truth(simulate_frames(experiment, 24, 5))
    _, path = write_experiment_files(experiment, tmp_path_factory.mktemp("experiment"))
    rows = truth.reflections[(truth.reflections["snr"] > 5) & truth.reflections["usable"]]
    peaks = rows[["frame", "panel", "fs", "ss"]].reset_index(drop=True)
    generator = np.random.default_rng(0)
    peaks = peaks.assign(**{n: peaks[n] + generator.normal(0.0, 0.15, len(peaks)) for n in ("fs", "ss")})
    about = {
        "geometry": experiment.geometry,
        "photon_energy_ev": truth.frames["photon_energy_ev"].to_numpy(),
        "cell": read_cell(path),
    }
    return truth, peaks, about, index_peaks(peaks, **about)


def test_simulated_hits_have_their_true_orientation(simulated):
    truth, peaks, about, table = simulated
    true_axes, axes = table_axes(truth.lattices), table_axes(table)
    errors = []
    for frame, count in peaks["frame"].value_counts().items():
        if count < 15:
            continue
        mine, theirs = (
            a[(t["frame"] == frame).to_numpy()] for a, t in ((axes, table), (true_axes, truth.lattices))
        )
        errors.append(min(misorientation_deg(a, b, about["cell"]) for a in mine for b in theirs))

    assert len(errors) >= 8
    assert max(errors) < 0.5
    assert np.median(errors) <= 0.05


def test_true_spots_are_predicted_to_a_tenth_of_a_pixel(simulated):
    truth, peaks, about, table = simulated
    predicted = predict_reflections(table, peaks=peaks, **about)
    distances = []
    for frame in set(table["frame"]):
        strong = truth.reflections[(truth.reflections["frame"] == frame) & (truth.reflections["snr"] > 5)]
        near = predicted[predicted["frame"] == frame]
        points = [np.stack([t["panel"] * 1e5, t["fs"], t["ss"]], axis=1) for t in (near, strong)]
        distances.append(cKDTree(points[0]).query(points[1])[0])
    distances = np.concatenate(distances)

    assert np.mean(distances < 2.0) > 0.93
    assert np.median(distances) < 0.1
