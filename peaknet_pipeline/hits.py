"""What counts as a hit: one declaration for finders, indexing, rates, reports and what is written."""

from dataclasses import dataclass

from peaknet_pipeline.params import Parameters, parameter


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
