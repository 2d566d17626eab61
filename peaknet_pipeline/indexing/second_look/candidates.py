"""Candidate orientations of a known lattice from weak spots, most of which are noise.

As in the list indexer's search, a spot taken as a lattice point of its length fixes the orientation up to a turn about the
spot, and all turns are tried (``spin``). Here every weak spot counts with the odds that it is real: matched by a lattice whose
points a random spot meets with the chance c, a spot that is real with probability π is worth ln(1 + π·(1/c − 1)).
Seeds are taken where they are most likely real for the number of lattice points that must be tried, up to a fixed amount
of work.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from peaknet_pipeline.indexing.search import SpinPairs, chance_within, pair_frames, turned_rotations
from peaknet_pipeline.indexing.spin import spin_scores_compiled
from peaknet_pipeline.indexing.target import Target
from peaknet_pipeline.types import Float64Array

REFINEMENT = ((0.002, 0.012), (0.0015, 0.008), (0.0012, 0.005), (0.001, 0.003))
"""Tolerances of the rounds of refinement: Å⁻¹, and rad times |q|."""


@dataclass(frozen=True)
class SearchEffort:
    """How much is tried in one frame: spots that score, pairs that are spun, turns of each, orientations refined."""

    n_spots: int
    max_pairs: int
    n_turns: int
    n_refined: int


def find_candidates(
    q: Float64Array,
    odds: Float64Array,
    target: Target,
    *,
    length_tolerance: tuple[float, float],
    effort: SearchEffort,
) -> Float64Array:
    """Return candidate rotations crystal → laboratory, (n, 3, 3), the best first, refined on the spots.

    Parameters
    ----------
    q : (n, 3) Å⁻¹
        Weak spots.
    odds : (n,)
        Probability of each to be real.
    length_tolerance : (Å⁻¹, relative)
        By how much a spot's length may differ from its lattice point's.

    """
    order = np.argsort(-odds, kind="stable")[: effort.n_spots]
    q, odds = q[order], odds[order]
    if len(q) < 2:
        return np.zeros((0, 3, 3))
    length = np.linalg.norm(q, axis=1)
    tolerance = np.minimum(0.0015 + 0.004 * length, 0.4 * target.spacing)
    chance = np.minimum(chance_within(tolerance, target.volume), 0.999)
    weight = np.log1p(odds * (1.0 / chance - 1.0))
    pairs = choose_seeds(length, odds, target, length_tolerance, effort.max_pairs)
    if not pairs.frame.size:
        return np.zeros((0, 3, 3))
    laboratory, crystal = pair_frames(q[None], pairs, target)
    score, turn = spin_scores_compiled(
        q[None], tolerance[None], weight[None], pairs.frame, laboratory, crystal, target, effort.n_turns,
        torch.device("cpu"),
    )  # fmt: skip
    best = np.argsort(-score, kind="stable")[: effort.n_refined]
    angle = np.asarray(turn[best] * (2.0 * np.pi / effort.n_turns), dtype=np.float64)
    rotations = turned_rotations(laboratory[best], crystal[best], angle)
    return refine_rotations(rotations, q, weight, target)


def choose_seeds(
    length: Float64Array,
    odds: Float64Array,
    target: Target,
    tolerance: tuple[float, float],
    max_pairs: int,
) -> SpinPairs:
    """Pair spots with the lattice points of their length, those first that are most likely real per point to try."""
    width = tolerance[0] + tolerance[1] * length
    low = np.searchsorted(target.length, length - width, side="left")
    high = np.searchsorted(target.length, length + width, side="right")
    counts = high - low
    order = np.argsort(-odds / np.maximum(counts, 1), kind="stable")
    order = order[counts[order] > 0]
    order = order[np.cumsum(counts[order]) <= max_pairs]
    n = counts[order]
    offset = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    frame = np.zeros(int(n.sum()), dtype=np.int64)
    return SpinPairs(frame, np.repeat(order, n), np.repeat(low[order], n) + offset)


def refine_rotations(
    rotations: Float64Array, q: Float64Array, weight: Float64Array, target: Target
) -> Float64Array:
    """Return rotations (n, 3, 3) turned to fit the spots near their lattice points, by weighted least squares."""
    basis = np.ascontiguousarray(target.primitive)
    refined = rotations.copy()
    for base, angular in REFINEMENT:
        tolerance = np.minimum(base + angular * np.linalg.norm(q, axis=1), 0.4 * target.spacing)
        _refine_round(refined, q, weight, tolerance, basis, np.linalg.inv(basis))
    return refined


@numba.njit(cache=True, nogil=True)
def _refine_round(rotations: Any, q: Any, weight: Any, tolerance: Any, basis: Any, inverse: Any) -> Any:
    """Turn each rotation once: the ω that minimises Σ w·|q − p − ω × p|² over spots q near their lattice points p."""
    for n in range(rotations.shape[0]):
        r = rotations[n]
        to_index = inverse @ r.T
        to_point = r @ basis
        normal = np.zeros((3, 3))
        right = np.zeros(3)
        used = 0
        for j in range(q.shape[0]):
            x, y, z = q[j, 0], q[j, 1], q[j, 2]
            h = np.rint(to_index[0, 0] * x + to_index[0, 1] * y + to_index[0, 2] * z)
            k = np.rint(to_index[1, 0] * x + to_index[1, 1] * y + to_index[1, 2] * z)
            m = np.rint(to_index[2, 0] * x + to_index[2, 1] * y + to_index[2, 2] * z)
            px = to_point[0, 0] * h + to_point[0, 1] * k + to_point[0, 2] * m
            py = to_point[1, 0] * h + to_point[1, 1] * k + to_point[1, 2] * m
            pz = to_point[2, 0] * h + to_point[2, 1] * k + to_point[2, 2] * m
            dx, dy, dz = x - px, y - py, z - pz
            square = (dx * dx + dy * dy + dz * dz) / (tolerance[j] * tolerance[j])
            length = px * px + py * py + pz * pz
            if square >= 1.0 or length == 0.0:
                continue
            w = weight[j] * (1.0 - square) ** 2 / (tolerance[j] * tolerance[j])
            used += 1
            # p × d, and |p|²·1 − p·pᵀ.
            right[0] += w * (py * dz - pz * dy)
            right[1] += w * (pz * dx - px * dz)
            right[2] += w * (px * dy - py * dx)
            normal[0, 0] += w * (length - px * px)
            normal[1, 1] += w * (length - py * py)
            normal[2, 2] += w * (length - pz * pz)
            normal[0, 1] -= w * px * py
            normal[0, 2] -= w * px * pz
            normal[1, 2] -= w * py * pz
        if used < 3:
            continue
        normal[1, 0], normal[2, 0], normal[2, 1] = normal[0, 1], normal[0, 2], normal[1, 2]
        for axis in range(3):
            normal[axis, axis] += 1e-9 * (normal[0, 0] + normal[1, 1] + normal[2, 2])
        omega = np.linalg.solve(normal, right)
        angle = np.sqrt((omega**2).sum())
        if angle == 0.0 or angle > 0.05:
            continue
        a = omega / angle
        cross = np.array([[0.0, -a[2], a[1]], [a[2], 0.0, -a[0]], [-a[1], a[0], 0.0]])
        turn = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
        rotations[n] = turn @ r
