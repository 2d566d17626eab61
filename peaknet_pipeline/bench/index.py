"""Speed and correctness of the known-cell indexer on simulated spot lists with known truth."""

import shutil
import statistics
import time
from typing import Any

import numpy as np
import torch

from peaknet_pipeline.devices import choose_device
from peaknet_pipeline.indexing.cell import reciprocal_matrix
from peaknet_pipeline.indexing.control import control_vectors
from peaknet_pipeline.indexing.lattice import LatticeSet, index_vectors
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import excitation_errors
from peaknet_pipeline.indexing.qvectors import SpotBatch, batch_spots
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.indexing.target import lattice_points
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float64Array, UnitCell

LYSOZYME = UnitCell(79.1, 79.1, 37.9, 90.0, 90.0, 90.0, "tetragonal", "P", "c")
ENERGY_EV = 9500.0
CORRECT_DEG = 0.5


def run(
    n_frames: int = 100,
    n_true: int = 55,
    n_false: int = 20,
    n_crystals: int = 1,
    max_lattices: int = 1,
    repeats: int = 3,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Index simulated lysozyme frames; returns frames/s (median of ``repeats``) and the share that is correct.

    ``n_true`` spots are of each of a frame's ``n_crystals``. ``max_lattices`` 1 is what other programs' published times
    mean; the first call, which compiles, isn't timed. ``correct`` is the share of all crystals that are found.
    """
    batch, truth = simulate_spots(
        n_frames, n_true, n_false, np.random.default_rng(seed), n_crystals=n_crystals
    )
    params = IndexParams(max_lattices=max_lattices, device=device)
    index_vectors(batch.take(np.arange(min(4, n_frames))), cell=LYSOZYME, params=params)
    seconds, processor = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        found = index_vectors(batch, cell=LYSOZYME, params=params)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    control = control_vectors(batch, cell=LYSOZYME, params=params, seed=seed)
    return {
        "device": str(choose_device(device)),
        "threads": torch.get_num_threads(),
        "frames": n_frames,
        "spots_per_frame": float(batch.used.sum(axis=1).mean()),
        "frames_per_second": n_frames / statistics.median(seconds),
        "processor_ms_per_frame": 1e3 * statistics.median(processor) / n_frames,
        "scrambled": control.n_scrambled,
        "false_indexed": control.n_indexed,
        "indexamajig": shutil.which("indexamajig") or "not installed",
        **_correctness(found, truth),
    }


def _correctness(found: LatticeSet, truth: Float64Array) -> dict[str, Any]:
    """Compare lattices with the crystals of their frames; ``truth`` (n_frames, n_crystals, 3, 3)."""
    errors = [
        [misorientation_deg(axes, crystal, LYSOZYME) for crystal in truth[frame]]
        for frame, axes in zip(found.batch, found.axes, strict=True)
    ]
    nearest = [min(own) for own in errors]
    right = {
        (int(frame), int(np.argmin(own)))
        for frame, own in zip(found.batch, errors, strict=True)
        if min(own) < CORRECT_DEG
    }
    return {
        "correct": len(right) / (truth.shape[0] * truth.shape[1]),
        "wrong_lattices": sum(e >= CORRECT_DEG for e in nearest),
        "median_error_deg": float(np.median(nearest)) if nearest else None,
    }


def simulate_spots(
    n_frames: int, n_true: int, n_false: int, generator: np.random.Generator, *, n_crystals: int = 1
) -> tuple[SpotBatch, Float64Array]:
    """Return spots of randomly oriented lysozyme crystals with false ones among them, and the true bases.

    The bases are (n_frames, n_crystals, 3, 3), Å⁻¹.
    """
    from scipy.spatial.transform import Rotation

    basis = reciprocal_matrix(LYSOZYME)
    indices = lattice_points(basis, 0.4)
    turns = Rotation.random(n_frames * n_crystals, rng=generator).as_matrix()
    truth = (turns @ basis).reshape(n_frames, n_crystals, 3, 3)
    spots = [
        np.concatenate(
            [*(_spots(axes, indices, n_true, generator) for axes in own), _noise(n_false, generator)]
        )
        for own in truth
    ]
    frames = np.repeat(np.arange(n_frames), [len(s) for s in spots])
    return batch_spots(frames, np.concatenate(spots), photon_energy_ev=ENERGY_EV), truth


def _spots(axes: Float64Array, indices: Float64Array, n: int, generator: np.random.Generator) -> Float64Array:
    wave = ENERGY_EV / HC_EV_ANGSTROM
    points = indices @ axes.T
    near = np.abs(excitation_errors(points, wave)) < np.abs(generator.normal(0.0, 0.001, len(points)))
    out = points[generator.permutation(np.flatnonzero(near))[:n]] + [0.0, 0.0, wave]
    out += generator.normal(0.0, 0.0002, out.shape)
    return _on_sphere(out, wave)


def _noise(n: int, generator: np.random.Generator) -> Float64Array:
    radius, azimuth = 0.55 * np.sqrt(generator.uniform(0.01, 1.0, n)), generator.uniform(0.0, 2.0 * np.pi, n)
    out = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), np.ones(n)], axis=1)
    return _on_sphere(out, ENERGY_EV / HC_EV_ANGSTROM)


def _on_sphere(out: Float64Array, wave: float) -> Float64Array:
    unit = out / np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(wave * (unit - np.array([0.0, 0.0, 1.0])), dtype=np.float64)
