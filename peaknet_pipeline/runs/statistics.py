"""Mean, standard deviation and maximum of every pixel over a run, frame by frame."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, is_usable
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.sample import sample_frames
from peaknet_pipeline.types import Float32Array, Float64Array, RunStatistics

BATCH_BYTES = 64 * 2**20

Progress = Callable[[int, int], None]
"""Called with frames done and frames in all."""


class StatisticsAccumulator:
    """Running statistics of frames given one batch after another.

    Welford's update in float64, so that a small spread on a large mean survives; NaN, infinite and other values
    that are not ``usable`` are left out pixel by pixel.
    """

    def __init__(self, stack_shape: tuple[int, int, int], *, usable: UsableValues = ALL_VALUES) -> None:
        self._shape, self._usable = stack_shape, usable
        size = int(np.prod(stack_shape))
        self._count = np.zeros(size, dtype=np.int32)
        self._mean = np.zeros(size, dtype=np.float64)
        self._squares = np.zeros(size, dtype=np.float64)
        self._maximum = np.full(size, -np.inf, dtype=np.float32)
        self.n_frames = 0

    def add(self, frames: npt.NDArray[Any]) -> None:
        """Add frames, (n, n_panels, ss, fs), real."""
        flat = np.ascontiguousarray(frames).reshape(frames.shape[0], -1)
        if flat.dtype == np.float16:
            flat = flat.astype(np.float32)
        usable = self._usable.of(flat.dtype.name)
        _update(flat, usable, self._count, self._mean, self._squares, self._maximum)
        self.n_frames += frames.shape[0]

    def result(self) -> RunStatistics:
        """Return the statistics so far; NaN where a pixel never had a value."""
        seen = self._count > 0
        mean = np.where(seen, self._mean, np.nan)
        std = np.sqrt(np.divide(self._squares, self._count, out=np.full_like(mean, np.nan), where=seen))
        maximum = np.where(seen, self._maximum, np.nan)
        return RunStatistics(
            mean=self._stack(mean), std=self._stack(std), maximum=self._stack(maximum), n_frames=self.n_frames
        )

    def _stack(self, values: npt.NDArray[np.floating[Any]]) -> Float32Array:
        return values.astype(np.float32).reshape(self._shape)


def compute_statistics(
    run: Run, *, progress: Progress | None = None, max_frames: int | None = None
) -> RunStatistics:
    """Return mean, population standard deviation and maximum of each pixel over a run's frames.

    Parameters
    ----------
    run : Run
        Open run; values that are not usable (flag_lessthan, …) are left out.
    progress : callable, optional
        Called with frames done and frames in all.
    max_frames : int, optional
        Use that many frames, evenly spaced over the run, instead of all.

    """
    frames = sample_frames(run.n_frames, max_frames)
    accumulator = StatisticsAccumulator(run.stack_shape, usable=run.usable)
    done = 0
    for start, stop in frame_ranges(frames, frames_per_batch(run)):
        batch = run.read(start, stop)
        accumulator.add(batch)
        done += stop - start
        if progress is not None:
            progress(done, len(frames))
    return accumulator.result()


def frame_ranges(frames: npt.NDArray[np.int64], size: int) -> list[tuple[int, int]]:
    """Group ascending frame numbers into ranges of consecutive frames, at most ``size`` long."""
    ranges: list[tuple[int, int]] = []
    for frame in frames.tolist():
        if ranges and ranges[-1][1] == frame and frame - ranges[-1][0] < size:
            ranges[-1] = (ranges[-1][0], frame + 1)
        else:
            ranges.append((frame, frame + 1))
    return ranges


def frames_per_batch(run: Run) -> int:
    """Return how many frames fit into one batch of bounded size."""
    return max(1, BATCH_BYTES // (int(np.prod(run.stack_shape)) * run.dtype.itemsize))


@numba.njit(parallel=True, cache=True, nogil=True)
def _update(
    frames: npt.NDArray[Any],
    usable: UsableValues,
    count: npt.NDArray[np.int32],
    mean: Float64Array,
    squares: Float64Array,
    maximum: Float32Array,
) -> None:
    block = 4096
    for b in numba.prange((frames.shape[1] + block - 1) // block):
        for n in range(frames.shape[0]):
            for i in range(b * block, min((b + 1) * block, frames.shape[1])):
                value = np.float64(frames[n, i])
                if not is_usable(np.float32(value), usable):
                    continue
                count[i] += 1
                delta = value - mean[i]
                mean[i] += delta / count[i]
                squares[i] += delta * (value - mean[i])
                maximum[i] = max(maximum[i], np.float32(value))
