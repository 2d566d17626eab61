"""A small experiment as LCLS leaves it: camera length and photon energy at HDF5 paths, the gain per eV."""

import re
from dataclasses import replace

import h5py
import numpy as np

from peaknet_pipeline.simulate.demo import DEMO_DISTANCE_M, DEMO_ENERGY_EV, demo_experiment
from peaknet_pipeline.simulate.detectors import DATA_PATH, ENCODER_PATH, ENERGY_PATH
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run

COFFSET_M = 0.58
"""The encoder counts from a place behind the sample, as the CSPAD's does: its values are negative."""

ENCODER_MM = 1e3 * (DEMO_DISTANCE_M - COFFSET_M)

PATHS = {"photon_energy": f"{ENERGY_PATH} eV", "clen": f"{ENCODER_PATH} mm"}
NUMBERS = {"photon_energy": f"{DEMO_ENERGY_EV} eV", "clen": f"{DEMO_DISTANCE_M - COFFSET_M!r} m"}
SETTINGS = "finder: {threshold: 70, max_pix: 60, local_bg_radius: 4}\n"


def write_lcls_experiment(folder, *, n_frames=8, seed=31, values=PATHS):
    """Write run 1 of 8 panels with geometry, cell and settings; return the simulated experiment.

    ``values`` says where photon energy and camera length stand; the file holds them at its paths in any case.
    """
    experiment = demo_experiment(5, name="lcls")
    geometry, _ = write_experiment_files(experiment, folder)
    geometry.write_text(lcls_text(geometry.read_text(), experiment, values))
    path = simulate_run(experiment, folder / "r0001.h5", n_frames=n_frames, seed=seed, workers=1)
    with h5py.File(path, "r+") as file:
        file[ENCODER_PATH][:] = ENCODER_MM
        file[ENERGY_PATH][:] = DEMO_ENERGY_EV
    (folder / "experiment.yaml").write_text(SETTINGS)
    return experiment


def lcls_text(text, experiment, values):
    """Return a geometry's text with the places of its values, an offset per panel and a gain per eV."""
    text = re.sub(r"(?m)^(photon_energy|clen) = .*$", lambda line: f"{line[1]} = {values[line[1]]}", text)
    text = re.sub(r"(?m)coffset = .*$", f"coffset = {COFFSET_M!r}", text)
    gain = experiment.response.adu_per_photon / DEMO_ENERGY_EV
    return re.sub(r"(?m)adu_per_photon = .*$", f"adu_per_eV = {gain!r}", text)


def change_values(path, place, changes):
    """Set the values of some frames, by frame number, at an HDF5 path."""
    with h5py.File(path, "r+") as file:
        values = np.array(file[place])
        for frame, value in changes.items():
            values[frame] = value
        file[place][:] = values


def move_detector(folder, experiment, *, by_mm, frames, seed=31):
    """Take some frames of run 1 anew with the detector ``by_mm`` further away, as its encoder then says."""
    panels = tuple(replace(p, clen_m=p.clen_m + 1e-3 * by_mm) for p in experiment.geometry.panels)
    moved = replace(experiment, geometry=replace(experiment.geometry, panels=panels))
    with h5py.File(folder / "r0001.h5", "r+") as file:
        n_frames = len(file[DATA_PATH])
        again = simulate_run(moved, folder / "moved.h5", n_frames=n_frames, seed=seed, workers=1)
        with h5py.File(again) as other:
            for frame in frames:
                file[DATA_PATH][frame] = other[DATA_PATH][frame]
                file[ENCODER_PATH][frame] = ENCODER_MM + by_mm
    again.unlink()
