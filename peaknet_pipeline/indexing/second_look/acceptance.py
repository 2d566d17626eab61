"""The bar above which a lattice of the second look is accepted, and the control that shows how often it errs.

A score of t nats at one fixed orientation is reached by noise with a probability of at most e⁻ᵗ. A search looks at N distinct
orientations, so that t = ln(N / 0.005) nats would keep false lattices at 0.5 % if each were looked at once. Candidates are
chosen and climbed, and noise is not what a formula says, so this is only the least bar: the same search is done on
copies of the run's own
frames whose weak spots are turned about the beam by random angles, and on its blanks if they are known. No copy may
reach the bar. With n
copies the false rate is then below 1 − 0.05^(1/n) with 95 % confidence: 600 copies show 0.5 %.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from peaknet_pipeline.indexing.second_look.diffraction_model import REFERENCE_INV_D
from peaknet_pipeline.indexing.second_look.flat_detector import FlatDetector
from peaknet_pipeline.indexing.second_look.spot_likelihood import REACH
from peaknet_pipeline.indexing.target import Target

WANTED_RATE = 0.005
"""Share of searches that may end in a false lattice."""

CONFIDENCE = 0.95

MARGIN = 0.5
"""By how much the bar lies above the highest control, nats."""


@dataclass(frozen=True)
class SecondLookControl:
    """What a run's control says.

    ``scores`` of the scrambled copies searched, nats, −inf where a search found no candidate; ``floor`` the bar that chance
    alone asks for.
    """

    scores: tuple[float, ...]
    floor: float

    @property
    def n_copies(self) -> int:
        """Number of scrambled copies searched."""
        return len(self.scores)

    @property
    def highest(self) -> float:
        """Highest score of a copy, nats; −inf without any."""
        return max((s for s in self.scores if np.isfinite(s)), default=-math.inf)

    @property
    def bar(self) -> float:
        """Score that a lattice must reach, nats; no copy does."""
        return max(self.floor, self.highest + MARGIN)

    @property
    def false_rate_limit(self) -> float:
        """Largest false rate that the control leaves possible at 95 % confidence; no copy reached the bar."""
        return false_rate_limit(self.n_copies)

    def record(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        names = ("n_copies", "highest", "floor", "bar", "false_rate_limit")
        return {name: getattr(self, name) for name in names} | {"scores": [round(s, 2) for s in self.scores]}


def false_rate_limit(n_copies: int) -> float:
    """Return the one-sided 95 % upper limit of a rate of which ``n_copies`` trials showed no case; 1 without trials."""
    return 1.0 - (1.0 - CONFIDENCE) ** (1.0 / n_copies) if n_copies else 1.0


def distinct_orientations(target: Target, flat: FlatDetector, wave: float) -> float:
    """Return how many orientations of the cell differ by more than a weak spot's reach at the reference resolution.

    8π² / n is the volume of rotations modulo the n that the lattice doesn't notice; a step is the turn that moves a
    reflection at ``REFERENCE_INV_D`` by ``REACH`` cells of the detector.
    """
    sine = min(0.5 * REFERENCE_INV_D / wave, 0.9)
    radius = flat.distance * math.tan(2.0 * math.asin(sine))
    step = REACH / max(radius, 1.0)
    return max(8.0 * math.pi**2 / target.n_rotations / step**3, 1.0)


def make_control(scores: list[float], *, n_orientations: float) -> SecondLookControl:
    """Return the control of scores of scrambled copies, nats, and the bar that none of them reaches."""
    return SecondLookControl(tuple(scores), math.log(n_orientations / WANTED_RATE))
