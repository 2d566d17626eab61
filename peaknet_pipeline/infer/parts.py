"""What an unfinished stream has found, on disk in parts, so that it can be taken up again.

A part holds the results of consecutive frames, and its name tells which. It has its name only when it is complete: frames
that a part names are never computed again, those that none names are, and none is lost or doubled.
"""

import fcntl
import hashlib
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.errors import StreamError, TableError
from peaknet_pipeline.infer.batches import Stretch
from peaknet_pipeline.infer.found import Found, PeakPixels
from peaknet_pipeline.infer.sinks import ParquetSink, PeakSink
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import IntArray

LOCK_FILE = "lock"
OPEN_PART = "open.parquet"
PART_S = 5.0
"""Seconds of a local stream's work that go into one part: what a killed process loses at most."""

PART_PIXELS = 5_000_000
"""Peak pixels that a part gathers in memory before it is closed early."""


class Parts:
    """The parts of one stream over a run of ``n_frames`` frames; see :func:`open_parts`."""

    def __init__(self, folder: Path, n_frames: int) -> None:
        self.folder, self.n_frames = folder, n_frames
        self.written: list[Stretch] = _whole_parts(folder)

    @property
    def missing(self) -> list[Stretch]:
        """Stretches of frames that are in no part, ascending."""
        bounds = [0, *(bound for stretch in sorted(self.written) for bound in stretch), self.n_frames]
        gaps = zip(bounds[::2], bounds[1::2], strict=True)
        return [(first, stop) for first, stop in gaps if first < stop]

    @property
    def n_written(self) -> int:
        """Number of frames that are in parts."""
        return sum(stop - first for first, stop in self.written)

    def join(self, sinks: Sequence[PeakSink]) -> None:
        """Give everything to the sinks, in frame order, as a stream that was never interrupted does.

        Raises
        ------
        StreamError
            Frames are missing.

        """
        if self.missing:
            raise StreamError("frames are missing", where=self.folder, found=self.missing)
        with ExitStack() as stack:
            for sink in sinks:
                stack.enter_context(sink)
            for span in sorted(self.written):
                found = read_part(self.folder, span)
                for sink in sinks:
                    sink.write(found, np.arange(*span))


@contextmanager
def open_parts(folder: Path, *, recipe: str, n_frames: int) -> Iterator[Parts]:
    """Give the parts that a stream of the same ``recipe`` (run, model, parameters, program) left in ``folder``.

    What other recipes left there is thrown away. The folder is removed at the end of the block, unless there is an
    exception.

    Raises
    ------
    StreamError
        Another process is at work there.

    """
    with _lock(folder):
        mine = folder / hashlib.sha256(recipe.encode()).hexdigest()[:16]
        for path in folder.iterdir():
            if path.is_dir() and path != mine:
                shutil.rmtree(path)
        mine.mkdir(exist_ok=True)
        yield Parts(mine, n_frames)
        shutil.rmtree(folder)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep other processes out; the system opens the lock when this one ends, however it does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StreamError(
                "another process is finding these peaks",
                where=folder,
                remedy="Wait for it, end it, or write to another file.",
            ) from error
        yield


class PartSink:
    """Takes what a stream finds, in frame order, into parts of at most ``part_s`` seconds of work.

    Whatever ends the stream, the batches that came are kept.
    """

    def __init__(self, parts: Parts, *, part_s: float = PART_S) -> None:
        self._parts, self._part_s = parts, part_s
        self._table: ParquetSink | None = None
        self._pixels: list[PeakPixels] = []
        self._first, self._stop, self._since = 0, 0, 0.0

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the open part."""
        self._close()

    def write(self, found: Found, numbers: IntArray) -> None:
        """Add consecutive frames to the open part, or to a new one."""
        first, stop = int(numbers[0]), int(numbers[-1]) + 1
        if self._table is None or first != self._stop:
            self._close()
            self._first, self._since = first, time.monotonic()
            self._table = ParquetSink(self._parts.folder / OPEN_PART)
            self._table.__enter__()
        self._table.write(found, numbers)
        if found.pixels is not None:
            self._pixels.append(found.pixels)
        self._stop = stop
        n_pixels = sum(len(pixels.index) for pixels in self._pixels)
        if time.monotonic() - self._since >= self._part_s or n_pixels > PART_PIXELS:
            self._close()

    def _close(self) -> None:
        if self._table is None:
            return
        table, self._table = self._table, None
        pixels, self._pixels = self._pixels, []
        span = (self._first, self._stop)
        table.__exit__(None, None, None)
        if pixels:
            _write_pixels(self._parts.folder, span, PeakPixels.join(pixels))
        table.path.replace(part_path(self._parts.folder, span))
        self._parts.written.append(span)


def part_path(folder: Path, span: Stretch) -> Path:
    """Return the file of the peaks of some frames."""
    return folder / f"{span[0]:09d}-{span[1]:09d}.parquet"


def pixels_path(folder: Path, span: Stretch) -> Path:
    """Return the file of the peaks' pixels."""
    return part_path(folder, span).with_suffix(".npz")


def write_part(folder: Path, span: Stretch, found: Found) -> None:
    """Write a part, atomically: its pixels, if there are any, before its peaks, whose name says that it is complete."""
    if found.pixels is not None:
        _write_pixels(folder, span, found.pixels)
    with ParquetSink(part_path(folder, span)) as sink:
        sink.write(found, np.arange(*span))


def read_part(folder: Path, span: Stretch) -> Found:
    """Read a part."""
    peaks = read_table(part_path(folder, span), PEAKS)
    if not pixels_path(folder, span).is_file():
        return Found(peaks)
    with np.load(pixels_path(folder, span)) as kept:
        n_panels, height, width = (int(side) for side in kept["shape"])
        return Found(peaks, PeakPixels((n_panels, height, width), kept["starts"], kept["index"]))


def _write_pixels(folder: Path, span: Stretch, pixels: PeakPixels) -> None:
    with replace_atomically(pixels_path(folder, span)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, shape=pixels.shape, starts=pixels.starts, index=pixels.index)


def _whole_parts(folder: Path) -> list[Stretch]:
    """Return the frames of the parts that can be read, each frame once; remove what is damaged or half written."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    whole: list[Stretch] = []
    for path in sorted(folder.glob("[0-9]*-[0-9]*.parquet")):
        first, stop = (int(number) for number in path.stem.split("-"))
        if first >= (whole[-1][1] if whole else 0) and _is_whole(folder, (first, stop)):
            whole.append((first, stop))
        else:
            path.unlink()
    return whole


def _is_whole(folder: Path, span: Stretch) -> bool:
    try:
        read_part(folder, span)
    except (TableError, OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False
    return True
