"""Lattices without a known cell, frame by frame: periodic directions, then the triple that explains most.

The projections of a lattice's spots on a real-space lattice vector's direction are multiples of 1/length: a Fourier
transform of their histogram along many directions shows the vectors (Steller, Bolotovsky & Rossmann 1997). The best
are refined, and the triple whose lattice explains the spots most significantly for its volume is kept.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from peaknet_pipeline.hits import MIN_PEAKS
from peaknet_pipeline.indexing.refine_compiled import refine_lattices
from peaknet_pipeline.indexing.symmetry import reduce_basis
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import Float64Array, IntArray

MIN_SKEWNESS = 0.15
"""Least volume of a triple of vectors as a share of the product of their lengths: flatter ones span no lattice."""

_TRICLINIC = np.zeros((6, 3, 3))
"""Unit strains of all six kinds."""
for _kind, (_i, _j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
    _TRICLINIC[_kind, _i, _j] = _TRICLINIC[_kind, _j, _i] = 1.0


@dataclass(frozen=True)
class BlindParams(Parameters):
    """How lattices are found without a cell, and how the run's cell is agreed on."""

    min_length: float = parameter(15.0, meaning="shortest primitive axis sought", unit="Å", gt=2.0)
    max_length: float = parameter(
        250.0, meaning="longest primitive axis sought", unit="Å", gt=10.0, le=1000.0
    )
    max_inv_d: float = parameter(0.25, meaning="spots further out are left out at first", unit="Å⁻¹", gt=0.0)
    n_directions: int = parameter(6000, meaning="directions on the half sphere", ge=100)
    n_vectors: int = parameter(24, meaning="vectors kept per frame", ge=3)
    min_peaks: int = parameter(MIN_PEAKS, meaning="frames with fewer peaks are not tried", ge=6)
    min_significance: float = parameter(
        8.0, meaning="log10 of how much rarer than chance the explained peaks must be"
    )
    tolerance: float = parameter(
        0.002, meaning="distance within which a spot is explained", unit="Å⁻¹", gt=0.0
    )
    max_frames: int = parameter(200, meaning="frames with most peaks that are tried", ge=1)
    length_agreement: float = parameter(
        0.02, meaning="relative difference of axes that agree", gt=0.0, le=0.2
    )
    angle_agreement_deg: float = parameter(2.0, meaning="difference of angles that agree", unit="deg", gt=0.0)
    min_agreeing: int = parameter(3, meaning="frames that must agree on a cell", ge=1)


@dataclass(frozen=True)
class BlindLattice:
    """A lattice without a known cell: reduced real basis, (3, 3) rows, Å; its significance and explained spots."""

    rows: Float64Array
    significance: float
    n_explained: int


def find_lattice(q: Float64Array, *, beam: Float64Array | None, params: BlindParams) -> BlindLattice | None:
    """Return the most significant lattice of a frame's spots, (n, 3) Å⁻¹, or None when no triple is significant."""
    vectors = find_vectors(q, params)
    if len(vectors) < 3:
        return None
    triples = vectors[np.array(list(itertools.combinations(range(len(vectors)), 3)))]
    volume = np.abs(np.linalg.det(triples))
    triples = triples[volume >= MIN_SKEWNESS * np.prod(np.linalg.norm(triples, axis=2), axis=1)]
    if not len(triples):
        return None
    significance, _ = _judge(q, triples, params.tolerance)
    best = int(np.argmax(significance))
    if significance[best] < params.min_significance - 3.0:
        return None
    polished = _polish(q, beam, triples[best], params)
    return polished if polished.significance >= params.min_significance else None


def find_vectors(q: Float64Array, params: BlindParams) -> Float64Array:
    """Return refined candidate vectors of the real lattice, (n, 3), Å, the best first."""
    low = q[np.linalg.norm(q, axis=1) <= params.max_inv_d]
    if len(low) < params.min_peaks:
        low = q[np.argsort(np.linalg.norm(q, axis=1))[: params.min_peaks]]
    directions = half_sphere(params.n_directions)
    length, power = _best_lengths(low, directions, params)
    order = np.argsort(-power, kind="stable")[: 12 * params.n_vectors]
    vectors = [_refine_vector(directions[i] * length[i], low) for i in order if length[i] > 0]
    return _distinct([v for v in vectors if v is not None], q, params)


def half_sphere(n: int) -> Float64Array:
    """Return n unit vectors, (n, 3), spread evenly over the half sphere z ≥ 0 by a golden spiral."""
    z = (np.arange(n) + 0.5) / n
    angle = np.pi * (3.0 - np.sqrt(5.0)) * np.arange(n)
    radius = np.sqrt(1.0 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _best_lengths(
    q: Float64Array, directions: Float64Array, params: BlindParams
) -> tuple[Float64Array, Float64Array]:
    """Return the period (Å) with the largest Fourier amplitude along each direction, and that amplitude."""
    reach = float(np.linalg.norm(q, axis=1).max()) * 1.001
    n_bins = int(2 ** np.ceil(np.log2(2.0 * reach * params.max_length * 3.0)))
    step = 2.0 * reach / n_bins
    pad = 2 * n_bins
    lengths = np.arange(pad // 2 + 1) / (pad * step)
    allowed = (lengths >= params.min_length) & (lengths <= params.max_length)
    best, power = np.zeros(len(directions)), np.zeros(len(directions))
    for begin in range(0, len(directions), 1000):
        part = directions[begin : begin + 1000]
        place = np.clip(((part @ q.T + reach) / step).astype(np.int64), 0, n_bins - 1)
        flat = (np.arange(len(part))[:, None] * pad + place).ravel()
        histogram = np.bincount(flat, minlength=len(part) * pad).reshape(len(part), pad).astype(np.float32)
        amplitude = np.abs(np.fft.rfft(histogram, axis=1))[:, allowed]
        top = amplitude.argmax(axis=1)
        best[begin : begin + 1000] = lengths[allowed][top]
        power[begin : begin + 1000] = amplitude[np.arange(len(part)), top]
    return best, power


def _refine_vector(vector: Float64Array, q: Float64Array) -> Float64Array | None:
    """Refine a vector by trimmed least squares of its projections' distance from whole numbers."""
    for bound in (0.25, 0.2, 0.15, 0.12, 0.1, 0.1):
        order = np.rint(q @ vector)
        near = np.abs(q @ vector - order) < bound
        if near.sum() < 6 or not order[near].any():
            return None
        vector = np.asarray(np.linalg.lstsq(q[near], order[near], rcond=None)[0], dtype=np.float64)
    return vector


def _distinct(vectors: list[Float64Array], q: Float64Array, params: BlindParams) -> Float64Array:
    """Return the vectors that most spots agree with, each once, the shorter of equals first."""
    kept: list[Float64Array] = []
    if not vectors:
        return np.zeros((0, 3))
    stack = np.array(vectors)
    length = np.linalg.norm(stack, axis=1)
    miss = q @ stack.T - np.rint(q @ stack.T)
    near = np.abs(miss) / length < params.tolerance / np.sqrt(3.0)
    chance = np.minimum(2.0 * params.tolerance / np.sqrt(3.0) * length, 0.99)
    score = -stats.binom.logsf(near.sum(axis=0) - 1, len(q), chance)
    for i in np.argsort(-score, kind="stable"):
        sane = 0.8 * params.min_length < length[i] < 1.2 * params.max_length
        same = any(min(np.linalg.norm(stack[i] - k), np.linalg.norm(stack[i] + k)) < 1.5 for k in kept)
        if sane and not same:
            kept.append(stack[i])
        if len(kept) == params.n_vectors:
            break
    return np.array(kept).reshape(-1, 3)


def _judge(q: Float64Array, rows: Float64Array, tolerance: float) -> tuple[Float64Array, IntArray]:
    """Return the significance and the number of explained spots, (n,), of lattices given by real bases, (n, 3, 3) rows."""
    index = np.einsum("mj,nij->nmi", q, rows)
    miss = (index - np.rint(index)) @ np.swapaxes(np.linalg.inv(rows), 1, 2)
    inside = (np.linalg.norm(miss, axis=2) < tolerance).sum(axis=1)
    chance = np.minimum(4.0 / 3.0 * np.pi * tolerance**3 * np.abs(np.linalg.det(rows)), 0.99)
    rarity = -stats.binom.logsf(inside - 1, len(q), chance) / np.log(10.0)
    reach = float(np.sqrt((q**2).sum(axis=1).mean()))
    # Nine numbers of a free basis, each known to tolerance/reach of itself.
    significance = rarity - 9.0 * np.log10(max(reach / tolerance, 1.0)) * 0.5
    return np.asarray(significance, dtype=np.float64), inside


def _polish(
    q: Float64Array, beam: Float64Array | None, rows: Float64Array, params: BlindParams
) -> BlindLattice:
    """Refine all nine numbers of the basis on all spots, and reduce it."""
    rows = reduce_basis(rows)
    basis = np.ascontiguousarray(np.linalg.inv(rows))
    rays = np.zeros_like(q) if beam is None else (q + beam) / np.linalg.norm(q + beam, axis=1, keepdims=True)
    used = np.ones((1, len(q)), dtype=np.bool_)
    start = np.eye(3)[None].copy()
    zero = np.zeros(1, dtype=np.int64)
    _, _, axes = refine_lattices(
        np.ascontiguousarray(q)[None],
        used,
        rays[None],
        zero,
        start,
        basis,
        _TRICLINIC,
        params.tolerance,
        0.05,
        0.003,
        12,
    )
    reduced = reduce_basis(np.linalg.inv(axes[0]))
    significance, n_explained = _judge(q, reduced[None], params.tolerance)
    return BlindLattice(reduced, float(significance[0]), int(n_explained[0]))
