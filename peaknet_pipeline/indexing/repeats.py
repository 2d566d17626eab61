"""Peaks that come back at the same place in many frames: hot pixels, mask edges, streaks; not Bragg peaks."""

import numpy as np

from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray


def find_repeats(peaks: PeakTable, *, min_frames: int, min_fraction: float) -> BoolArray:
    """Return which rows, (n_peaks,), repeat: the same panel and place to a pixel, in many of the frames with peaks.

    A place repeats when at least ``min_frames`` frames, and at least ``min_fraction`` of those that have any peak, have one
    in its 3×3 pixels. Orientations of a serial run are random, so that a Bragg peak doesn't.
    """
    frame = peaks["frame"].to_numpy(dtype=np.int64)
    if not frame.size:
        return np.zeros(0, dtype=np.bool_)
    panel, y, x = (
        np.rint(peaks[n].to_numpy(dtype=np.float64)).astype(np.int64) for n in ("panel", "ss", "fs")
    )
    width = int(x.max()) + 3
    height = int(y.max()) + 3
    place = (panel * height + y + 1) * width + x + 1
    needed = max(min_frames, int(np.ceil(min_fraction * np.unique(frame).size)))
    steps = (np.array([-1, 0, 1])[:, None] * width + np.array([-1, 0, 1])).ravel()
    spread = np.unique(np.stack([np.repeat(frame, 9), (place[:, None] + steps).ravel()], axis=1), axis=0)
    places, counts = np.unique(spread[:, 1], return_counts=True)
    repeats: BoolArray = counts[np.searchsorted(places, place)] >= needed
    return repeats
