"""From expected photons to numbers in a file: statistics, charge sharing, gain, noise, defects."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from peaknet_pipeline.geometry.maps import geometry_bad_pixels
from peaknet_pipeline.simulate.background import panel_sizes
from peaknet_pipeline.simulate.blur import blur_panels
from peaknet_pipeline.simulate.compilation import compiled
from peaknet_pipeline.simulate.experiment import DefectParameters, Experiment, ResponseParameters
from peaknet_pipeline.simulate.randomness import draw_normal_pair, draw_poisson, draw_uniform, start_stream
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray, Geometry, IntArray

NOISY_PHOTONS = 10.0
MANY_PHOTONS = 64
"""Above this count in a pixel, charge sharing moves the mean share instead of photon by photon."""

MEAN_SHARE = 0.25
"""Mean part of a shared photon's charge that its neighbour gets (uniform between 0 and a half)."""


@dataclass(frozen=True)
class PixelMaps:
    """The detector's pixels, each (n_panels, ss, fs).

    ``gain`` is relative (0 = dead), ``noise`` and ``excess`` are photons; ``known_bad`` is what the file's
    mask tells, ``truly_bad`` also holds the bad pixels that it doesn't.
    """

    gain: Float32Array
    noise: Float32Array
    excess: Float32Array
    known_bad: BoolArray
    truly_bad: BoolArray


def make_pixel_maps(experiment: Experiment) -> PixelMaps:
    """Draw gains and defects, fixed by the experiment's seed."""
    response, defects = experiment.response, experiment.defects
    shape = experiment.geometry.stack_shape
    generator = np.random.default_rng([experiment.seed, 2])
    gain = (1 + response.gain_spread * generator.standard_normal(shape, dtype=np.float32)).astype(np.float32)
    noise = np.full(shape, response.read_noise_photons, dtype=np.float32)
    excess = np.zeros(shape, dtype=np.float32)
    hot, dead, noisy, known = _draw_defects(shape, defects, generator)
    excess.flat[hot] = defects.hot_photons * generator.lognormal(0.0, 0.8, len(hot))
    gain.flat[dead] = 0
    noise.flat[noisy] = NOISY_PHOTONS
    truly_bad = np.zeros(shape, dtype=bool)
    for rows in (hot, dead, noisy):
        truly_bad.flat[rows] = True
    regions = geometry_bad_pixels(experiment.geometry)
    known_bad = regions.copy()
    known_bad.flat[known] = True
    gain[regions] = 0
    noise[regions] = 0
    excess[regions] = 0
    return PixelMaps(gain, noise, excess, known_bad, truly_bad | regions)


def detect(
    expected: Float32Array, maps: PixelMaps, response: ResponseParameters, geometry: Geometry, *, seed: int
) -> Float32Array:
    """Turn expected photons (n_panels, ss, fs) into detector numbers of the same shape, adu, before rounding.

    Charge sharing gives, photon by photon, up to half of the charge to one of four neighbours; what would
    leave the panel is lost. A CCD's light spreads before it is read. One common-mode value is added per chip.
    """
    charge = np.zeros(expected.shape, dtype=np.float32)
    _collect(charge, expected, panel_sizes(geometry), response.charge_sharing, np.uint64(seed))
    charge = blur_panels(charge, panel_sizes(geometry), response.blur_px)
    signal = np.empty_like(charge)
    chips = (response.chip_ss or expected.shape[1], response.chip_fs or expected.shape[2])
    scalars = (
        response.adu_per_photon,
        response.common_mode_photons,
        response.saturation_photons,
        response.offset_adu,
    )
    _read_out(signal, charge, maps.gain, maps.noise, maps.excess, chips, scalars, np.uint64(seed))
    return signal


def to_file_values(
    signal: Float32Array, maps: PixelMaps, response: ResponseParameters, defects: DefectParameters
) -> FrameArray:
    """Round and clip the signal (n_panels, ss, fs) to the file's type; mark known bad pixels."""
    dtype = np.dtype(response.dtype)
    if dtype.kind == "f":
        values: FrameArray = signal.astype(dtype)
    else:
        limits = np.iinfo(dtype)
        # float32 cannot hold the largest 32-bit integers; clip to the next lower one it can.
        top = min(float(limits.max), float(np.nextafter(np.float32(limits.max), np.float32(0))))
        values = np.clip(np.rint(signal), limits.min, top).astype(dtype)
    if defects.masked_as != "measured":
        values[maps.known_bad] = _masked_value(defects.masked_as, dtype)
    return values


def _masked_value(masked_as: str, dtype: "np.dtype[Any]") -> Any:
    if masked_as == "zero":
        return 0
    if masked_as == "minus_one":
        return -1 if dtype.kind != "u" else np.iinfo(dtype).max
    if masked_as == "nan" and dtype.kind == "f":
        return np.nan
    return np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max


def _draw_defects(
    shape: tuple[int, int, int], defects: DefectParameters, generator: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Draw flat indices of hot, dead and noisy pixels, and of those that the mask knows."""
    n_pixels = int(np.prod(shape))
    counts = [
        round(f * n_pixels) for f in (defects.hot_fraction, defects.dead_fraction, defects.noisy_fraction)
    ]
    chosen = generator.choice(n_pixels, size=sum(counts), replace=False).astype(np.int64)
    hot, dead, noisy = np.split(chosen, np.cumsum(counts)[:-1])
    known = chosen[generator.random(len(chosen)) < defects.known_fraction]
    return hot, dead, noisy, known


@compiled
def _collect(
    charge: Float32Array, expected: Float32Array, sizes: IntArray, sharing: float, seed: Any
) -> None:
    """Draw photons per pixel and deposit their charge."""
    state = np.zeros(1, dtype=np.uint64)
    for p in range(len(sizes)):
        for i in range(sizes[p, 0]):
            start_stream(state, seed, p * expected.shape[1] + i)
            for j in range(sizes[p, 1]):
                count = draw_poisson(state, expected[p, i, j])
                charge[p, i, j] += count
                if sharing > 0.0 and count > 0:
                    _share(charge, state, p, i, j, count, sharing, sizes[p, 0], sizes[p, 1])


@compiled
def _share(
    charge: Float32Array,
    state: Any,
    p: int,
    i: int,
    j: int,
    count: int,
    sharing: float,
    height: int,
    width: int,
) -> None:
    if count > MANY_PHOTONS:
        part = count * sharing * MEAN_SHARE / 4
        for side in range(4):
            _move(charge, p, i, j, side, part, height, width)
        return
    for _ in range(count):
        u = draw_uniform(state)
        if u < sharing:
            side = int(4 * u / sharing)
            _move(charge, p, i, j, side, 0.5 * draw_uniform(state), height, width)


@compiled
def _move(
    charge: Float32Array, p: int, i: int, j: int, side: int, part: float, height: int, width: int
) -> None:
    charge[p, i, j] -= part
    ii = i + (side == 0) - (side == 1)
    jj = j + (side == 2) - (side == 3)
    if 0 <= ii < height and 0 <= jj < width:
        charge[p, ii, jj] += part


@compiled
def _read_out(
    signal: Float32Array,
    charge: Float32Array,
    gain: Float32Array,
    noise: Float32Array,
    excess: Float32Array,
    chips: tuple[int, int],
    scalars: tuple[float, float, float, float],
    seed: Any,
) -> None:
    """Add hot-pixel excess, common mode and read noise; limit to the full well; convert to adu."""
    adu, common, full, offset = scalars
    n_panels, height, width = signal.shape
    state, chip_state = np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64)
    shifts = np.zeros((width + chips[1] - 1) // chips[1])
    for p in range(n_panels):
        for i in range(height):
            start_stream(state, seed, -1 - p * height - i)
            if common > 0.0 and i % chips[0] == 0:
                start_stream(chip_state, seed, 1_000_000_007 + p * height + i)
                for c in range(len(shifts)):
                    shifts[c] = common * draw_normal_pair(chip_state)[0]
            spare, has_spare = 0.0, False
            for j in range(width):
                value = min((charge[p, i, j] + excess[p, i, j]) * gain[p, i, j], full) + shifts[j // chips[1]]
                if noise[p, i, j] > 0.0:
                    if has_spare:
                        normal, has_spare = spare, False
                    else:
                        normal, spare = draw_normal_pair(state)
                        has_spare = True
                    value += noise[p, i, j] * normal
                signal[p, i, j] = value * adu + offset
