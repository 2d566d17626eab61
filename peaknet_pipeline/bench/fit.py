"""Benchmark of the profile fits: the batched path against lmfit on the same patches, in one run."""

import os
import time

import numpy as np

from peaknet_pipeline.peaks.fit import fit_patches
from peaknet_pipeline.peaks.fit_lmfit import audit_fits, fit_patches_lmfit
from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.fit_patches import Patches, concatenate_patches, cut_patches
from peaknet_pipeline.profile import HALF_WIDTH_PER_SIGMA, profile_model
from peaknet_pipeline.types import Float64Array


def draw_patches(n: int, *, seed: int, half_size: int = 4) -> Patches:
    """Draw patches with one spot each, on a sloping Poisson background.

    Photons are log-uniform from 30 to 3,000, σ is 0.6 to 1.4 px. A tenth lies so close to an edge that the
    patch is cut, and one pixel in a hundred is bad.

    Parameters
    ----------
    n : int
    seed : int
    half_size : int

    """
    rng = np.random.default_rng(seed)
    return concatenate_patches([_draw_patch(rng, half_size) for _ in range(n)])


def _draw_patch(rng: np.random.Generator, half_size: int) -> Patches:
    side = 2 * half_size + 9
    middle = side // 2 if rng.random() > 0.1 else int(rng.integers(1, 3))
    true = _draw_profile(rng, middle, side // 2)
    ss, fs = np.indices((side, side)).astype(np.float64)
    mean = np.maximum(profile_model(true, ss, fs, origin=(side / 2, side / 2)), 0.0)
    frame = rng.poisson(mean).astype(np.float32)[None]
    bad = rng.random(frame.shape) < 0.01
    expected = true[1:3] + rng.normal(0, 0.3, 2).clip(-0.9, 0.9)
    return cut_patches(frame, [0], expected[1:], expected[:1], bad_pixels=bad, half_size=half_size)


def _draw_profile(rng: np.random.Generator, ss: int, fs: int) -> Float64Array:
    sigma = rng.uniform(0.6, 1.4, 2)
    height = np.exp(rng.uniform(np.log(30), np.log(3000))) / (2 * np.pi * sigma.prod())
    centre = np.array([ss, fs]) + rng.uniform(-0.5, 0.5, 2)
    gamma = sigma * HALF_WIDTH_PER_SIGMA
    background = np.exp(rng.uniform(np.log(0.5), np.log(50)))
    slope = rng.normal(0, 0.01, 2) * background
    return np.array([height, *centre, *sigma, *gamma, rng.uniform(0, 0.5), *slope, background])


def run(
    *,
    n_patches: int = 20000,
    n_lmfit: int = 300,
    seed: int = 0,
    repeats: int = 3,
    tied_widths: bool = True,
    free_gain: float = 4.0,
) -> dict[str, object]:
    """Measure both paths on the same patches, alternating, and compare their results.

    Parameters
    ----------
    n_patches : int
        Patches for the batched path's timing.
    n_lmfit : int
        Patches that both paths fit.
    seed : int
    repeats : int
        Timings of each path; medians are reported.
    tied_widths, free_gain : bool, float
        The model's variant, see ``FitParams``. With free widths lmfit is timed on one tied and one free fit,
        and the batched path makes up to two tied and three free ones.

    Returns
    -------
    dict
        ``batched_fits_per_second``, ``lmfit_fits_per_second``, their ``ratio``, ``ratio_of_cpu_time`` (of one
        core against one core, which a busy machine doesn't blur) and the agreement record.

    """
    params = FitParams(tied_widths=tied_widths, free_gain=free_gain)
    sample = draw_patches(n_lmfit, seed=seed, half_size=params.half_size)
    many = sample.take(np.arange(n_patches) % n_lmfit)
    fit_patches(sample, params)
    fast, slow = [], []
    for part in np.array_split(np.arange(n_lmfit), repeats):
        fast.append(_seconds_per_fit(many, params, batched=True))
        slow.append(_seconds_per_fit(sample.take(part), params, batched=False))
    (fast_wall, fast_cpu), (slow_wall, slow_cpu) = np.median(fast, axis=0), np.median(slow, axis=0)
    audit = audit_fits(sample, params, n_sample=n_lmfit)
    return {
        "n_patches": n_patches,
        "threads": os.cpu_count(),
        "batched_fits_per_second": 1 / float(fast_wall),
        "lmfit_fits_per_second": 1 / float(slow_wall),
        "ratio": float(slow_wall / fast_wall),
        "ratio_of_cpu_time": float(slow_cpu / fast_cpu),
        "agreement": audit.to_dict(),
    }


def _seconds_per_fit(patches: Patches, params: FitParams, *, batched: bool) -> tuple[float, float]:
    """Return wall and processor seconds (of all threads) per fit."""
    wall, processor = time.perf_counter(), time.process_time()
    fit_patches(patches, params) if batched else fit_patches_lmfit(patches, params)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return wall / len(patches), processor / len(patches)
