"""The coarse search's inner loop for processors: the same sums as ``search.spin_scores``, compiled."""

import numba
import numpy as np
import torch

from peaknet_pipeline.indexing.target import Target
from peaknet_pipeline.types import Float32Array, Float64Array, IntArray


def spin_scores_compiled(
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
    """Return the best score (n,) and turn (n,) of each pair; see :func:`search.spin_scores`."""
    angle = np.arange(n_turns) * (2.0 * np.pi / n_turns)
    metric = target.primitive.T @ target.primitive
    best = np.zeros(frame.size, dtype=np.float32)
    turn = np.zeros(frame.size, dtype=np.int64)
    _spin(
        q.astype(np.float32),
        (1.0 / np.maximum(tolerance, 1e-12) ** 2).astype(np.float32),
        weight.astype(np.float32),
        frame,
        laboratory.astype(np.float32),
        (np.linalg.inv(target.primitive) @ crystal).astype(np.float32),
        metric.astype(np.float32),
        np.cos(angle).astype(np.float32),
        np.sin(angle).astype(np.float32),
        best,
        turn,
    )
    return best.astype(np.float64), turn


@numba.njit(parallel=True, cache=True, fastmath=True)
def _spin(
    q: Float32Array,
    inverse: Float32Array,
    weight: Float32Array,
    frame: IntArray,
    axes: Float32Array,
    to_index: Float32Array,
    metric: Float32Array,
    cosine: Float32Array,
    sine: Float32Array,
    best: Float32Array,
    turn: IntArray,
) -> None:
    n_spots = q.shape[1]
    for pair in numba.prange(frame.size):
        f = frame[pair]
        series = np.empty((11, n_spots), dtype=np.float32)
        count = _series(q[f], inverse[f], weight[f], axes[pair], to_index[pair], series)
        top, top_turn = np.float32(-1.0), 0
        for t in range(cosine.size):
            score = _score(series, count, metric, cosine[t], sine[t])
            if score > top:
                top, top_turn = score, t
        best[pair], turn[pair] = top, top_turn


@numba.njit(cache=True, fastmath=True)
def _series(
    q: Float32Array,
    inverse: Float32Array,
    weight: Float32Array,
    axes: Float32Array,
    to_index: Float32Array,
    series: Float32Array,
) -> int:
    """Fill rows: three constants, three cosine and three sine parts of the indices, 1/tolerance², weight."""
    count = 0
    for j in range(q.shape[0]):
        if weight[j] <= 0.0:
            continue
        # In the frame of the seed spot, a turn by φ leaves the part along it, and turns (x, y) into
        # (x cos φ - y sin φ, x sin φ + y cos φ): each index of a spot is constant + cos φ · second + sin φ · third.
        along = q[j, 0] * axes[0, 0] + q[j, 1] * axes[1, 0] + q[j, 2] * axes[2, 0]
        x = q[j, 0] * axes[0, 1] + q[j, 1] * axes[1, 1] + q[j, 2] * axes[2, 1]
        y = q[j, 0] * axes[0, 2] + q[j, 1] * axes[1, 2] + q[j, 2] * axes[2, 2]
        for k in range(3):
            series[k, count] = along * to_index[k, 0]
            series[3 + k, count] = x * to_index[k, 1] + y * to_index[k, 2]
            series[6 + k, count] = y * to_index[k, 1] - x * to_index[k, 2]
        series[9, count], series[10, count] = inverse[j], weight[j]
        count += 1
    return count


@numba.njit(cache=True, fastmath=True)
def _score(
    series: Float32Array, count: int, metric: Float32Array, c: np.float32, s: np.float32
) -> np.float32:
    total = np.float32(0.0)
    half = np.float32(0.5)
    m00, m11, m22 = metric[0, 0], metric[1, 1], metric[2, 2]
    m01, m02, m12 = (
        np.float32(2.0) * metric[0, 1],
        np.float32(2.0) * metric[0, 2],
        np.float32(2.0) * metric[1, 2],
    )
    for j in range(count):
        h = series[0, j] + c * series[3, j] + s * series[6, j]
        k = series[1, j] + c * series[4, j] + s * series[7, j]
        m = series[2, j] + c * series[5, j] + s * series[8, j]
        # From the indices only their distance from whole numbers is kept; hᵀ (BᵀB) h is its square in Å⁻².
        h -= np.floor(h + half)
        k -= np.floor(k + half)
        m -= np.floor(m + half)
        distance = h * (m00 * h + m01 * k + m02 * m) + k * (m11 * k + m12 * m) + m22 * m * m
        close = np.float32(1.0) - distance * series[9, j]
        total += series[10, j] * max(close, np.float32(0.0))
    return total
