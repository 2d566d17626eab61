"""The likelihood of a lattice: the evidence at every place where it puts a reflection, summed.

A lattice is a deformation F (3, 3), a rotation times a small strain, of the known cell's reciprocal points, crystal frame to
laboratory. A point q = F·p is on the Ewald sphere where f = |q|² + 2k·q_z is 0 (k = 1/λ, beam along +z), and its excitation
error is f / 2k. Along a row q = b + t·s of points, f is a parabola in t, so that the few points of each row within reach
of the sphere are
found without looking at the others.

The crystal's brightness is not known, nor how far it diffracts. Brightness is tried in factors of two, resolution in a
few limits, each
pair with its own sum; the lattice's score is the logarithm of the mean of their exponentials, which keeps the property that
under noise exp(score) has the mean 1.
"""

from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.indexing.second_look import lattice_kernels as kernels
from peaknet_pipeline.indexing.second_look.diffraction_model import N_SHELLS, LatticeRows, ModelTable
from peaknet_pipeline.indexing.second_look.lattice_kernels import N_AMPLITUDES, LookUp
from peaknet_pipeline.types import Float32Array, Float64Array, UInt8Array


@dataclass(frozen=True)
class FrameEvidence:
    """What one frame shows, ready for look-ups.

    ``seen`` (y, x) and ``tables`` (rings, bins, means) as in ``spot_likelihood``; ``faintest`` log2 of the least
    amplitude tried;
    ``wave`` 1/λ, Å⁻¹; ``distance`` and ``half`` of the flat detector, cells.
    """

    seen: UInt8Array
    tables: Float32Array
    faintest: int
    wave: float
    distance: float
    half: int


def score_points(
    evidence: FrameEvidence,
    model: ModelTable,
    points: Float64Array,
    deformation: Float64Array,
    shift: Float64Array | None = None,
) -> float:
    """Return the score of a lattice of which only ``points`` (n, 3) Å⁻¹, crystal frame, are near the sphere."""
    totals = np.zeros((N_SHELLS, N_AMPLITUDES))
    kernels.add_up(_look_up(evidence, model), points, deformation, _no_shift(shift), totals)
    return float(kernels.mean_of_exponentials(totals))


def near_points(
    rows: LatticeRows, deformation: Float64Array, wave: float, reach: float, turn: float
) -> Float64Array:
    """Return the points (n, 3), crystal frame, within ``reach`` (Å⁻¹) + ``turn`` (rad) · g of the Ewald sphere."""
    points: Float64Array = kernels.near(
        rows.base, rows.step, rows.first, rows.last, rows.max_inv_d, deformation, wave, reach, turn
    )
    return points


def predicted_places(
    evidence: FrameEvidence,
    model: ModelTable,
    points: Float64Array,
    deformation: Float64Array,
    shift: Float64Array | None = None,
) -> tuple[Float64Array, Float64Array]:
    """Return where reflections fall, (n, 2) cells, and the evidence of each, (n,) nats at the likeliest amplitude.

    Only reflections within ``WIDTHS`` of the sphere that fall on good pixels.
    """
    totals = np.zeros((N_SHELLS, N_AMPLITUDES))
    look = _look_up(evidence, model)
    kernels.add_up(look, points, deformation, _no_shift(shift), totals)
    amplitude = int(np.argmax(totals.sum(axis=0)))
    out = np.empty((len(points), 3))
    n = kernels.list_places(look, points, deformation, _no_shift(shift), amplitude, out)
    return out[:n, :2].copy(), out[:n, 2].copy()


def climb(
    evidence: FrameEvidence,
    model: ModelTable,
    points: Float64Array,
    deformation: Float64Array,
    *,
    generators: Float64Array,
    sigmas: Float64Array,
    steps: Float64Array,
    least: float = 0.1,
    shift: Float64Array | None = None,
) -> tuple[float, Float64Array, Float64Array]:
    """Climb to the nearest maximum of score plus prior by steps in turns, strains and shift.

    Parameters
    ----------
    points : (n, 3)
        That can come near the sphere on the way.
    generators : (g, 3, 3)
        Strains that keep the lattice's symmetry.
    sigmas : (g + 2,)
        Normal priors of strains and of the shift in x and y (cells); 0 keeps one fixed.
    steps : (3 + g + 2,)
        First steps of turns (rad), strains and shift; they are halved down to ``least`` times these.

    Returns
    -------
    score : float, nats, without the prior
    deformation : (3, 3)
    shift : (2,) cells

    """
    start = _no_shift(shift).copy()
    result = np.empty(12)
    kernels.climb(
        _look_up(evidence, model), points, np.ascontiguousarray(deformation), generators, sigmas, steps, least,
        start, result,
    )  # fmt: skip
    return float(result[0]), result[1:10].reshape(3, 3).copy(), result[10:].copy()


def _no_shift(shift: Float64Array | None) -> Float64Array:
    return np.zeros(2) if shift is None else np.asarray(shift, dtype=np.float64)


def _look_up(evidence: FrameEvidence, model: ModelTable) -> LookUp:
    return LookUp(
        evidence.seen,
        evidence.tables,
        evidence.faintest,
        evidence.wave,
        evidence.distance,
        evidence.half,
        model.per_step,
        model.width,
        model.brightness,
        model.ring,
        model.shell,
    )
