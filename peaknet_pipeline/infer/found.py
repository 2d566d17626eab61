"""What a finder hands on: peaks and, on request, the pixels that belong to them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray, FrameArray, IntArray, UInt8Array


@dataclass(frozen=True)
class PeakPixels:
    """The segmentation of n frames, as a list: a mask is mostly empty.

    Attributes
    ----------
    shape : (n_panels, ss, fs)
    starts : (n + 1,) int64
        The pixels of frame i are ``index[starts[i] : starts[i + 1]]``.
    index : (k,) int64
        Flat index into the frame, ascending.

    """

    shape: tuple[int, int, int]
    starts: IntArray
    index: IntArray

    @classmethod
    def from_flat(cls, flat: IntArray, shape: tuple[int, int, int, int]) -> Self:
        """Take ascending flat indices into a batch of ``shape`` (n, n_panels, ss, fs)."""
        size = shape[1] * shape[2] * shape[3]
        starts = np.searchsorted(flat, size * np.arange(shape[0] + 1))
        return cls(shape[1:], starts.astype(np.int64), np.asarray(flat % max(size, 1), dtype=np.int64))

    @classmethod
    def from_masks(cls, masks: BoolArray) -> Self:
        """Take masks (n, n_panels, ss, fs), True on peaks."""
        return cls.from_flat(np.flatnonzero(masks), masks.shape)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Put the pixels of successive frames together; there must be some."""
        offsets = np.cumsum([0, *(len(part.index) for part in parts)])
        starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
        return cls(
            parts[0].shape,
            np.concatenate([*starts, offsets[-1:]]).astype(np.int64),
            np.concatenate([part.index for part in parts]),
        )

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.starts) - 1

    def mask(self, i: int) -> UInt8Array:
        """Return the mask of the i-th frame, (n_panels, ss, fs), 1 on peaks."""
        mask = np.zeros(self.shape, dtype=np.uint8)
        mask.reshape(-1)[self.index[self.starts[i] : self.starts[i + 1]]] = 1
        return mask


@dataclass(frozen=True)
class RawImages:
    """Raw frames that are kept with their peaks, in memory or in a file.

    Attributes
    ----------
    numbers : (k,) int64
        The frames' numbers.
    dtype : numpy dtype
    read : callable
        Gives some of them, by their first place and the one after the last, (n, n_panels, ss, fs).

    """

    numbers: IntArray
    dtype: np.dtype[Any]
    read: Callable[[int, int], FrameArray]

    @classmethod
    def in_memory(cls, frames: FrameArray, numbers: IntArray) -> Self:
        """Take frames (k, n_panels, ss, fs) and their numbers (k,)."""
        return cls(numbers, frames.dtype, lambda first, stop: frames[first:stop])

    def batches(self, size: int) -> Iterator[tuple[IntArray, FrameArray]]:
        """Yield numbers and frames, at most ``size`` at a time."""
        for first in range(0, len(self.numbers), size):
            numbers = self.numbers[first : first + size]
            yield numbers, self.read(first, first + len(numbers))


@dataclass(frozen=True)
class Found:
    """Peaks of a batch of frames, and what was asked for besides.

    Attributes
    ----------
    peaks : PeakTable
    pixels : PeakPixels, optional
        The peaks' pixels.
    numbers : (n,) int64, optional
        The frames' numbers, where they are not those of the part that keeps them.
    images : RawImages, optional
        Frames to be kept.

    """

    peaks: PeakTable
    pixels: PeakPixels | None = None
    numbers: IntArray | None = None
    images: RawImages | None = None


@dataclass(frozen=True)
class Reduction:
    """What writing only hits saves: frames and peaks, all and kept."""

    n_frames: int
    n_hits: int
    n_peaks: int
    n_kept_peaks: int

    def to_dict(self) -> dict[str, int | float]:
        """Return the counts and the share of the frames that is kept."""
        share = self.n_hits / self.n_frames if self.n_frames else 0.0
        return {
            "hits": self.n_hits,
            "kept_fraction": round(share, 4),
            "peaks_found": self.n_peaks,
            "peaks_kept": self.n_kept_peaks,
        }


def keep_hits(peaks: PeakTable, *, min_peaks: int, n_frames: int) -> tuple[PeakTable, IntArray, Reduction]:
    """Return the peaks of the frames with at least ``min_peaks``, the numbers of these frames, and what that saves."""
    hits = hit_frames(peaks, min_peaks=min_peaks)
    kept = peaks[peaks["frame"].isin(hits)].reset_index(drop=True)
    return kept, hits, Reduction(n_frames, len(hits), len(peaks), len(kept))
