"""Coarse search: every low-angle spot as every lattice point of its length, spun about itself.

A spot and a lattice point of the same length fix an orientation up to a turn about the spot's own direction. All such
pairs of the frame's lowest-angle spots (modulo the lattice's rotations), each in a few hundred turns, cover all
orientations that explain at least one of them, so a frame's right orientation is always among the ones scored. Each is
scored by the log-odds of the spots near lattice points. Compare TORO (Gasparotto et al. 2024) and the
fast-feedback indexer, which sample real-space axis directions instead.
"""

from dataclasses import dataclass

import numpy as np
import torch

from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.spin import spin_scores_compiled
from peaknet_pipeline.indexing.target import Target
from peaknet_pipeline.types import BoolArray, Float64Array, IntArray

_TORCH_ELEMENTS = 8_000_000


@dataclass(frozen=True)
class SpinPairs:
    """Spot-to-lattice-point pairs to be spun: batch position, spot column, row in the target's points; each (n,)."""

    frame: IntArray
    spot: IntArray
    point: IntArray


def choose_pairs(q: Float64Array, used: BoolArray, target: Target, params: IndexParams) -> SpinPairs:
    """Pair each frame's lowest-angle spots with the lattice points of nearly the same length.

    ``q`` (n_frames, n_spots, 3) ordered by |q| within the frame. At least one spot's pairs are kept per frame, further
    spots while the frame's pairs stay below ``max_pairs``.
    """
    length = np.linalg.norm(q, axis=2)
    width = params.spot_tolerance + params.cell_tolerance * length
    low = np.searchsorted(target.length, length - width, side="left")
    high = np.searchsorted(target.length, length + width, side="right")
    counts = np.where(used, high - low, 0)
    seed = counts > 0
    seed &= np.cumsum(seed, axis=1) <= params.n_seeds
    total = np.cumsum(np.where(seed, counts, 0), axis=1)
    seed &= (total <= params.max_pairs) | (np.cumsum(seed, axis=1) == 1)
    frame, spot = np.nonzero(seed)
    n = counts[frame, spot]
    offset = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    return SpinPairs(np.repeat(frame, n), np.repeat(spot, n), np.repeat(low[frame, spot], n) + offset)


def search_tolerance(
    q: Float64Array, target: Target, params: IndexParams
) -> tuple[Float64Array, Float64Array]:
    """Return each spot's tolerance (Å⁻¹) and weight: -ln of the chance that a random spot is within it."""
    length = np.linalg.norm(q, axis=-1)
    tolerance = np.minimum(params.spot_tolerance + params.angular_tolerance * length, 0.45 * target.spacing)
    return tolerance, np.maximum(-np.log(chance_within(tolerance, target.volume)), 0.0)


def chance_within(tolerance: Float64Array, volume: float) -> Float64Array:
    """Return the chance that a random point is within ``tolerance`` (Å⁻¹) of a lattice point, at most 1."""
    return np.asarray(np.minimum(4.0 / 3.0 * np.pi * tolerance**3 * volume, 1.0), dtype=np.float64)


def find_orientations(
    q: Float64Array, used: BoolArray, target: Target, params: IndexParams, device: torch.device
) -> tuple[IntArray, Float64Array]:
    """Return the best coarse orientations: batch position (n,) and rotation crystal → laboratory (n, 3, 3).

    At most ``n_candidates`` per frame, the best of each pair's turns, ordered by frame and score.
    """
    pairs = choose_pairs(q, used, target, params)
    if not pairs.frame.size:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 3, 3))
    n_search = min(q.shape[1], params.n_search_spots)
    tolerance, weight = search_tolerance(q, target, params)
    weight = np.where(used, weight, 0.0)
    laboratory, crystal = pair_frames(q, pairs, target)
    spots = (q[:, :n_search], tolerance[:, :n_search], weight[:, :n_search])
    n_turns = int(np.ceil(2.0 * np.pi / (1.4 * params.angular_tolerance)))
    score_turns = spin_scores_compiled if device.type == "cpu" else spin_scores
    score, turn = score_turns(*spots, pairs.frame, laboratory, crystal, target, n_turns, device)
    keep = _best_per_frame(pairs.frame, score, params.n_candidates)
    return pairs.frame[keep], turned_rotations(
        laboratory[keep], crystal[keep], np.asarray(turn[keep] * (2.0 * np.pi / n_turns), dtype=np.float64)
    )


def pair_frames(q: Float64Array, pairs: SpinPairs, target: Target) -> tuple[Float64Array, Float64Array]:
    """Return right-handed frames (columns) that begin with the spot's and the lattice point's direction, (n, 3, 3)."""
    return _frame_about(q[pairs.frame, pairs.spot]), _frame_about(target.points[pairs.point])


def _frame_about(vectors: Float64Array) -> Float64Array:
    first = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(first), axis=1)]
    second = np.cross(first, helper)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=2)


def turned_rotations(laboratory: Float64Array, crystal: Float64Array, angle: Float64Array) -> Float64Array:
    turn = np.zeros_like(laboratory)
    turn[:, 0, 0] = 1.0
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 2, 1] = np.sin(angle)
    turn[:, 1, 2] = -turn[:, 2, 1]
    return np.asarray(laboratory @ turn @ np.swapaxes(crystal, 1, 2), dtype=np.float64)


def _best_per_frame(frame: IntArray, score: Float64Array, n: int) -> IntArray:
    order = np.lexsort((np.arange(frame.size), -score, frame))
    sorted_frame = frame[order]
    rank = np.arange(frame.size) - np.searchsorted(sorted_frame, sorted_frame, side="left")
    return order[rank < n]


def spin_scores(
    q: Float64Array,
    tolerance: Float64Array,
    weight: Float64Array,
    frame: IntArray,
    laboratory: Float64Array,
    crystal: Float64Array,
    target: Target,
    n_turns: int,
    device: torch.device,
) -> tuple[Float64Array, IntArray]:
    """Return the best score (n,) and turn (n,) of each pair, in torch; what the compiled loop must match.

    The score of a turn is Σ weight · max(0, 1 - (distance / tolerance)²) over the frame's spots, the distance
    from the lattice point whose indices are the rounded ones.
    """

    def put(array: Float64Array) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=device)

    angle = torch.arange(n_turns, device=device, dtype=torch.float32) * (2.0 * np.pi / n_turns)
    cosine, sine = torch.cos(angle)[None, :, None, None], torch.sin(angle)[None, :, None, None]
    to_index = put(np.linalg.inv(target.primitive) @ crystal)
    basis, axes = put(target.primitive), put(laboratory)
    spots, inverse, gain = put(q), put(1.0 / np.maximum(tolerance, 1e-12) ** 2), put(weight)
    where = torch.as_tensor(frame, device=device)
    chunk = max(1, _TORCH_ELEMENTS // (n_turns * q.shape[1] * 3))
    best, turns = [], []
    for begin in range(0, frame.size, chunk):
        part = slice(begin, begin + chunk)
        fixed, even, odd = _index_series(spots[where[part]], axes[part], to_index[part])
        index = fixed[:, None] + cosine * even[:, None] + sine * odd[:, None]
        distance = ((index - torch.round(index)) @ basis.T).square().sum(dim=3)
        close = (1.0 - distance * inverse[where[part]][:, None]).clamp_min_(0.0)
        value, turn = torch.einsum("ptn,pn->pt", close, gain[where[part]]).max(dim=1)
        best.append(value.double().cpu())
        turns.append(turn.cpu())
    return torch.cat(best).numpy(), torch.cat(turns).numpy()


def _index_series(
    spots: torch.Tensor, axes: torch.Tensor, to_index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split the indices of turned spots into constant, cosine and sine parts, each (pairs, spots, 3)."""
    along, x, y = (spots @ axes).unbind(dim=2)
    alpha, beta, gamma = to_index.unbind(dim=2)
    fixed = along[..., None] * alpha[:, None]
    even = x[..., None] * beta[:, None] + y[..., None] * gamma[:, None]
    odd = y[..., None] * beta[:, None] - x[..., None] * gamma[:, None]
    return fixed, even, odd
