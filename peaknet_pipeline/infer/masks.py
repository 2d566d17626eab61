"""Segmentation masks on disk: HDF5, a compressed chunk per frame, complete or absent."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.hdf5.compression import frame_compression
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.types import IntArray

MASKS, FRAMES = "/peak_mask", "/frame"


class MaskFile:
    """Takes the masks of a stream's frames in order.

    ``/peak_mask`` is (n, n_panels, ss, fs) uint8, 1 on a pixel that the network counts to a peak; ``/frame`` (n,) the
    frames' numbers. The file takes its name only at a good end.

    Parameters
    ----------
    path : Path
    shape : (n_panels, ss, fs)
    min_peaks : int, optional
        Keep only frames with so many peaks; all by default.
    extra : mapping, optional
        Provenance, kept as attributes of the file.

    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        *,
        min_peaks: int = 0,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self._shape, self._min_peaks = path, shape, min_peaks
        self._extra = dict(extra or {})

    def __enter__(self) -> Self:
        """Open a temporary file beside the final one."""
        with ExitStack() as stack:
            self._file = stack.enter_context(new_hdf5(self.path))
            self._create(self._file)
            self._open = stack.pop_all()
        return self

    def _create(self, file: Any) -> None:
        file.attrs.update(self._extra)
        self._masks = file.create_dataset(
            MASKS,
            (0, *self._shape),
            np.uint8,
            maxshape=(None, *self._shape),
            chunks=(1, *self._shape),
            **frame_compression(),
        )
        self._masks.attrs["meaning"] = "1: the pixel belongs to a peak; (frame, panel, ss, fs)"
        self._numbers = file.create_dataset(FRAMES, (0,), np.int64, maxshape=(None,), chunks=(1024,))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the file its name, or remove it if there is an exception."""
        self._open.__exit__(kind, value, traceback)

    def write(self, found: Found, numbers: IntArray) -> None:
        """Write the masks of the frames of these ``numbers`` (n,).

        Raises
        ------
        StreamError
            The finder gave no masks, or masks of another shape.

        """
        pixels = found.pixels
        if pixels is None or pixels.shape != self._shape:
            raise StreamError(
                "no masks for their file",
                where=self.path,
                expected=self._shape,
                found=None if pixels is None else pixels.shape,
                remedy="Masks come from the network, of the detector that the file was opened for.",
            )
        wanted = numbers
        if self._min_peaks:
            wanted = numbers[np.isin(numbers, hit_frames(found.peaks, min_peaks=self._min_peaks))]
        done = self._masks.shape[0]
        self._masks.resize(done + len(wanted), axis=0)
        self._numbers.resize(done + len(wanted), axis=0)
        self._numbers[done:] = wanted
        for place, row in enumerate(np.flatnonzero(np.isin(numbers, wanted)), start=done):
            self._masks[place] = pixels.mask(int(row))
        self._file.check_written()
