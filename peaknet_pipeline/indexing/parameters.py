"""Parameters of the known-cell indexer."""

from dataclasses import dataclass

from peaknet_pipeline.devices import DeviceParams
from peaknet_pipeline.params import parameter


@dataclass(frozen=True)
class IndexParams(DeviceParams):
    """How lattices of a known cell are searched, refined and accepted."""

    max_lattices: int = parameter(3, meaning="lattices sought in one frame", ge=1, le=20)
    min_peaks: int = parameter(5, meaning="fewer peaks than this are not tried", ge=3)
    min_explained: int = parameter(5, meaning="peaks that an accepted lattice explains at least", ge=3)
    min_fraction: float = parameter(
        0.1, meaning="share of the frame's peaks that the first lattice explains at least", ge=0.0, le=1.0
    )
    min_significance: float = parameter(
        5.0, meaning="log10 of how much rarer than chance the explained peaks must be, all trials counted"
    )
    max_residual: float = parameter(
        0.0025, meaning="rms distance of explained peaks from lattice points", unit="Å⁻¹", gt=0.0
    )
    spot_tolerance: float = parameter(
        0.002,
        meaning="distance of a spot from its lattice point that refinement starts from",
        unit="Å⁻¹",
        gt=0.0,
    )
    final_tolerance: float = parameter(
        0.0015,
        meaning="distance around which the gate looks for explained spots (0.35 … 2 times this)",
        unit="Å⁻¹",
        gt=0.0,
    )
    cell_tolerance: float = parameter(
        0.01, meaning="relative error of |q| allowed while searching: cell, distance, energy", gt=0.0, le=0.1
    )
    cell_sigma: float = parameter(
        0.01, meaning="relative spread of the cell around the given one; 0 keeps it fixed", ge=0.0, le=0.1
    )
    beam_sigma: float = parameter(
        0.0,
        meaning="spread of the beam centre from frame to frame, shift / camera length; 0 keeps the geometry's",
        unit="rad",
        ge=0.0,
        le=0.02,
    )
    angular_tolerance: float = parameter(
        0.012, meaning="orientation error that the coarse search forgives", unit="rad", gt=0.0, le=0.1
    )
    n_seeds: int = parameter(12, meaning="low-angle spots that are tried as starting points", ge=1)
    max_pairs: int = parameter(1500, meaning="spot and Miller index pairs spun per frame and pass", ge=1)
    n_candidates: int = parameter(48, meaning="coarse orientations that are refined per frame", ge=1)
    n_search_spots: int = parameter(
        96, meaning="spots, from low angles up, that score the coarse search", ge=6
    )
    min_misorientation_deg: float = parameter(
        2.0, meaning="a further lattice nearer than this to an earlier one is dropped", unit="deg", ge=0.0
    )
    repeat_fraction: float = parameter(
        0.1,
        meaning="peaks at a place where this share of the frames with peaks has one are left out",
        gt=0.0,
        le=1.0,
    )
    repeat_frames: int = parameter(10, meaning="least frames for a place to count as repeating", ge=2)
    frames_at_once: int = parameter(64, meaning="frames per batch; bounds the memory", ge=1)
