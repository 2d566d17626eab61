"""Frames spread evenly over a run: their numbers, and the frames themselves."""

import numpy as np

from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.types import FrameArray, IntArray


def sample_frames(n_frames: int, max_frames: int | None) -> IntArray:
    """Return the numbers of at most ``max_frames`` frames, evenly spaced over a run."""
    if max_frames is None or max_frames >= n_frames:
        return np.arange(n_frames)
    return np.unique(np.linspace(0, n_frames - 1, max_frames).astype(np.int64))


def read_frames(run: Run, numbers: IntArray) -> FrameArray:
    """Return these frames of a run, (n, n_panels, ss, fs), in the raw type."""
    stack: FrameArray = np.concatenate([run.read(int(i), int(i) + 1) for i in numbers])
    return stack
