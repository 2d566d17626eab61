"""Simulated frames beside real ones: the same measurements on both, and a plot to look at.

Every set of frames goes through the same finder and the same estimators, so that what differs is the frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.geometry.maps import peak_inv_d, pixel_radius, resolution_map
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params, find_peaks
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, FrameArray, Geometry, IntArray

SHELL = 0.01
"""Width of a resolution shell, Å⁻¹."""

CLIP = 4.0
LAG_PX = 4
"""Distance of the pixels whose difference tells the variance: beyond the point spread."""

HALF_WINDOW_PX = 3


@dataclass(frozen=True)
class FrameSet:
    """Calibrated stacks (n_panels, ss, fs), adu, and what is known about their detector."""

    name: str
    frames: Iterable[FrameArray]
    geometry: Geometry
    bad_pixels: BoolArray
    photon_energy_ev: float
    adu_per_photon: float
    offset_adu: float = 0.0


@dataclass(frozen=True)
class Measurement:
    """What was measured on one set of frames, in photons.

    ``inv_d`` (n,) are the shells' centres; ``background`` and ``variance`` are (n_frames, n), NaN where a
    shell is empty; ``widths`` (px), ``intensities`` and ``peak_inv_d`` have one entry per peak, ``n_peaks``
    one per frame.
    """

    name: str
    inv_d: Float64Array
    background: Float64Array
    variance: Float64Array
    widths: Float64Array
    intensities: Float64Array
    peak_inv_d: Float64Array
    n_peaks: IntArray


def measure(frame_set: FrameSet, params: Peakfinder8Params) -> Measurement:
    """Measure background, its variance, and the peaks that the finder finds."""
    geometry, gain = frame_set.geometry, frame_set.adu_per_photon
    shells = (resolution_map(geometry, frame_set.photon_energy_ev) / SHELL).astype(np.int64)
    radius = pixel_radius(geometry)
    levels, variances, widths, tables, counts = [], [], [], [], []
    for frame in frame_set.frames:
        bad = frame_set.bad_pixels | ~np.isfinite(frame.astype(np.float32))
        table = find_peaks(frame[None], radius=radius, bad_pixels=bad, params=params)
        photons = ((frame.astype(np.float32) - np.float32(frame_set.offset_adu)) / np.float32(gain)).astype(
            np.float32
        )
        level, variance = shell_statistics(photons, bad, shells)
        levels.append(level)
        variances.append(variance)
        widths.append(peak_widths(photons, bad, table))
        tables.append(_peak_columns(table, geometry, frame_set))
        counts.append(len(table))
    columns = np.concatenate(tables) if tables else np.empty((0, 2))
    return Measurement(
        frame_set.name,
        (np.arange(int(shells.max()) + 1, dtype=np.float64) + 0.5) * SHELL,
        np.stack(levels),
        np.stack(variances),
        np.concatenate(widths),
        columns[:, 0],
        columns[:, 1],
        np.array(counts, dtype=np.int64),
    )


def shell_statistics(
    photons: Float32Array, bad: BoolArray, shells: IntArray
) -> tuple[Float64Array, Float64Array]:
    """Return mean and variance (n_shells,) of the background in resolution shells, peaks clipped away.

    The variance is half the mean square difference of pixels :data:`LAG_PX` apart, which slow variation
    around a ring does not reach.
    """
    n_shells = int(shells.max()) + 1
    usable, low, high = ~bad, np.full(n_shells, -np.inf), np.full(n_shells, np.inf)
    for _ in range(4):
        kept = usable & (photons >= low[shells]) & (photons <= high[shells])
        count = np.maximum(np.bincount(shells[kept], minlength=n_shells), 1)
        mean = np.bincount(shells[kept], photons[kept], n_shells) / count
        square = np.bincount(shells[kept], photons[kept].astype(np.float64) ** 2, n_shells) / count
        sigma = np.sqrt(np.maximum(square - mean**2, 0.05))
        low, high = mean - CLIP * sigma, mean + CLIP * sigma
    pair = kept[:, :, LAG_PX:] & kept[:, :, :-LAG_PX]
    difference = (photons[:, :, LAG_PX:] - photons[:, :, :-LAG_PX])[pair]
    where = shells[:, :, LAG_PX:][pair]
    pairs = np.bincount(where, minlength=n_shells)
    variance = np.bincount(where, difference.astype(np.float64) ** 2, n_shells) / np.maximum(pairs, 1) / 2
    enough = pairs >= 200
    return np.where(enough, mean, np.nan), np.where(enough, variance, np.nan)


def median_over_frames(values: Float64Array) -> Float64Array:
    """Return the median (n,) over frames of values (n_frames, n), NaN only where no frame has one."""
    known = np.isfinite(values).any(axis=0)
    median = np.full(values.shape[1], np.nan)
    median[known] = np.nanmedian(values[:, known], axis=0)
    return median


def peak_widths(photons: Float32Array, bad: BoolArray, table: PeakTable) -> Float64Array:
    """Return the rms width (n,), px, of the strong, clean peaks, from second moments of 7 × 7 pixels."""
    strong = table[(table["snr"] > 10) & (table["n_pixels"] >= 3)]
    widths = [
        _width(photons[p], bad[p], round(ss), round(fs))
        for p, ss, fs in zip(strong["panel"], strong["ss"], strong["fs"], strict=True)
    ]
    values = np.array(widths, dtype=np.float64)
    return values[np.isfinite(values)]


def _width(image: Float32Array, bad: BoolArray, ss: int, fs: int) -> float:
    """Return one peak's width, NaN where the window leaves the panel, holds a bad pixel or a second peak."""
    outer = HALF_WINDOW_PX + 2
    window = (slice(ss - outer, ss + outer + 1), slice(fs - outer, fs + outer + 1))
    patch = image[window].astype(np.float64) if ss >= outer and fs >= outer else np.empty((0, 0))
    if patch.shape != (2 * outer + 1, 2 * outer + 1) or bad[window].any():
        return float("nan")
    rim = np.ones(patch.shape, dtype=bool)
    rim[2:-2, 2:-2] = False
    level, noise = np.median(patch[rim]), patch[rim].std()
    inner = patch[2:-2, 2:-2] - level
    if patch[rim].max() - level > 0.5 * inner.max() or inner.max() < 8 * max(noise, 0.5):
        return float("nan")
    weight = np.where(inner > 2 * noise, inner, 0.0)
    y, x = np.mgrid[: inner.shape[0], : inner.shape[1]]
    total = weight.sum()
    cy, cx = (weight * y).sum() / total, (weight * x).sum() / total
    return float(np.sqrt((weight * ((y - cy) ** 2 + (x - cx) ** 2)).sum() / total / 2))


def _peak_columns(table: PeakTable, geometry: Geometry, frame_set: FrameSet) -> Float64Array:
    position = (
        table["panel"].to_numpy(np.int64),
        table["fs"].to_numpy(np.float64),
        table["ss"].to_numpy(np.float64),
    )
    inv_d = peak_inv_d(geometry, *position, frame_set.photon_energy_ev)
    return np.stack([table["intensity"].to_numpy(np.float64) / frame_set.adu_per_photon, inv_d], axis=1)
