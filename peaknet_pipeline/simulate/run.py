"""Simulated runs as files: frames, mask, photon energies and truth in one HDF5 file."""

from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.detectors import DATA_PATH, ENCODER_PATH, ENERGY_PATH, MASK_PATH
from peaknet_pipeline.simulate.experiment import Experiment, RunConditions
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.truth import Truth, frame_truth, join_truth, write_truth
from peaknet_pipeline.tables import replace_atomically

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


def simulate_run(
    experiment: Experiment,
    path: Path,
    *,
    n_frames: int,
    seed: int,
    run_number: int = 1,
    conditions: RunConditions | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Simulate a run and write it as a CXI-like HDF5 file.

    ``/entry_1/data_1/data`` is (n, n_panels·ss, fs), one chunk per frame, bitshuffle-LZ4;
    ``/entry_1/data_1/mask`` is (n_panels·ss, fs) uint8, 1 = known to be bad; ``/LCLS/photon_energy_eV`` (n,);
    ``/truth`` as :func:`read_truth` reads it. The file appears under its name only when it is complete; the
    same arguments give the same bytes of data.

    Raises
    ------
    ParameterError
        ``n_frames`` is below 1.

    """
    if n_frames < 1:
        raise ParameterError(
            "no frames to simulate", where="simulate_run", expected="n_frames ≥ 1", found=n_frames
        )
    frames = simulate_frames(
        experiment, n_frames, seed, conditions=conditions, run_number=run_number, workers=workers
    )
    with replace_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        data = _create_data(file, experiment, n_frames)
        parts: list[Truth] = []
        for done, frame in enumerate(frames, start=1):
            data[done - 1] = frame.data.reshape(data.shape[1:])
            parts.append(frame_truth(frame))
            if progress is not None:
                progress(done, n_frames)
        _write_metadata(file, experiment, join_truth(parts), seed, run_number)
    return path


def _create_data(file: h5py.File, experiment: Experiment, n_frames: int) -> h5py.Dataset:
    n_panels, height, width = experiment.geometry.stack_shape
    shape = (n_panels * height, width)
    dtype = np.dtype(experiment.response.dtype)
    filter_ = hdf5plugin.Bitshuffle(cname="lz4")
    return file.create_dataset(DATA_PATH, (n_frames, *shape), dtype, chunks=(1, *shape), compression=filter_)


def _write_metadata(
    file: h5py.File, experiment: Experiment, truth: Truth, seed: int, run_number: int
) -> None:
    n_panels, height, width = experiment.geometry.stack_shape
    known_bad = make_pixel_maps(experiment).known_bad.reshape(n_panels * height, width)
    file.create_dataset(MASK_PATH, data=known_bad.astype(np.uint8), compression="gzip", compression_opts=1)
    energies = truth.frames["photon_energy_ev"].to_numpy()
    file[ENERGY_PATH] = energies
    file[ENCODER_PATH] = np.full(len(energies), 1000 * experiment.geometry.panels[0].clen_m)
    file.attrs["simulated"] = True
    file.attrs["experiment"] = experiment.name
    file.attrs["run_number"] = run_number
    file.attrs["seed"] = seed
    write_truth(file, truth)
