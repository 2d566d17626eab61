"""Live frames from an HDF5 file that another process is writing."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import RunError, StreamError
from peaknet_pipeline.geometry.resolve import typical_value
from peaknet_pipeline.geometry.slabs import mask_layers
from peaknet_pipeline.geometry.usable import flags_of
from peaknet_pipeline.hdf5.chunks import read_chunks, read_whole
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.infer.arrivals import (
    Arrival,
    FileFacts,
    Patience,
    Refuse,
    arrived_from_file,
    ignore,
    read_usable,
)
from peaknet_pipeline.infer.frame_numbers import FrameNumbers
from peaknet_pipeline.runs.formats import file_format
from peaknet_pipeline.runs.nexus_limits import with_file_limits
from peaknet_pipeline.runs.run_masks import read_run_mask
from peaknet_pipeline.runs.shot_values import camera_lengths_in_m, energies_in_ev
from peaknet_pipeline.runs.slabs import map_panels, map_plain
from peaknet_pipeline.runs.sources import check_frames
from peaknet_pipeline.types import Float64Array, FrameArray, Geometry

FIRST_VALUES = 100
"""Shots whose photon energies and camera lengths say what a growing file's are."""

RETRY_S = 0.1
"""Seconds after which frames that could not be read are tried once more."""


def follow_file(
    path: Path,
    data_path: str,
    *,
    geometry: Geometry | None = None,
    batch_frames: int = 8,
    n_frames: int | None = None,
    taken: FrameNumbers | None = None,
    refuse: Refuse = ignore,
    patience: Patience | None = None,
    more_roots: Sequence[Path] = (),
) -> Iterator[Arrival]:
    """Yield the frames of an HDF5 file that another process is writing in SWMR mode, as they appear.

    A file that is not there yet, or not in SWMR mode yet, is waited for. It ends with frame ``n_frames``, or after
    ``patience.idle_s`` seconds without a new frame. The writer extends the data set and flushes after writing the pixels.
    Frames in ``taken`` are not read; one that cannot be read is left out, and ``refuse`` told.

    Raises
    ------
    StreamError
        The file did not appear, cannot be followed any more, or has no such data set.
    RunError
        The mask that the geometry names cannot be read.

    """
    patience, taken = patience or Patience(), taken or FrameNumbers()
    opened = _open_growing(path, patience, more_roots)
    if opened is None:
        return
    with opened as files:
        growing = GrowingData(files, data_path, geometry)
        facts = _facts_of_growing(files, geometry, growing.dtype)
        most = n_frames if n_frames is not None else np.iinfo(np.int64).max
        done, news = 0, time.monotonic()
        while done < most and not patience.is_stopped:
            there = min(growing.count(done), most)
            start, stop = next(taken.gaps(done, there), (there, there))
            last = min(stop, start + batch_frames)
            if last > done:
                news = time.monotonic()
            if start < last:
                for number, frames in read_usable(growing.read, start, last, 0, path, refuse):
                    yield arrived_from_file(number, frames, facts, there - last)
                growing.count(last)
            elif last == done and not patience.wait(news):
                return
            done = last


class GrowingData:
    """A data set that another process extends: it may only grow, in the same file.

    Raises
    ------
    StreamError
        There is no such data set, its first dimension doesn't count frames, or later: the file shrank or was replaced.

    """

    def __init__(self, files: LinkedFiles, data_path: str, geometry: Geometry | None) -> None:
        path = self._path = files.path
        self._state = path.stat()
        dataset = files.find(data_path)
        if not isinstance(dataset, h5py.Dataset):
            raise StreamError("no such data set", where=path, found=data_path)
        if dataset.is_virtual:
            remedy = "Follow the file that its frames are written to."
            raise StreamError(
                "a virtual data set cannot be followed", where=path, found=data_path, remedy=remedy
            )
        check_frames(dataset, dataset.name, path, may_be_empty=True)
        self._dataset: Any = dataset
        self._slabs = map_plain(dataset.shape) if geometry is None else map_panels(dataset.shape, geometry)
        if self._slabs.frame_axis != 0:
            raise StreamError(
                "frames are not counted by the first dimension", where=path, found=dataset.shape
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the frames, as stored."""
        dtype: np.dtype[Any] = self._dataset.dtype
        return dtype

    def count(self, done: int) -> int:
        """Return the frames that are there by now, at least ``done``."""
        try:
            self._dataset.refresh()
        except (OSError, RuntimeError) as error:
            raise self._damaged(done, str(error)) from error
        self._check_file(done)
        n_frames = int(self._dataset.shape[0])
        if n_frames < done:
            raise self._damaged(done, f"it has only {n_frames} frames now")
        return n_frames

    def read(self, start: int, stop: int) -> FrameArray:
        """Return the frames ``start`` to ``stop``, (n, n_panels, ss, fs)."""
        selection = self._slabs.selection(start, stop)
        try:
            slab = read_chunks(self._dataset, selection, None)
        except (RunError, *DAMAGE):  # perhaps the writer is not done with it
            time.sleep(RETRY_S)
            self._dataset.refresh()
            slab = read_chunks(self._dataset, selection, None)
        self._check_file(start)
        return self._slabs.to_stack(slab)

    def _check_file(self, frame: int) -> None:
        # The HDF5 library reads zeros beyond the end of a file that was cut off.
        try:
            before, now = self._state, self._path.stat()
        except OSError as error:
            raise self._damaged(frame, str(error)) from error
        if now.st_size < before.st_size or now.st_ino != before.st_ino:
            raise self._damaged(frame, f"{before.st_size} bytes have become {now.st_size}")
        self._state = now

    def _damaged(self, frame: int, why: str) -> StreamError:
        return StreamError(
            f"the file cannot be followed any more ({why})",
            where=f"{self._path}, frame {frame}",
            remedy="It was cut off or replaced: follow a file that only its detector writes.",
        )


def _open_growing(path: Path, patience: Patience, more_roots: Sequence[Path]) -> Any:
    """Open a file that another process writes in SWMR mode, once it is there; None if the stream is to end before."""
    since = time.monotonic()
    while True:
        try:
            return LinkedFiles(path, growing=True, more_roots=more_roots)
        except (RunError, OSError) as error:
            why = _why_not_yet(path, error)
            if why is not None and patience.wait(since):
                continue
            if why is not None and patience.is_stopped:
                return None
            remedy = (
                "Check the path; its writer must use libver='latest' and swmr_mode. Or follow the folder."
            )
            reason = why or (error.what if isinstance(error, RunError) else error)
            raise StreamError(f"the file cannot be followed ({reason})", where=path, remedy=remedy) from error


def _why_not_yet(path: Path, error: Exception) -> str | None:
    """Return why a file cannot be opened so far; None where waiting doesn't help."""
    if not path.exists():
        return "it is not there"
    if isinstance(error.__cause__, BlockingIOError) or path.stat().st_size == 0:
        return "its writer keeps it locked"
    return None


def _facts_of_growing(files: LinkedFiles, geometry: Geometry | None, dtype: np.dtype[Any]) -> FileFacts:
    if geometry is None:
        return FileFacts()
    named = [layer.path for layer in mask_layers(geometry) if layer.file is None]
    there = all(files.find(path) is not None for path in named)
    bad = read_run_mask(files, geometry, geometry.stack_shape)[1] if there else None
    energies = energies_in_ev(_first_values(files, geometry.photon_energy_path), geometry.photon_energy_unit)
    lengths = camera_lengths_in_m(_first_values(files, geometry.clen_path), geometry)
    if file_format(files) == "nxmx":
        geometry = with_file_limits(files, geometry, dtype)
    return FileFacts(bad, typical_value(energies), flags_of(geometry), typical_value(lengths))


def _first_values(files: LinkedFiles, path: str | None) -> Float64Array:
    """Return the first numbers of a data set, (n,); those not written yet are its fill value."""
    dataset = files.find(path) if path else None
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "uif" or not dataset.size:
        return np.empty(0)
    first = tuple(slice(0, min(n, FIRST_VALUES if not k else 1)) for k, n in enumerate(dataset.shape))
    values = read_chunks(dataset, first, None) if dataset.ndim else read_whole(dataset)
    return np.ravel(values).astype(np.float64)
