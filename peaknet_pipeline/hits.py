"""What counts as a hit: one declaration for finders, indexing, rates, reports and what is written."""

from dataclasses import dataclass

from peaknet_pipeline.params import Parameters, parameter


@dataclass(frozen=True)
class HitParams(Parameters):
    """What counts as a hit."""

    min_peaks: int = parameter(15, meaning="least peaks of a hit", ge=1)


MIN_PEAKS = HitParams().min_peaks
"""Least peaks of a hit where nothing else is said."""
