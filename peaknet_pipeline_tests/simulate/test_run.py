"""Simulated runs as files."""

import json

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import geometry_bad_pixels, panel_table
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.draw import draw_experiment, find_sample
from peaknet_pipeline.simulate.files import cell_text, write_experiment_files
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.simulate.truth import collect_truth, read_truth


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "demo-r0001.h5"
    return simulate_run(demo_experiment(), path, n_frames=5, seed=6)


def test_the_file_holds_the_simulated_frames_and_mask(run_path):
    with h5py.File(run_path) as file:
        data = file["/entry_1/data_1/data"]
        assert data.shape == (5, 8 * 176, 256)
        assert data.chunks == (1, 8 * 176, 256)
        for n, frame in enumerate(simulate_frames(demo_experiment(), 5, 6)):
            np.testing.assert_array_equal(data[n].reshape(8, 176, 256), frame.data)
            assert file["/LCLS/photon_energy_eV"][n] == frame.shot.photon_energy_ev
        mask = file["/entry_1/data_1/mask"][()].reshape(8, 176, 256)
        np.testing.assert_array_equal(mask.astype(bool), make_pixel_maps(demo_experiment()).known_bad)
        assert file["/LCLS/detector_1/EncoderValue"][0] == pytest.approx(96.0)


def test_the_truth_comes_back_as_it_was(run_path):
    truth = read_truth(run_path)
    again = collect_truth(simulate_frames(demo_experiment(), 5, 6))
    pd.testing.assert_frame_equal(truth.frames, again.frames)
    pd.testing.assert_frame_equal(truth.lattices, again.lattices)
    pd.testing.assert_frame_equal(truth.reflections, again.reflections)
    assert set(truth.reflections.frame) == set(truth.frames.frame[truth.frames.kind != "blank"])
    assert truth.frames.n_lattices.sum() == len(truth.lattices)


def test_the_file_tells_every_setting_it_was_made_with(run_path):
    with h5py.File(run_path) as file:
        told = json.loads(file.attrs["simulated"])
    assert told["run"]["seed"] == 6
    assert told["sample"]["name"] == "lysozyme"
    assert told["crystal"]["b_factor"] == demo_experiment().crystal.b_factor
    assert told["run"]["conditions"]["background_factor"] == 1.0


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    simulate_run(demo_experiment(), tmp_path / "r.h5", n_frames=3, seed=1, progress=lambda *a: seen.append(a))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_nothing_half_written_remains(tmp_path):
    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_run(demo_experiment(), tmp_path / "r.h5", n_frames=3, seed=1, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_frames_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="no frames"):
        simulate_run(demo_experiment(), tmp_path / "r.h5", n_frames=0, seed=1)


@pytest.mark.parametrize("content", [b"", b"not hdf5"])
def test_a_file_without_truth_is_refused(tmp_path, content):
    path = tmp_path / "r.h5"
    path.write_bytes(content)
    with pytest.raises(RunError, match="no simulated truth"):
        read_truth(path)
    with h5py.File(path, "w") as file:
        file["truth/frames"] = 1
    with pytest.raises(RunError, match="no simulated truth"):
        read_truth(path)


@pytest.mark.parametrize("detector", ["demo", "eiger4m", "cspad"])
def test_the_files_read_back_as_the_experiments_geometry_and_cell(tmp_path, detector):
    experiment = draw_experiment(3, detector=detector, sample="insulin")
    geometry_path, cell_path = write_experiment_files(experiment, tmp_path)
    read = read_geometry(geometry_path)
    np.testing.assert_allclose(panel_table(read), panel_table(experiment.geometry), rtol=0, atol=1e-12)
    assert read.stack_shape == experiment.geometry.stack_shape
    np.testing.assert_array_equal(geometry_bad_pixels(read), geometry_bad_pixels(experiment.geometry))
    text = cell_path.read_text()
    for line in ("a = 78.9 A", "ga = 90.0 deg", "centering = I", "lattice_type = cubic"):
        assert line in text


def test_a_cell_file_names_its_unique_axis(tmp_path):
    text = cell_text(find_sample("lysozyme").cell)
    assert "unique_axis = c" in text
    assert "lattice_type = tetragonal" in text
