"""Benchmark of the profile fits: the batched path against lmfit on the same patches, in one run."""

import time

import numba
import numpy as np

from peaknet_pipeline.peaks.fit import FitParams, fit_patches
from peaknet_pipeline.peaks.fit_lmfit import audit_fits, fit_patches_lmfit
from peaknet_pipeline.peaks.fit_patches import Patches, concatenate_patches, cut_patches
from peaknet_pipeline.profile import HALF_WIDTH_PER_SIGMA, profile_model
from peaknet_pipeline.types import Float64Array


def draw_patches(n: int, *, seed: int, half_size: int = 4) -> Patches:
    """Draw patches with one spot each: log-uniform 30–3,000 photons, σ 0.6–1.4 px, sloping Poisson
    background.

    A tenth lies so close to an edge that the patch is cut, and one pixel in a hundred is bad.

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
    *, n_patches: int = 20000, n_lmfit: int = 300, seed: int = 0, repeats: int = 3, tied_widths: bool = True
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
    tied_widths : bool
        The model's variant, see ``FitParams``.

    Returns
    -------
    dict
        ``batched_fits_per_second``, ``lmfit_fits_per_second``, ``ratio`` and the agreement record.

    """
    params = FitParams(tied_widths=tied_widths)
    sample = draw_patches(n_lmfit, seed=seed, half_size=params.half_size)
    many = sample.take(np.arange(n_patches) % n_lmfit)
    fit_patches(sample, params)
    fast_seconds, slow_seconds = [], []
    for part in np.array_split(np.arange(n_lmfit), repeats):
        fast_seconds.append(_seconds_per_fit(many, params, batched=True))
        slow_seconds.append(_seconds_per_fit(sample.take(part), params, batched=False))
    fast, slow = float(np.median(fast_seconds)), float(np.median(slow_seconds))
    audit = audit_fits(sample, params, n_sample=n_lmfit)
    return {
        "n_patches": n_patches,
        "threads": numba.get_num_threads(),
        "batched_fits_per_second": 1 / fast,
        "lmfit_fits_per_second": 1 / slow,
        "ratio": slow / fast,
        "agreement": audit.to_dict(),
    }


def _seconds_per_fit(patches: Patches, params: FitParams, *, batched: bool) -> float:
    start = time.perf_counter()
    fit_patches(patches, params) if batched else fit_patches_lmfit(patches, params)
    return (time.perf_counter() - start) / len(patches)
