"""An open run: what it is, its geometry and mask, and its frames by range."""

from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import h5py
import numpy as np

from peaknet_pipeline.errors import GeometryError, RunError
from peaknet_pipeline.geometry.usable import UsableValues, usable_values
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.runs.frame_values import read_frame_values
from peaknet_pipeline.runs.masks import MaskSource
from peaknet_pipeline.runs.sources import FrameSource
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry, RunInfo


class OpenFiles(Protocol):
    """What a run keeps open."""

    @property
    def path(self) -> Path:
        """The run's file or directory."""

    def close(self) -> None:
        """Close everything."""


class Run:
    """An open raw run; use it as a context manager.

    Attributes
    ----------
    info : RunInfo
    geometry : Geometry or None
        As given, with camera length and photon energy of the run filled in (their medians); None where none
        is known.
    bad_pixels : (n_panels, ss, fs) bool
        From the geometry and the run's masks. What depends on the frame is left out: :attr:`usable`.
    mask_sources : tuple of MaskSource
        Who removed how many pixels.
    clen_m : (n_frames,) float64 or None
        Camera length per frame where the geometry leaves it to the file.
    doubts : tuple of str
        What is odd about the file and was read nevertheless, in whole sentences.
    roots : tuple of Path
        Folders that links were allowed to lead into; empty where there are no links to follow.

    """

    def __init__(
        self,
        files: OpenFiles,
        sources: tuple[FrameSource, ...],
        *,
        info: RunInfo,
        geometry: Geometry | None,
        bad_pixels: BoolArray,
        mask_sources: tuple[MaskSource, ...],
        clen_m: Float64Array | None,
        doubts: tuple[str, ...] = (),
        roots: tuple[Path, ...] = (),
    ) -> None:
        self._files = files
        self._sources = sources
        self.info = info
        self.geometry = geometry
        self.bad_pixels = bad_pixels
        self.mask_sources = mask_sources
        self.clen_m = clen_m
        self.doubts = doubts
        self.roots = roots

    def __repr__(self) -> str:
        """Return what the run is in one line: frames, shape, photon energy, bad pixels."""
        panels, ss, fs = self.stack_shape
        energy = np.nanmedian(self.photon_energy_ev) if np.isfinite(self.photon_energy_ev).any() else np.nan
        told = f"{energy:.1f} eV" if np.isfinite(energy) else "photon energy unknown"
        return (
            f"<Run {self.info.path.name}: {self.n_frames} frames of {panels} × {ss} × {fs} pixels ({self.info.dtype}), "
            f"{told}, {self.bad_pixels.mean():.2%} bad pixels>"
        )

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.info.n_frames

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """Shape (n_panels, ss, fs) of a frame."""
        return self.info.stack_shape

    @property
    def photon_energy_ev(self) -> Float64Array:
        """Photon energy per frame, (n_frames,), eV; NaN where it is not known."""
        return self.info.photon_energy_ev

    @property
    def without_resolution(self) -> BoolArray:
        """Frames, (n_frames,), without a photon energy or a camera length: they keep their peaks and aren't indexed."""
        without = ~np.isfinite(self.photon_energy_ev)
        return without if self.clen_m is None else without | ~np.isfinite(self.clen_m)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Data type of the frames, as stored."""
        return np.dtype(self.info.dtype)

    @property
    def usable(self) -> UsableValues:
        """Which values of the frames are measurements, by the geometry's flags and the data type."""
        return usable_values(self.geometry).of(self.dtype.name)

    @property
    def sources(self) -> tuple[FrameSource, ...]:
        """The data sets behind the frames."""
        return self._sources

    @property
    def placed_sources(self) -> tuple[tuple[int, FrameSource], ...]:
        """The HDF5 data sets behind the frames, each with the number in the run that its first frame has; none of others."""
        if any(
            not isinstance(dataset, h5py.Dataset) for source in self._sources for dataset in source.datasets
        ):
            return ()
        return tuple((0, source) for source in self._sources)

    def read_values(self, path: str) -> Float64Array:
        """Return what a data set of the run's file says of each frame, (n_frames, k): one number, or several.

        Raises
        ------
        RunError
            The run is no HDF5 file, or there is no such data set with numbers for each frame.

        """
        if not isinstance(self._files, LinkedFiles):
            raise RunError(
                "no data set per frame",
                where=self.info.path,
                expected="an HDF5 run",
                found=self.info.file_format,
                remedy="Group the frames of such a run by their numbers.",
            )
        return read_frame_values(self._files, path, self._sources[0].order)

    def read(self, start: int, stop: int, *, pool: Executor | None = None) -> FrameArray:
        """Return the frames ``start`` to ``stop``, (n, n_panels, ss, fs), in the stored dtype.

        With a ``pool`` of threads, chunks are read and decoded side by side; the result is the same. A run
        may be read by several threads at once, with or without a pool.

        Raises
        ------
        RunError
            The range is not within the run, or the file is damaged there.

        """
        self.check_range(start, stop)
        if start == stop:
            return np.empty((0, *self.stack_shape), dtype=self.dtype)
        try:
            parts = [source.read(start, stop, pool) for source in self._sources]
        except (RunError, *DAMAGE) as error:
            raise RunError(
                f"frames {start} to {stop - 1} cannot be read ({error})",
                where=self._files.path,
                remedy="The file is damaged there: copy it again.",
            ) from error
        for part in parts[1:]:  # each source fills its own panels and leaves the others zero
            parts[0] += part  # type: ignore[misc]
        return parts[0]

    def check_range(self, start: int, stop: int) -> None:
        """Raise RunError unless the frames ``start`` to ``stop`` are within the run."""
        if not 0 <= start <= stop <= self.n_frames:
            found = f"{start} … {stop}"
            raise RunError(
                "no such frames", where=self._files.path, expected=f"0 … {self.n_frames}", found=found
            )

    @property
    def path_to_open(self) -> Path | tuple[Path, ...]:
        """What ``open_run`` takes to open the run once more: its file, its folder or list, or its files in order."""
        return self.info.path

    def locate(self, frame: int) -> tuple[Path, int]:
        """Return the file that a frame is read from, and its number there."""
        return self.info.path, frame

    def event(self, frame: int) -> tuple[Path, str]:
        """Return the file that a frame is read from, and what CrystFEL calls it there: ``//12``, or ``tag-7//``."""
        source = self._sources[0]
        index = bisect_right(source.starts, frame) - 1
        names = source.order.events[index]
        if not names:
            return self.info.path, f"//{frame}"
        number = "" if source.slab_map.frame_axis is None else frame - source.starts[index]
        return self.info.path, f"{'/'.join(names)}//{number}"

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, FrameArray]]:
        """Yield first frame number and frames of one batch after another."""
        last = self.n_frames if stop is None else stop
        for first in range(start, last, size):
            yield first, self.read(first, min(first + size, last))

    def close(self) -> None:
        """Close the run's files."""
        self._files.close()

    def __enter__(self) -> Self:
        """Return the run itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the run's files."""
        self.close()


def geometry_of(run: Run) -> Geometry:
    """Return the run's geometry, with its camera length, photon energy and gain; what finders and indexers use.

    Raises
    ------
    GeometryError
        The run was opened without one and carries none.

    """
    if run.geometry is None:
        raise GeometryError(
            "no geometry", where=run.info.path, remedy="Give a CrystFEL geometry with --geometry."
        )
    return run.geometry
