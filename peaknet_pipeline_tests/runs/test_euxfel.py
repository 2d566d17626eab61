"""EuXFEL run directories open through extra_data, on its own mock runs."""

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.types import Geometry

make_examples = pytest.importorskip("extra_data.tests.make_examples", reason="extra_data is not installed")

N_TRAINS, PER_TRAIN = 64, 32


def agipd_geometry() -> Geometry:
    """16 modules of 8 chips each, dim1 = module."""
    text = "photon_energy = 9300 eV\nclen = 0.2 m\nres = 5000\nadu_per_eV = 0.001\ndim0 = %\ndim2 = ss\ndim3 = fs\n"
    for module in range(16):
        for chip in range(8):
            name = f"p{module}a{chip}"
            text += f"{name}/dim1 = {module}\n{name}/min_ss = {64 * chip}\n{name}/max_ss = {64 * chip + 63}\n"
            text += f"{name}/min_fs = 0\n{name}/max_fs = 127\n{name}/corner_x = {140 * module}\n"
            text += f"{name}/corner_y = {70 * chip}\n{name}/fs = x\n{name}/ss = y\n"
    return parse_geometry(text)


@pytest.fixture(scope="module")
def proc_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated AGIPD run; each frame of the first and last module carries its own number."""
    folder = tmp_path_factory.mktemp("proc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_examples.make_modern_spb_proc_run(str(folder))
    for module in (0, 15):
        with h5py.File(folder / f"CORR-R0142-AGIPD{module:02d}-S00000.h5", "a") as file:
            data = file[f"INSTRUMENT/SPB_DET_AGIPD1M-1/CORR/{module}CH0:output/image/data"]
            for frame in (0, 31, 32, 100, N_TRAINS * PER_TRAIN - 1):
                data[frame, 3, 5] = 1000 * module + frame
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_calibrated_run_reads_by_range_over_trains(proc_run: Path) -> None:
    with open_run(proc_run) as run:
        assert run.info.file_format == "euxfel"
        assert run.n_frames == N_TRAINS * PER_TRAIN
        assert run.stack_shape == (16, 512, 128)
        frames = run.read(31, 33)  # across the border of two trains
        assert frames.shape == (2, 16, 512, 128)
        assert frames[0, 0, 3, 5] == 31
        assert frames[1, 15, 3, 5] == 15032
        assert run.read(run.n_frames - 1, run.n_frames)[0, 0, 3, 5] == run.n_frames - 1
        assert np.isnan(run.read(0, 1)[0, 15, 0, 5])  # masked in the file


@pytest.mark.filterwarnings("ignore")
def test_a_geometry_cuts_modules_into_chips(proc_run: Path) -> None:
    with open_run(proc_run, agipd_geometry()) as run:
        assert run.stack_shape == (128, 64, 128)
        assert run.read(100, 101)[0, 0, 3, 5] == 100
        assert run.read(100, 101)[0, 120, 3, 5] == 15100
        assert run.photon_energy_ev[0] == 9300.0


@pytest.mark.filterwarnings("ignore")
def test_raw_runs_and_other_directories_are_refused(tmp_path: Path) -> None:
    make_examples.make_agipd500k_run(str(tmp_path))
    with pytest.raises(RunError, match=r"the run is raw.*Open the calibrated"):
        open_run(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"a EuXFEL run.s RAW-R0001"):
        open_run(tmp_path / "empty")
