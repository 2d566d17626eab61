"""What a run's own indexed frames say before any frame is looked at again: cell, beam shift, widths, fall-off, resolution.

At 2 Å an error of 0.3 % in the cell, or in the distance, displaces reflections by two pixels, and a lattice that is
right scores like noise. The list indexer's lattices know better than the cell file: their median cell is taken, then all
of them
are climbed with the cell and the beam free, and the median is taken again. Widths and fall-off are those under which the
known lattices
score highest in sum, found one parameter after the other over a grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from peaknet_pipeline.indexing.cell import cell_from_axes
from peaknet_pipeline.indexing.second_look.diffraction_model import DiffractionModel, make_model_table
from peaknet_pipeline.indexing.second_look.flat_detector import FlatDetector
from peaknet_pipeline.indexing.second_look.frame_search import SecondLook
from peaknet_pipeline.indexing.second_look.lattice_likelihood import score_points
from peaknet_pipeline.indexing.second_look.weak_frame import SecondLookParams, WeakFrame
from peaknet_pipeline.types import Float64Array, UnitCell

LEAST_FRAMES = 3
"""Indexed frames below which the given model is kept."""

MOST_FRAMES = 24
"""Indexed frames that are used at most, spread over the run."""

GRIDS: dict[str, tuple[float, ...]] = {
    "mosaicity_rad": (0.0003, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012),
    "size_inv_angstrom": (0.0001, 0.0002, 0.0004, 0.0007, 0.001, 0.0015, 0.002),
    "b_factor": (0.0, 10.0, 20.0, 30.0, 45.0, 60.0, 80.0, 110.0, 150.0),
    "max_inv_d": (0.2, 0.25, 0.3, 0.36, 0.43, 0.5, 0.6, 0.75),
}
"""Values that are tried, one parameter after the other, twice."""


@dataclass(frozen=True)
class KnownLattice:
    """A frame whose lattice is known: its weak spots and the lattice's conventional reciprocal axes, (3, 3) Å⁻¹."""

    frame: WeakFrame
    axes: Float64Array


@dataclass(frozen=True)
class RunModel:
    """What the second look is told of a run.

    ``shift`` (2,) cells is the detector's common displacement; ``n_frames`` how many indexed frames it comes from, 0 when
    the given cell and model were kept; ``score`` their mean score, nats.
    """

    cell: UnitCell
    model: DiffractionModel
    shift: Float64Array
    n_frames: int
    score: float


def estimate_run_model(
    known: Sequence[KnownLattice],
    flat: FlatDetector,
    *,
    cell: UnitCell,
    model: DiffractionModel,
    params: SecondLookParams,
) -> RunModel:
    """Estimate cell, shift and diffraction model of a run from its known lattices; the given ones where there are too few."""
    if len(known) < LEAST_FRAMES:
        return RunModel(cell, model, np.zeros(2), 0, float("nan"))
    step = -(-len(known) // MOST_FRAMES)
    used = list(known)[::step]
    cell = median_cell([one.axes for one in used], like=cell)
    shift = np.zeros(2)
    for _ in range(2):
        model = fit_model(used, flat, cell=cell, model=model, params=params, shift=shift)
        cell, shift, score = recentre(used, flat, cell=cell, model=model, params=params, shift=shift)
    return RunModel(cell, model, shift, len(used), score)


def median_cell(axes: Sequence[Float64Array], *, like: UnitCell) -> UnitCell:
    """Return the cell with the median lengths and angles of lattices (3, 3) Å⁻¹; its kind is that of ``like``."""
    cells = [cell_from_axes(one, like=like) for one in axes]
    sides = [[c.a, c.b, c.c, c.alpha, c.beta, c.gamma] for c in cells]
    a, b, c, alpha, beta, gamma = (float(v) for v in np.median(sides, axis=0))
    return replace(like, a=a, b=b, c=c, alpha=alpha, beta=beta, gamma=gamma)


def fit_model(
    known: Sequence[KnownLattice],
    flat: FlatDetector,
    *,
    cell: UnitCell,
    model: DiffractionModel,
    params: SecondLookParams,
    shift: Float64Array,
) -> DiffractionModel:
    """Return the model under which the known lattices score highest in sum, by coordinate search over :data:`GRIDS`."""
    widest = replace(model, max_inv_d=max(GRIDS["max_inv_d"]), mosaicity_rad=max(GRIDS["mosaicity_rad"]))
    look = SecondLook(flat, cell, widest, params)
    evidence = [look.evidence(one.frame) for one in known]
    deformations = [look.deformation(one.axes) for one in known]
    # Made once, for the widest model that is tried: the points that can count in any of them.
    points = [look.near(e, d, 0.0) for e, d in zip(evidence, deformations, strict=True)]

    def total(trial: DiffractionModel) -> float:
        tables = {
            e.wave: make_model_table(trial, look.rings, wave=e.wave, distance=flat.distance) for e in evidence
        }
        parts = zip(evidence, points, deformations, strict=True)
        return sum(score_points(e, tables[e.wave], p, d, shift) for e, p, d in parts)

    best, top = model, total(model)
    for _ in range(2):
        for name, values in GRIDS.items():
            for value in values:
                trial = replace(best, **{name: value})
                score = total(trial) if trial != best else -np.inf
                if score > top:
                    best, top = trial, score
    return best


def recentre(
    known: Sequence[KnownLattice],
    flat: FlatDetector,
    *,
    cell: UnitCell,
    model: DiffractionModel,
    params: SecondLookParams,
    shift: Float64Array,
) -> tuple[UnitCell, Float64Array, float]:
    """Climb every known lattice with cell and beam free; return their median cell and shift, and their mean score."""
    wide = replace(
        params, cell_sigma=max(params.cell_sigma, 0.004), beam_sigma_px=max(params.beam_sigma_px, 2.0)
    )
    look = SecondLook(flat, cell, model, wide)
    climbed = [
        look.climb(look.evidence(one.frame), look.deformation(one.axes), free=True, shift=shift)
        for one in known
    ]
    axes = [look.axes(deformation) for _, deformation, _ in climbed]
    shifts = np.array([moved for _, _, moved in climbed])
    scores = [score for score, _, _ in climbed]
    return median_cell(axes, like=cell), np.median(shifts, axis=0), float(np.mean(scores))
