"""Simulated runs as files: frames, mask, photon energies and truth in one HDF5 file."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.hdf5.compression import frame_compression
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.detectors import (
    CODES_PATH,
    DATA_PATH,
    ENCODER_PATH,
    ENERGY_PATH,
    GAIN_PATH,
    MASK_PATH,
    PEDESTAL_PATH,
)
from peaknet_pipeline.simulate.experiment import Experiment, RunConditions
from peaknet_pipeline.simulate.frames import make_gain_constants, simulate_frames
from peaknet_pipeline.simulate.truth import Truth, join_truth, truth_columns, write_truth

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
    ``/truth`` as :func:`read_truth` reads it.

    A raw run (experiment with ``stages``) holds uint16 values; its calibration constants, (n_stages,
    n_panels·ss, fs), are in ``/calibration/pedestal`` and ``/calibration/gain``, and gain codes that are a
    separate image in ``/entry_1/data_1/gain``.

    The attribute ``simulated`` holds every setting as JSON. The file appears under its name only when it is
    complete; the same arguments give the same data.

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
        experiment,
        n_frames,
        seed,
        conditions=conditions,
        run_number=run_number,
        workers=workers,
        with_maps=False,
    )
    with new_hdf5(path) as file:
        data = _create_data(file, experiment, DATA_PATH, n_frames)
        codes = _create_gain(file, experiment, n_frames)
        parts = []
        for done, frame in enumerate(frames, start=1):
            data[done - 1] = frame.data.reshape(data.shape[1:])
            if codes is not None and frame.gain_codes is not None:
                codes[done - 1] = frame.gain_codes.reshape(codes.shape[1:])
            file.check_written()
            parts.append(truth_columns(frame))
            if progress is not None:
                progress(done, n_frames)
        _write_metadata(file, experiment, join_truth(parts))
        run = {"seed": seed, "run_number": run_number, "conditions": asdict(conditions or RunConditions())}
        settings = {"run": run, **describe_experiment(experiment)}
        file.attrs["simulated"] = json.dumps(settings, sort_keys=True)
    return path


def _create_gain(file: Any, experiment: Experiment, n_frames: int) -> Any:
    """Write a raw run's calibration constants; create the data set of its gain codes if they are separate."""
    constants = make_gain_constants(experiment)
    if experiment.stages is None or constants is None:
        return None
    n_panels, height, width = experiment.geometry.stack_shape
    for path, values, unit in (
        (PEDESTAL_PATH, constants.pedestal, "adu"),
        (GAIN_PATH, constants.gain, "adu/keV"),
    ):
        stack = values.reshape(-1, n_panels * height, width)
        data = file.create_dataset(path, data=stack, chunks=(1, *stack.shape[1:]), **frame_compression())
        data.attrs["unit"] = unit
        data.attrs["codes"] = experiment.stages.codes
    return _create_data(file, experiment, CODES_PATH, n_frames) if experiment.stages.separate_gain else None


def _create_data(file: Any, experiment: Experiment, path: str, n_frames: int) -> Any:
    n_panels, height, width = experiment.geometry.stack_shape
    shape = (n_panels * height, width)
    dtype = np.dtype(experiment.response.dtype if experiment.stages is None else np.uint16)
    return file.create_dataset(path, (n_frames, *shape), dtype, chunks=(1, *shape), **frame_compression())


def describe_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment's settings, without its geometry, as plain values."""
    values = asdict(experiment)
    del values["geometry"]
    return values


def _write_metadata(file: Any, experiment: Experiment, truth: Truth) -> None:
    n_panels, height, width = experiment.geometry.stack_shape
    known_bad = make_pixel_maps(experiment).known_bad.reshape(n_panels * height, width)
    file.create_dataset(MASK_PATH, data=known_bad.astype(np.uint8), compression="gzip", compression_opts=1)
    energies = truth.frames["photon_energy_ev"].to_numpy()
    file[ENERGY_PATH] = energies
    file[ENCODER_PATH] = np.full(len(energies), 1000 * experiment.geometry.panels[0].clen_m)
    write_truth(file, truth)
