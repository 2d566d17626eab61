"""Raw frames of a part of an unfinished stream, on disk: HDF5, a compressed chunk per frame."""

from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.hdf5.chunks import read_rows, read_whole
from peaknet_pipeline.hdf5.compression import frame_compression
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.infer.found import RawImages
from peaknet_pipeline.types import FrameArray

FRAMES, NUMBERS = "frames", "numbers"
BATCH_FRAMES = 16


class ImageFile:
    """Takes raw frames of one type, batch by batch; the file takes its name when it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames: Any = None
        with ExitStack() as stack:
            self._file = stack.enter_context(new_hdf5(path))
            self._numbers = self._file.create_dataset(
                NUMBERS, (0,), np.int64, maxshape=(None,), chunks=(1024,)
            )
            self._open = stack.pop_all()

    def takes(self, images: RawImages) -> bool:
        """Tell whether these frames are of the type of those before."""
        return self._frames is None or bool(self._frames.dtype == images.dtype)

    def add(self, images: RawImages) -> None:
        """Write frames."""
        for numbers, frames in images.batches(BATCH_FRAMES):
            if self._frames is None:
                self._frames = self._create(frames)
            done = len(self._numbers)
            for data, values in ((self._numbers, numbers), (self._frames, frames)):
                data.resize(done + len(values), axis=0)
                data[done:] = values
            self._file.check_written()

    def _create(self, frames: FrameArray) -> Any:
        shape = frames.shape[1:]
        return self._file.create_dataset(
            FRAMES,
            (0, *shape),
            frames.dtype,
            maxshape=(None, *shape),
            chunks=(1, *shape),
            **frame_compression(),
        )

    def close(self) -> None:
        """Give the file its name."""
        self._open.close()

    def give_up(self, error: BaseException) -> None:
        """Remove what was written."""
        with suppress(type(error)):
            self._open.__exit__(type(error), error, error.__traceback__)


def read_images(path: Path) -> RawImages | None:
    """Return what an :class:`ImageFile` wrote; None if there were no frames.

    Raises
    ------
    RunError
        The file is damaged.

    """
    with LinkedFiles(path) as files:
        if files.find(f"/{FRAMES}") is None:
            return None
        numbers = read_whole(files.dataset(f"/{NUMBERS}")).astype(np.int64)
        dtype = files.dataset(f"/{FRAMES}").dtype
    return RawImages(numbers, dtype, partial(_read_frames, path))


def _read_frames(path: Path, first: int, stop: int) -> FrameArray:
    with LinkedFiles(path) as files:
        return read_rows(files.dataset(f"/{FRAMES}"), first, stop)
