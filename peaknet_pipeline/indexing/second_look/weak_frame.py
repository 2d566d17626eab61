"""Records of the second look: its parameters, a frame's weak spots on the flat detector, and a lattice with its evidence."""

from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.indexing.second_look.spot_likelihood import N_RINGS, Rings
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import Float32Array, Float64Array


@dataclass(frozen=True)
class SecondLookParams(Parameters):
    """How the second look searches, and what it accepts."""

    n_spots: int = parameter(128, meaning="weak spots that lead to candidates, in one frame", ge=8, le=1000)
    max_pairs: int = parameter(5000, meaning="spot and lattice point pairs that are spun in one frame", ge=10)
    n_turns: int = parameter(450, meaning="turns of each pair", ge=100, le=5000)
    n_refined: int = parameter(600, meaning="candidates that are refined and scored", ge=1)
    n_climbed: int = parameter(24, meaning="candidates that are climbed", ge=1)
    length_tolerance: float = parameter(
        0.001, meaning="difference of |q| between a spot and its lattice point", unit="Å⁻¹", gt=0.0
    )
    cell_tolerance: float = parameter(
        0.003, meaning="relative difference of |q|, on top of it: cell, distance, energy", ge=0.0, le=0.05
    )
    cell_sigma: float = parameter(
        0.001, meaning="relative spread of the cell from crystal to crystal", ge=0.0, le=0.02
    )
    beam_sigma_px: float = parameter(
        0.3, meaning="spread of the beam centre from frame to frame", unit="px", ge=0.0, le=10.0
    )
    max_lattices: int = parameter(
        3, meaning="lattices of one frame at most, those of the list included", ge=1, le=10
    )
    min_misorientation_deg: float = parameter(
        1.0, meaning="a further lattice nearer than this to another is the same one", unit="deg", ge=0.0
    )


@dataclass(frozen=True)
class WeakFrame:
    """What the second look knows of a frame: weak spots on the flat detector.

    ``places`` (n, 2) cells; ``significance`` (n,); ``background`` (N_RINGS,) photons expected in a spot's footprint;
    ``wave`` 1/λ, Å⁻¹.
    """

    places: Float64Array
    significance: Float32Array
    background: Float64Array
    wave: float


@dataclass(frozen=True)
class FoundLattice:
    """A lattice and its evidence.

    ``axes`` (3, 3) Å⁻¹ conventional **a***, **b***, **c*** as columns, laboratory frame; ``score`` nats; ``shift`` (2,)
    cells by which
    the detector is displaced in x and y; ``n_predicted`` reflections on good pixels.
    """

    axes: Float64Array
    score: float
    shift: Float64Array
    n_predicted: int


def frame_background(
    places: Float64Array, background: Float32Array, rings: Rings, *, default: float = 1e-3
) -> Float64Array:
    """Return the photons expected in a spot's footprint, (N_RINGS,), from those at the weak spots (n,)."""
    radius = np.hypot(places[:, 0], places[:, 1])
    ring = np.minimum(np.searchsorted(rings.edges, radius, side="left"), N_RINGS - 1)
    overall = float(np.median(background)) if len(background) else default
    values = [
        float(np.median(background[ring == number])) if (ring == number).sum() >= 5 else overall
        for number in range(N_RINGS)
    ]
    return np.array(values, dtype=np.float64)
