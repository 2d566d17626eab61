"""Parts of an unfinished stream as they are written: some seconds of work each."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.found import Found, PeakPixels
from peaknet_pipeline.infer.image_file import ImageFile
from peaknet_pipeline.infer.part_files import images_path, part_path, write_beside
from peaknet_pipeline.infer.parts import Parts
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.types import IntArray

OPEN_PART, OPEN_IMAGES = "open.parquet", "open.h5"
PART_S = 5.0
"""Seconds of a stream's work that go into one part: what a killed process loses at most."""

PART_PIXELS = 5_000_000
"""Peak pixels that a part gathers in memory before it is closed early."""


class PartSink:
    """Takes what a stream finds, in frame order, into parts of at most ``part_s`` seconds of work.

    Whatever ends the stream, the batches that came are kept.
    """

    def __init__(self, parts: Parts, *, part_s: float = PART_S) -> None:
        self._parts, self._part_s = parts, part_s
        self._open: _OpenPart | None = None

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the open part; where the disk is full, that is told once."""
        try:
            self._close()
        except StreamError:
            if kind is None:
                raise

    def write(self, found: Found, numbers: IntArray) -> None:
        """Add consecutive frames to the open part, or to a new one.

        Raises
        ------
        StreamError
            The disk is full, or refuses.

        """
        if self._open is None or not self._open.takes(found, int(numbers[0])):
            self._close()
            with _told_of_the_disk(self._parts.folder):
                self._open = _OpenPart(self._parts.folder, int(numbers[0]))
        part, self._open = self._open, None  # one that an error has cut short cannot be closed
        with _told_of_the_disk(self._parts.folder):
            part.add(found, numbers)
        self._open = part
        self.close_full()

    def close_full(self) -> None:
        """Close the open part if it is full or old; a stream that waits for frames calls this from time to time."""
        if self._open is not None and self._open.is_full(self._part_s):
            self._close()

    def _close(self) -> None:
        if self._open is None:
            return
        part, self._open = self._open, None
        with _told_of_the_disk(self._parts.folder):
            part.close()
        self._parts.written.append((part.first, part.stop))


class _OpenPart:
    """A part that is being written."""

    def __init__(self, folder: Path, first: int) -> None:
        self.first = self.stop = first
        self._folder, self._since = folder, time.monotonic()
        self._pixels: list[PeakPixels] = []
        self._numbers: list[IntArray] = []
        self._images: ImageFile | None = None
        self._table = ParquetSink(folder / OPEN_PART)
        self._table.__enter__()

    def is_full(self, part_s: float) -> bool:
        n_pixels = sum(len(pixels.index) for pixels in self._pixels)
        return time.monotonic() - self._since >= part_s or n_pixels > PART_PIXELS

    def takes(self, found: Found, first: int) -> bool:
        """Tell whether frames from ``first`` follow on those that it has, with images of the same type."""
        images = found.images is None or self._images is None or self._images.takes(found.images)
        return first == self.stop and images

    def add(self, found: Found, numbers: IntArray) -> None:
        try:
            self._table.write(found, numbers)
            if found.images is not None:
                self._images = self._images or ImageFile(self._folder / OPEN_IMAGES)
                self._images.add(found.images)
        except BaseException as error:
            self._give_up(error)
            raise
        if found.pixels is not None:
            self._pixels.append(found.pixels)
        if found.numbers is not None:
            self._numbers.append(found.numbers)
        self.stop = int(numbers[-1]) + 1

    def close(self) -> None:
        """Give the part its name, after what lies beside it."""
        span = (self.first, self.stop)
        try:
            if self._images is not None:
                self._images.close()
                self._images.path.replace(images_path(self._folder, span))
            pixels = PeakPixels.join(self._pixels) if self._pixels else None
            numbers = np.concatenate(self._numbers) if self._numbers else None
            write_beside(self._folder, span, pixels, numbers)
        except BaseException as error:
            self._give_up(error)
            raise
        self._table.__exit__(None, None, None)
        self._table.path.replace(part_path(self._folder, span))

    def _give_up(self, error: BaseException) -> None:
        with suppress(OSError):
            self._table.__exit__(type(error), error, error.__traceback__)
        if self._images is not None:
            self._images.give_up(error)


@contextmanager
def _told_of_the_disk(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that says what is kept and how it goes on."""
    try:
        yield
    except OSError as error:
        raise StreamError(
            "what was found cannot be written",
            where=folder,
            found=os.strerror(error.errno) if error.errno else error,
            remedy="What was written before is kept. Make room, and the same command goes on from there.",
        ) from error
