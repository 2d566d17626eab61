"""A threshold from a noise budget: how many false peaks a megapixel may give, measured on the run's own frames.

Where noise is symmetric, frames mirrored about their background, 2b − k, hold the same noise and no spot, for spots have become
holes: every peak in them is false. Photon counts are skewed, and their mirror image has too short a tail; there the quietest
half of the frames stands for noise. What weak spots those frames still hold counts as noise, which errs towards fewer peaks.
Peaks that come back at the same place, hot clusters and rims, are not noise and don't count.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues
from peaknet_pipeline.peaks.local_background import background_maps
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.peaks.scan import background_thresholds
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, FrameArray

SNRS = tuple(np.arange(3.0, 12.01, 0.25).tolist())
"""What is chosen among, the strictest where none keeps the budget."""

QUIET_SNR = 4.0
"""SNR at which frames are ranked by their peaks."""

SKEWED = 0.2
"""Skewness of pixels, within ``TAIL`` σ, from which the mirror image is not believed: Poisson noise of 25 photons."""

TAIL = 5.0

CELL = 4.0
"""Side of the places, px, in which peaks of several frames are taken for the same defect."""


def mirrored(frames: FrameArray, bad_pixels: BoolArray, adu_per_photon: Float64Array) -> Float32Array:
    """Return frames (n, n_panels, ss, fs) mirrored about their local background, 2b − k, float32."""
    image = np.empty(frames.shape, dtype=np.float32)
    for n, frame in enumerate(frames):
        mean, _ = background_maps(frame, ~bad_pixels, adu_per_photon)
        np.subtract(2.0 * mean, frame, out=image[n])
    return image


def skewness(frames: FrameArray, bad_pixels: BoolArray, adu_per_photon: Float64Array) -> float:
    """Return the skewness of the good pixels about their local background, those beyond ``TAIL`` σ left out."""
    sums = np.zeros(3)
    for frame in frames:
        mean, variance = background_maps(frame, ~bad_pixels, adu_per_photon)
        z = ((frame - mean) / np.sqrt(variance))[~bad_pixels & np.isfinite(frame)].astype(np.float64)
        z = z[np.abs(z) < TAIL]
        sums += len(z), (z**2).sum(), (z**3).sum()
    n, squares, cubes = sums
    return float(cubes / n / (squares / n) ** 1.5) if squares > 0 else 0.0


def keep_budget(
    frames: FrameArray,
    params: Peakfinder8Params,
    *,
    budget: float,
    radius: Float32Array,
    bad_pixels: BoolArray,
    adu_per_photon: Float64Array,
    usable: UsableValues = ALL_VALUES,
) -> Peakfinder8Params:
    """Return peakfinder8's parameters with the threshold and the least ``min_snr`` that keep a noise budget.

    Parameters
    ----------
    frames : (n, n_panels, ss, fs), adu
        A sample of the run.
    params : Peakfinder8Params
        The other parameters.
    budget : float
        False peaks per megapixel of good pixels.
    radius, bad_pixels : (n_panels, ss, fs)
    adu_per_photon : (n_panels,)
        1 where it isn't known.
    usable : UsableValues

    Returns
    -------
    Peakfinder8Params
        ``threshold`` is the frames' median, so that the SNR decides, or little above zero.

    Raises
    ------
    ParameterError
        No frames, or no budget.

    """
    if not len(frames) or budget <= 0:
        raise ParameterError(
            "no noise to measure", where="keep_budget", expected="frames and a budget above 0",
            found=f"{len(frames)} frames and {budget}",
        )  # fmt: skip
    (floor,) = background_thresholds(frames, bad_pixels, (0.0,), usable=usable)
    setting = replace(params, threshold=floor, min_snr=QUIET_SNR)
    plan = Peakfinder8(radius, bad_pixels, setting, usable=usable).plan

    def peaks_per_frame(some: FrameArray, rules: Peakfinder8Params) -> Float64Array:
        found = Peakfinder8(radius, bad_pixels, rules, usable=usable, plan=plan).find(some)
        fresh = found.loc[~_recur(found, len(some)), "frame"]
        return np.bincount(fresh.to_numpy(np.int64), minlength=len(some)).astype(np.float64)

    order = np.argsort(peaks_per_frame(frames, setting), kind="stable")
    noise = frames[np.sort(order[: -(-len(frames) // 2)])]
    rules = setting
    if skewness(noise, bad_pixels, adu_per_photon) < SKEWED:
        noise = mirrored(frames, bad_pixels, adu_per_photon)
        (mirrored_floor,) = background_thresholds(noise, bad_pixels, (0.0,))
        rules = replace(setting, threshold=mirrored_floor)
    allowed = budget * len(noise) * float((~bad_pixels).sum()) / 1e6
    low, high = 0, len(SNRS) - 1
    while low < high:  # fewer peaks the higher the SNR: bisection
        middle = (low + high) // 2
        kept = peaks_per_frame(noise, replace(rules, min_snr=SNRS[middle])).sum() <= allowed
        low, high = (low, middle) if kept else (middle + 1, high)
    return replace(setting, min_snr=SNRS[low])


def _recur(peaks: PeakTable, n_frames: int) -> BoolArray:
    """Say of each peak whether its place of ``CELL`` pixels gives one in a quarter of the frames, and in three, at least.

    Those are hot clusters and rims: no SNR gets rid of them, and they are the mask's affair.
    """
    cells = pd.DataFrame({"panel": peaks["panel"], "ss": peaks["ss"] // CELL, "fs": peaks["fs"] // CELL})
    frames = cells.assign(frame=peaks["frame"]).groupby(["panel", "ss", "fs"])["frame"].transform("nunique")
    return np.asarray(frames >= max(3, n_frames / 4), dtype=np.bool_)
