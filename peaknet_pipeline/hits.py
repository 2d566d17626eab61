"""What counts as a hit: one declaration for finders, indexing, rates, reports and what is written."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peaknet_pipeline.params import Parameters, parameter

if TYPE_CHECKING:
    from peaknet_pipeline.schemas import PeakTable
    from peaknet_pipeline.types import IntArray


@dataclass(frozen=True)
class HitParams(Parameters):
    """What counts as a hit."""

    min_peaks: int = parameter(
        15, meaning="least peaks of a hit; a network's count from a score of 0.35", ge=1
    )


HIT_SCORE = 0.35
"""Score from which a network's peak counts for a hit: with the shipped network, 85 of 100 such peaks are true.

Peaks below it are kept for the indexer, which tolerates noise and loses by every spot that is left out; a blank frame
has many of them. Peaks of classical finders have no score and always count.
"""

MIN_PEAKS = HitParams().min_peaks
"""Least peaks of a hit where nothing else is said."""


def hit_peaks(peaks: "PeakTable") -> "PeakTable":
    """Return the peaks that count for a hit: a network's from :data:`HIT_SCORE` on, all where there is no score.

    Peaks of classical finders have the score NaN; those of another program's stream have none.
    """
    import numpy as np  # the command line knows what a hit is before it needs arrays

    if "score" not in peaks:
        return peaks
    unsure = peaks["score"].to_numpy(np.float32) < np.float32(HIT_SCORE)
    return peaks[~unsure] if unsure.any() else peaks


def hit_frames(peaks: "PeakTable", *, min_peaks: int) -> "IntArray":
    """Return the numbers of the frames with at least ``min_peaks`` peaks that count (:func:`hit_peaks`), (n,), ascending."""
    import numpy as np

    frames, counts = np.unique(hit_peaks(peaks)["frame"].to_numpy(np.int64), return_counts=True)
    return np.asarray(frames[counts >= min_peaks], dtype=np.int64)
