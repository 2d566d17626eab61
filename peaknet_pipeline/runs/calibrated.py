"""Calibration files, and runs that are calibrated while they are read."""

import dataclasses
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.runs.calibrate import Calibration, CalibrationParams, calibrate_frames, make_calibration
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.shot_values import filled_with_median
from peaknet_pipeline.runs.sources import FrameSource
from peaknet_pipeline.types import Float64Array, FrameArray


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write constants as HDF5 (``/pedestal``, ``/gain``, ``/bad_pixels``), atomically."""
    with new_hdf5(Path(path)) as file:
        file["pedestal"] = calibration.pedestal
        file["pedestal"].attrs["unit"] = "ADC; (gain stage, panel, ss, fs)"
        file["gain"] = calibration.gain
        file["gain"].attrs["unit"] = "ADC per keV; (gain stage, panel, ss, fs)"
        file["bad_pixels"] = calibration.bad_pixels.astype(np.uint8)


def read_calibration(path: Path) -> Calibration:
    """Read constants.

    Raises
    ------
    RunError
        The file is no calibration file, is damaged, or its shapes disagree.

    """
    with LinkedFiles(Path(path)) as files:
        try:
            pedestal, gain = (read_whole(files.dataset(name)) for name in ("/pedestal", "/gain"))
            calibration = make_calibration(pedestal, gain)
            told = files.find("/bad_pixels")
            known = calibration.bad_pixels if told is None else read_whole(files.dataset("/bad_pixels")) != 0
        except (RunError, *DAMAGE) as error:
            raise RunError(
                f"no calibration file ({error})", where=path, expected="/pedestal and /gain"
            ) from error
    if known.shape != calibration.bad_pixels.shape:
        raise RunError("calibration constants differ in shape", where=path, found=known.shape)
    return dataclasses.replace(calibration, bad_pixels=calibration.bad_pixels | known)


class CalibratedRun(Run):
    """A run of raw frames that reads as keV or photons, float32.

    The raw run stays open as long as this one and is closed with it.
    """

    def __init__(self, raw: Run, calibration: Calibration, params: CalibrationParams | None = None) -> None:
        """Check that the constants fit the run.

        Raises
        ------
        RunError
            They belong to another detector, or the run is not raw.

        """
        if raw.dtype != np.uint16 or raw.stack_shape != calibration.bad_pixels.shape:
            expected = f"uint16 {calibration.bad_pixels.shape}"
            found = f"{raw.dtype} {raw.stack_shape}"
            raise RunError(
                "the calibration does not fit the run", where=raw.info.path, expected=expected, found=found
            )
        super().__init__(
            raw._files,
            raw._sources,
            info=dataclasses.replace(raw.info, dtype="float32"),
            geometry=raw.geometry,
            bad_pixels=raw.bad_pixels | calibration.bad_pixels,
            mask_sources=raw.mask_sources,
            clen_m=raw.clen_m,
            doubts=raw.doubts,
            roots=raw.roots,
        )
        self._raw = raw
        self._calibration = calibration
        self._params = params or CalibrationParams()

    def read(self, start: int, stop: int, *, pool: Executor | None = None) -> FrameArray:
        """Return calibrated frames, (n, n_panels, ss, fs) float32; see ``calibrate_frames``.

        Photons of a shot without a photon energy are counted with the run's median.
        """
        frames = self._raw.read(start, stop, pool=pool).astype(np.uint16, copy=False)
        energy = filled_with_median(self.photon_energy_ev)[start:stop] if self._params.photons else None
        return calibrate_frames(frames, self._calibration, self._params, photon_energy_ev=energy)

    def read_values(self, path: str) -> Float64Array:
        """Return what a data set of the raw run's file says of each frame; see :meth:`Run.read_values`."""
        return self._raw.read_values(path)

    @property
    def placed_sources(self) -> tuple[tuple[int, FrameSource], ...]:
        """The data sets of the raw frames, each with the number in the run that its first frame has."""
        return self._raw.placed_sources

    @property
    def path_to_open(self) -> Path | tuple[Path, ...]:
        """What ``open_run`` takes to open the raw run once more."""
        return self._raw.path_to_open

    def locate(self, frame: int) -> tuple[Path, int]:
        """Return the file that a frame is read from, and its number there."""
        return self._raw.locate(frame)

    def event(self, frame: int) -> tuple[Path, str]:
        """Return the file that a frame is read from, and its event there."""
        return self._raw.event(frame)


@dataclasses.dataclass(frozen=True)
class CalibrationFile:
    """Which constants a run's raw frames are calibrated with, and how; small and picklable."""

    path: Path
    params: CalibrationParams

    def apply(self, raw: Run) -> CalibratedRun:
        """Return the run as keV or photons; RunError if the constants don't fit it."""
        return CalibratedRun(raw, *self.read())

    def read(self) -> tuple[Calibration, CalibrationParams]:
        """Return the constants and how they are used; RunError if the file is none."""
        return read_calibration(self.path), self.params
