"""TODO."""

from typing import Any

import numpy as np

from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.types import FrameArray


def spread_frames(n_frames: int, wanted: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return at most ``wanted`` frame numbers, evenly over the run."""
    return np.unique(np.linspace(0, n_frames - 1, min(wanted, n_frames)).astype(np.int64))


def read_frames(run: Run, frames: "np.ndarray[Any, np.dtype[np.int64]]") -> FrameArray:
    stack: FrameArray = np.concatenate([run.read(int(i), int(i) + 1) for i in frames])
    return stack
