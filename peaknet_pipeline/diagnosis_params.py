"""From where on something that is seen in a run counts as a cause of few hits or lattices."""

from dataclasses import dataclass

from peaknet_pipeline.hits import HitParams
from peaknet_pipeline.params import parameter


@dataclass(frozen=True)
class DiagnosisParams(HitParams):
    """From where on something counts as a cause."""

    min_hits: int = parameter(
        5, meaning="with fewer hits, indexing is not judged and a run without lattices is blank", ge=1
    )
    healthy_rate: float = parameter(
        0.5, meaning="indexed hits / hits from which on indexing is healthy", ge=0, le=1
    )
    blank_rate: float = parameter(
        0.01, meaning="hits / frames below which a run without lattices is blank", ge=0, le=1
    )
    lower_threshold: float = parameter(
        3.0, meaning="the sample's peaks are sought again with the threshold divided by this", gt=1
    )
    repeat_share: float = parameter(0.1, meaning="share of repeating peaks that is a cause", ge=0, le=1)
    saturated_share: float = parameter(
        0.05, meaning="share of peaks as bright as the brightest that is a cause", ge=0, le=1
    )
    ring_share: float = parameter(0.15, meaning="share of peaks on rings that is a cause", ge=0, le=1)
    sample_frames: int = parameter(24, meaning="frames that are looked at again", ge=4)
    max_shift_px: float = parameter(12.0, meaning="beam shifts that are tried", unit="px", gt=0)
    told_shift_px: float = parameter(
        1.0, meaning="beam shift that is told of a run that indexes", unit="px", gt=0
    )
