"""Runs with known frames and finders with known answers, light to import."""

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np

from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import Float64Array, FrameArray


def gaussian_frames(
    spots: Float64Array, shape: tuple[int, int, int, int], *, background: float = 10.0, sigma: float = 0.9
) -> Float64Array:
    """Draw noiseless frames; ``spots`` rows are frame, panel, ss, fs, height."""
    frames = np.full(shape, background)
    ss, fs = np.mgrid[: shape[2], : shape[3]]
    for frame, panel, centre_ss, centre_fs, height in spots:
        r2 = (ss - centre_ss) ** 2 + (fs - centre_fs) ** 2
        frames[int(frame), int(panel)] += height * np.exp(-r2 / (2 * sigma**2))
    return frames


@dataclass
class ArrayRun(AbstractContextManager["ArrayRun"]):
    """Frames in memory behind the reader's protocol."""

    frames: FrameArray
    opened: list[str] = field(default_factory=list)

    @property
    def n_frames(self) -> int:
        return len(self.frames)

    def read(self, start: int, stop: int) -> FrameArray:
        return self.frames[start:stop]

    def __enter__(self) -> Self:
        self.opened.append(threading.current_thread().name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


def one_peak_per_frame(frames: FrameArray, first_frame: int) -> PeakTable:
    """A finder whose peak's intensity is the frame's first pixel: lost, doubled or swapped frames show."""
    n = len(frames)
    columns: dict[str, object] = {c.name: np.ones(n) for c in PEAKS.columns if not c.nullable}
    columns["frame"] = np.arange(first_frame, first_frame + n)
    columns["intensity"] = frames[:, 0, 0, 0].astype(np.float64)
    return make_table(PEAKS, columns)
