"""Find bad pixels from the frames of a run, without an expert: hot, noisy and dead ones.

Each frame is compared, pixel by pixel, with what the neighbourhood shows over the run, scaled to the frame's
own background. A Bragg spot brightens a pixel in a few frames; a hot pixel stands out in nearly all of them.
What stands out over more than a few adjoining pixels (a ring, the edge of a beamstop's shadow, a jet) is left
alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, are_usable, is_usable
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.runs.local_median import local_median
from peaknet_pipeline.runs.masks import MaskSource, combine_masks
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.sample import sample_frames
from peaknet_pipeline.runs.statistics import (
    Progress,
    compute_statistics,
    frame_ranges,
    frames_per_batch,
)
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, RunStatistics

MIN_COUNT = 3
SCALE_PIXELS = 65536

FEW_FRAMES = 100
"""Fewer frames than this may show one spot in most of them."""

STEADY_RATIO = 0.5
"""Spread over mean excess, from which on a pixel comes and goes instead of being hot."""

LIVELY_RATIO = 2.0
"""Spread over the neighbourhood's, from which on a pixel beside an unsteady one belongs to the same spot."""

_AROUND = np.array([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]], dtype=np.bool_)

RUN_LAYER = "run"
"""Name of the layer that holds all masks of the run itself: geometry, CXI, pixel_mask."""


@dataclass(frozen=True)
class BadPixelParams(Parameters):
    """How bad pixels are found from a run's frames."""

    n_sigma: float = parameter(
        5.0, meaning="a pixel stands out of its neighbourhood by more than this", unit="σ", gt=0
    )
    hot_fraction: float = parameter(
        0.8, meaning="hot or dead: stands out in at least this part of the frames", gt=0, le=1
    )
    sharp_fraction: float = parameter(
        0.5, meaning="the same for one or two adjoining pixels, too sharp for a spot", gt=0, le=1
    )
    noisy_fraction: float = parameter(
        0.2, meaning="noisy: stands out, up or down, in this part of the frames", gt=0, le=1
    )
    noise_ratio: float = parameter(
        4.0, meaning="noisy: spread over the neighbours' spread, largest frame left out", gt=1
    )
    max_cluster: int = parameter(
        9, meaning="more adjoining pixels than this are a real feature", unit="px", ge=1
    )
    radius: int = parameter(3, meaning="half width of the neighbourhood", unit="px", ge=1, le=15)
    dead_level: float = parameter(
        0.25, meaning="dead: mean below this part of the neighbours' mean", gt=0, le=1
    )
    dead_n_sigma: float = parameter(
        6.0, meaning="dead: the mean lies below the neighbours' by this", unit="standard errors", gt=0
    )
    min_expected: float = parameter(
        20.0, meaning="dead without any change: photons that the neighbours saw over the run", gt=0
    )
    min_frames: int = parameter(8, meaning="with fewer frames nothing is told about a pixel", ge=3)
    max_frames: int = parameter(500, meaning="frames looked at, evenly spaced over the run", ge=3)


@dataclass(frozen=True)
class BadPixelReport:
    """The joint mask, (n_panels, ss, fs), True = bad, with what each kind added to the run's own mask.

    ``layers`` are the masks that were joined, by name and in order: the run's own as one, then what was found. ``doubts``
    tell in sentences what is odd about them.
    """

    bad_pixels: BoolArray
    hot: BoolArray
    noisy: BoolArray
    dead: BoolArray
    sources: tuple[MaskSource, ...]
    layers: Mapping[str, BoolArray]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutlierCounts:
    """In how many frames each pixel lay above or below its neighbourhood, (n_panels, ss, fs) int32 each."""

    high: npt.NDArray[np.int32]
    low: npt.NDArray[np.int32]
    n_frames: int


def find_bad_pixels(
    run: Run,
    statistics: RunStatistics | None = None,
    params: BadPixelParams | None = None,
    *,
    progress: Progress | None = None,
) -> BadPixelReport:
    """Find hot, noisy and dead pixels that a run's own mask doesn't know.

    Parameters
    ----------
    run : Run
        Open run; its ``bad_pixels`` count as known.
    statistics : RunStatistics, optional
        Of this run, from :func:`compute_statistics`; computed when not given.
    params : BadPixelParams, optional
    progress : callable, optional
        Called with frames done and frames in all.

    Returns
    -------
    BadPixelReport
        With fewer than ``min_frames`` frames nothing can be told, and nothing is added.

    Raises
    ------
    RunError
        The statistics belong to another detector.

    """
    params = params or BadPixelParams()
    statistics = statistics or compute_statistics(run, max_frames=params.max_frames)
    if statistics.mean.shape != run.stack_shape:
        raise RunError(
            "statistics of another detector", expected=run.stack_shape, found=statistics.mean.shape
        )
    frames = sample_frames(run.n_frames, params.max_frames)
    if len(frames) < params.min_frames:
        none = np.zeros_like(run.bad_pixels)
        return _report(run, {"no value": none, "hot": none, "noisy": none, "dead": none})
    trimmed, spread = trim_largest(statistics)
    level = local_median(trimmed, run.bad_pixels, params.radius)
    sigma = local_median(spread, run.bad_pixels, params.radius)
    counts = count_outliers(run, level, sigma, params.n_sigma, frames, progress=progress)
    hot = _hot(counts, params) & ~run.bad_pixels & ~_visited(trimmed - level, spread, sigma, len(frames))
    noisy = _noisy(counts, spread, sigma, params) & ~run.bad_pixels & ~hot
    silent = np.isnan(statistics.mean) & ~run.bad_pixels
    dead = _dead(counts, statistics, trimmed, level, sigma, params) & ~run.bad_pixels & ~noisy & ~silent
    return _report(run, {"no value": silent, "hot": hot, "noisy": noisy, "dead": dead})


def trim_largest(statistics: RunStatistics) -> tuple[Float32Array, Float32Array]:
    """Return mean and standard deviation without each pixel's largest frame: one Bragg spot doesn't count."""
    n = statistics.n_frames
    if n < 2:
        return statistics.mean, statistics.std
    mean, std, top = (a.astype(np.float64) for a in (statistics.mean, statistics.std, statistics.maximum))
    trimmed = (n * mean - top) / (n - 1)
    squares = n * std**2 - (top - mean) ** 2 * n / (n - 1)
    spread = np.sqrt(np.maximum(squares, 0.0) / (n - 1))
    return trimmed.astype(np.float32), spread.astype(np.float32)


def count_outliers(
    run: Run,
    level: Float32Array,
    sigma: Float32Array,
    n_sigma: float,
    frames: npt.NDArray[np.int64],
    *,
    progress: Progress | None = None,
) -> OutlierCounts:
    """Count for each pixel the frames in which it lies above or below its neighbourhood.

    Parameters
    ----------
    run : Run
    level, sigma : (n_panels, ss, fs) float32
        What the neighbourhood shows over the run, in the run's intensity unit; NaN: unknown, never counted.
    n_sigma : float
    frames : (n,) int64
        Numbers of the frames to look at, ascending.

    """
    counts = OutlierCounts(
        np.zeros(run.stack_shape, np.int32), np.zeros(run.stack_shape, np.int32), n_frames=len(frames)
    )
    done = 0
    for start, stop in frame_ranges(frames, frames_per_batch(run)):
        batch = run.read(start, stop)
        scales = frame_scales(batch, level, run.bad_pixels, usable=run.usable)
        _count(batch, run.usable, level, sigma, scales, n_sigma, counts.high, counts.low)
        done += stop - start
        if progress is not None:
            progress(done, len(frames))
    return counts


def frame_scales(
    frames: npt.NDArray[Any],
    level: Float32Array,
    bad_pixels: BoolArray,
    *,
    usable: UsableValues = ALL_VALUES,
) -> Float64Array:
    """Return the background of each frame relative to the run's, (n,), from a spread sample of good pixels.

    Values are cut at four times the level plus four, so that spots hardly count; values that are not usable count 0.
    """
    good = np.flatnonzero((~bad_pixels & np.isfinite(level)).ravel())
    good = good[:: max(1, good.size // SCALE_PIXELS)]
    expected = level.ravel()[good].astype(np.float64)
    total = expected.sum()
    if not total > 0:
        return np.ones(frames.shape[0])
    values = frames.reshape(frames.shape[0], -1)[:, good]
    kept = np.where(are_usable(values.astype(np.float32), usable.of(values.dtype.name)), values, 0.0)
    scales: Float64Array = np.minimum(kept, 4.0 * expected + 4.0).sum(axis=1) / total
    return scales


def _hot(counts: OutlierCounts, params: BadPixelParams) -> BoolArray:
    everywhere = counts.high >= _at_least(params.hot_fraction, counts.n_frames)
    often = counts.high >= _at_least(params.sharp_fraction, counts.n_frames)
    return _small_clusters(everywhere, params.max_cluster) | _small_clusters(often, 2)


def _visited(excess: Float32Array, spread: Float32Array, sigma: Float32Array, n_frames: int) -> BoolArray:
    """Return the pixels where over few frames a spot comes and goes, as near the spindle of a rotation.

    They stand out unsteadily, and a neighbour with them. Over many frames no spot stays, and any pixel is visited by
    bright ones, so that its spread tells nothing.
    """
    if n_frames >= FEW_FRAMES:
        return np.zeros(excess.shape, dtype=np.bool_)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(spread / sigma, posinf=0.0)
    around = ndimage.maximum_filter(ratio, footprint=_AROUND, mode="constant")
    visited: BoolArray = (spread > STEADY_RATIO * excess) & (around > LIVELY_RATIO)
    return visited


def _noisy(
    counts: OutlierCounts, spread: Float32Array, sigma: Float32Array, params: BadPixelParams
) -> BoolArray:
    out = counts.high + counts.low >= _at_least(params.noisy_fraction, counts.n_frames)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(spread / sigma, posinf=0.0)
    wide = _small_clusters(out & (ratio > params.noise_ratio), 2)
    around = ndimage.maximum_filter(np.where(wide, 0.0, ratio), size=(1, 3, 3), mode="constant")
    # A spot that comes and goes widens its neighbours as well; a noisy pixel stands alone.
    alone: BoolArray = wide & (around < 0.5 * params.noise_ratio)
    return alone


def _dead(
    counts: OutlierCounts,
    statistics: RunStatistics,
    trimmed: Float32Array,
    level: Float32Array,
    sigma: Float32Array,
    params: BadPixelParams,
) -> BoolArray:
    """Find pixels that stay dark: frame by frame where it is bright, else by their mean over the run."""
    low = counts.low >= _at_least(params.hot_fraction, counts.n_frames)
    with np.errstate(divide="ignore", invalid="ignore"):
        deficit = np.sqrt(statistics.n_frames) * (level - trimmed) / sigma
        photons = statistics.n_frames * (level / sigma).astype(np.float64) ** 2
    dim = (trimmed < params.dead_level * level) & (deficit > params.dead_n_sigma)
    silent = (
        (statistics.std == 0) & (statistics.mean < level) & (sigma > 0) & (photons >= params.min_expected)
    )
    small = _small_clusters(low | dim | silent, params.max_cluster)
    return _without_dark_neighbours(small, trimmed, params.dead_level * level)


def _without_dark_neighbours(clusters: BoolArray, image: Float32Array, bound: Float32Array) -> BoolArray:
    """Drop clusters beside which it is dark as well: corners of shadows."""
    beside = ndimage.minimum_filter(
        np.where(clusters | np.isnan(image), np.inf, image), (1, 3, 3), mode="nearest"
    )
    labels = _label(clusters)
    shaded = np.unique(labels[clusters & ~(beside > bound)])
    kept: BoolArray = clusters & ~np.isin(labels, shaded)
    return kept


def _at_least(fraction: float, n_frames: int) -> int:
    return max(MIN_COUNT, math.ceil(fraction * n_frames))


def _small_clusters(flagged: BoolArray, max_size: int) -> BoolArray:
    """Keep 8-connected clusters, within panels, of at most ``max_size`` pixels."""
    labels = _label(flagged)
    small = np.bincount(labels.ravel()) <= max_size
    small[0] = False
    kept: BoolArray = small[labels]
    return kept


def _label(flagged: BoolArray) -> npt.NDArray[np.int32]:
    structure = np.zeros((3, 3, 3), dtype=np.int64)
    structure[1] = 1
    labels: npt.NDArray[np.int32] = ndimage.label(flagged, structure=structure)[0].astype(np.int32)
    return labels


def _report(run: Run, found: dict[str, BoolArray]) -> BadPixelReport:
    layers = {RUN_LAYER: run.bad_pixels, **found}
    joint, sources = combine_masks(layers)
    kinds = (found["hot"], found["noisy"], found["dead"])
    return BadPixelReport(joint, *kinds, (*run.mask_sources, *sources[1:]), layers)


@numba.njit(parallel=True, cache=True, nogil=True)
def _count(
    frames: npt.NDArray[Any],
    usable: UsableValues,
    level: Float32Array,
    sigma: Float32Array,
    scales: Float64Array,
    n_sigma: float,
    high: npt.NDArray[np.int32],
    low: npt.NDArray[np.int32],
) -> None:
    n_panels, height, width = level.shape
    for row in numba.prange(n_panels * height):
        p, y = row // height, row % height
        for n in range(frames.shape[0]):
            root = math.sqrt(scales[n]) if scales[n] > 1.0 else 1.0
            for x in range(width):
                value = np.float64(frames[n, p, y, x])
                if not is_usable(np.float32(value), usable):
                    continue
                excess = value - scales[n] * level[p, y, x]
                bound = n_sigma * sigma[p, y, x] * root
                if excess > bound:
                    high[p, y, x] += 1
                elif -excess > bound:
                    low[p, y, x] += 1
