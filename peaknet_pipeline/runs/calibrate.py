"""Raw frames of gain-switching detectors (JUNGFRAU, ePix10k) to keV or photons.

Each raw value carries the gain stage in its upper bits. keV = (ADC − its pedestal) / its gain;
then the common mode goes, the shift that all pixels of a chip (or of a row or column in it) share in a frame.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, IntArray


@dataclass(frozen=True)
class RawEncoding:
    """What a raw 16-bit value holds: the ADC's bits, and the stage of each gain code (−1: not valid)."""

    adc_bits: int
    stage_of_code: tuple[int, ...]

    @property
    def n_stages(self) -> int:
        """Number of gain stages."""
        return max(self.stage_of_code) + 1


ENCODINGS = {
    "jungfrau": RawEncoding(14, (0, 1, -1, 2)),
    "epix10k": RawEncoding(14, (0, 1, -1, -1)),
}
"""JUNGFRAU: codes 00, 01, 11 are stages G0, G1, G2. ePix10k: bit 14 is set in low gain."""


@dataclass(frozen=True)
class CalibrationParams(Parameters):
    """How raw frames become keV or photons."""

    detector: str = parameter("jungfrau", meaning="raw encoding", choices=tuple(ENCODINGS))
    common_mode: str = parameter(
        "chip", meaning="pixels that share a shift", choices=("none", "chip", "row", "column")
    )
    chip_ss: int = parameter(256, meaning="slow-scan size of a chip", unit="px", ge=1)
    chip_fs: int = parameter(256, meaning="fast-scan size of a chip", unit="px", ge=1)
    common_mode_max_kev: float = parameter(
        3.0, meaning="pixels below this show the common mode", unit="keV", gt=0
    )
    common_mode_min_pixels: int = parameter(
        32, meaning="with fewer such pixels none is taken off", unit="px", ge=1
    )
    photons: bool = parameter(False, meaning="divide by the photon energy: photons instead of keV")


@dataclass(frozen=True)
class Calibration:
    """Constants of a detector.

    Attributes
    ----------
    pedestal : (n_stages, n_panels, ss, fs) float32, ADC units
    gain : (n_stages, n_panels, ss, fs) float32, ADC units per keV; negative where the signal lowers the value
    bad_pixels : (n_panels, ss, fs) bool
        Pixels without usable constants.

    """

    pedestal: Float32Array
    gain: Float32Array
    bad_pixels: BoolArray

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises
        ------
        RunError
            Shapes disagree.

        """
        shapes = (self.pedestal.shape, self.gain.shape, (len(self.pedestal), *self.bad_pixels.shape))
        if len(set(shapes)) > 1:
            raise RunError("calibration constants differ in shape", found=shapes)


def make_calibration(pedestal: npt.NDArray[Any], gain: npt.NDArray[Any]) -> Calibration:
    """Return constants as float32, with the pixels marked bad whose constants of any stage cannot be used."""
    pedestal, gain = (np.ascontiguousarray(a, dtype=np.float32) for a in (pedestal, gain))
    bad: BoolArray = np.any(~np.isfinite(pedestal) | ~np.isfinite(gain) | (gain == 0), axis=0)
    return Calibration(pedestal, gain, bad)


def pedestal_from_darks(
    darks: list[tuple[Float32Array, Float32Array]], *, n_sigma: float = 8.0
) -> tuple[Float32Array, BoolArray]:
    """Return pedestals and noisy pixels from dark runs, one per gain stage.

    Parameters
    ----------
    darks : list of (mean, std)
        Each (n_panels, ss, fs), of the ADC values of a dark run in that stage.
    n_sigma : float
        A pixel is bad when its noise lies that many robust deviations off the stage's median, or is zero.

    Returns
    -------
    pedestal : (n_stages, n_panels, ss, fs) float32
    bad_pixels : (n_panels, ss, fs) bool

    """
    bad: BoolArray = np.zeros(darks[0][0].shape, dtype=np.bool_)
    for mean, std in darks:
        middle = np.nanmedian(std)
        spread = 1.4826 * np.nanmedian(np.abs(std - middle))
        bad |= ~np.isfinite(mean) | (std <= 0) | (np.abs(std - middle) > n_sigma * max(spread, 1e-6))
    return np.stack([mean for mean, _ in darks]).astype(np.float32), bad


def split_raw(
    frames: npt.NDArray[np.uint16], detector: str
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int8]]:
    """Return ADC value and gain stage (−1: not valid) of raw frames, both of the frames' shape."""
    encoding = ENCODINGS[detector]
    table = np.array(encoding.stage_of_code, dtype=np.int8)
    return frames & np.uint16((1 << encoding.adc_bits) - 1), table[frames >> encoding.adc_bits]


def calibrate_frames(
    frames: npt.NDArray[np.uint16],
    calibration: Calibration,
    params: CalibrationParams,
    *,
    photon_energy_ev: Float64Array | float | None = None,
) -> Float32Array:
    """Turn raw frames into keV, or photons.

    Parameters
    ----------
    frames : (n, n_panels, ss, fs) uint16
        Raw values.
    calibration : Calibration
    params : CalibrationParams
    photon_energy_ev : float or (n,), optional
        Needed for photons.

    Returns
    -------
    (n, n_panels, ss, fs) float32; NaN where the gain code is not valid or the pixel bad.

    Raises
    ------
    RunError
        The frames are not raw, have another shape than the constants, or the photon energy is missing.

    """
    encoding = ENCODINGS[params.detector]
    if frames.dtype != np.uint16:
        raise RunError("not raw frames", expected="uint16", found=frames.dtype)
    if (encoding.n_stages, *frames.shape[1:]) != calibration.pedestal.shape:
        found = calibration.pedestal.shape
        raise RunError(
            "calibration of another detector", expected=(encoding.n_stages, *frames.shape[1:]), found=found
        )
    kev = np.empty(frames.shape, dtype=np.float32)
    table = np.array(encoding.stage_of_code, dtype=np.int64)
    size = calibration.bad_pixels.size
    _to_kev(
        np.ascontiguousarray(frames).reshape(-1, size),
        calibration.pedestal.reshape(-1, size),
        calibration.gain.reshape(-1, size),
        calibration.bad_pixels.ravel(),
        table,
        encoding.adc_bits,
        kev.reshape(-1, size),
    )
    if params.common_mode != "none":
        subtract_common_mode(kev, split_raw(frames, params.detector)[1] == 0, params)
    return _to_photons(kev, photon_energy_ev) if params.photons else kev


def subtract_common_mode(kev: Float32Array, first_stage: BoolArray, params: CalibrationParams) -> None:
    """Take the common mode off, in place; only pixels in the first gain stage show it and lose it.

    ``kev`` and ``first_stage`` are (n, n_panels, ss, fs). The common mode of a block is the median of its
    values within ±``common_mode_max_kev``.
    """
    chip = params.chip_ss, params.chip_fs
    block = {"chip": chip, "row": (1, chip[1]), "column": (chip[0], 1)}[params.common_mode]
    n_min = min(params.common_mode_min_pixels, block[0] * block[1] // 2)
    _common_mode(kev, first_stage, block[0], block[1], params.common_mode_max_kev, max(n_min, 1))


def _to_photons(kev: Float32Array, photon_energy_ev: Float64Array | float | None) -> Float32Array:
    if photon_energy_ev is None or not np.all(np.isfinite(photon_energy_ev)):
        raise RunError("photons need the photon energy", remedy="Name it in the geometry (photon_energy).")
    scale = 1e3 / np.broadcast_to(np.asarray(photon_energy_ev, dtype=np.float64), (kev.shape[0],))
    photons: Float32Array = (kev * scale[:, None, None, None].astype(np.float32)).astype(np.float32)
    return photons


@numba.njit(parallel=True, cache=True, nogil=True)
def _to_kev(
    frames: npt.NDArray[np.uint16],
    pedestal: Float32Array,
    gain: Float32Array,
    bad_pixels: BoolArray,
    stage_of_code: IntArray,
    adc_bits: int,
    kev: Float32Array,
) -> None:
    mask = (1 << adc_bits) - 1
    block = 4096
    for b in numba.prange((frames.shape[1] + block - 1) // block):
        for n in range(frames.shape[0]):
            for i in range(b * block, min((b + 1) * block, frames.shape[1])):
                raw = np.int64(frames[n, i])
                stage = stage_of_code[raw >> adc_bits]
                if stage < 0 or bad_pixels[i]:
                    kev[n, i] = np.nan
                else:
                    kev[n, i] = (np.float32(raw & mask) - pedestal[stage, i]) / gain[stage, i]


@numba.njit(parallel=True, cache=True, nogil=True)
def _common_mode(
    kev: Float32Array, first_stage: BoolArray, block_ss: int, block_fs: int, limit: float, n_min: int
) -> None:
    n, n_panels, height, width = kev.shape
    rows = (height + block_ss - 1) // block_ss
    columns = (width + block_fs - 1) // block_fs
    for job in numba.prange(n * n_panels * rows * columns):
        column = job % columns
        row = (job // columns) % rows
        panel = (job // (columns * rows)) % n_panels
        frame = job // (columns * rows * n_panels)
        values = np.empty(block_ss * block_fs, dtype=np.float32)
        count = 0
        for y in range(row * block_ss, min((row + 1) * block_ss, height)):
            for x in range(column * block_fs, min((column + 1) * block_fs, width)):
                value = kev[frame, panel, y, x]
                if first_stage[frame, panel, y, x] and abs(value) < limit:
                    values[count] = value
                    count += 1
        if count < n_min:
            continue
        shift = np.median(values[:count])
        for y in range(row * block_ss, min((row + 1) * block_ss, height)):
            for x in range(column * block_fs, min((column + 1) * block_fs, width)):
                if first_stage[frame, panel, y, x]:
                    kev[frame, panel, y, x] -= shift
