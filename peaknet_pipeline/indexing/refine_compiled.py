"""Refinement's loops for processors: the same steps as in ``refine``, compiled, one candidate after the other.

The loops release the interpreter, so that threads share the candidates: compiling them for numba's own threads takes twice
as long.
"""

from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.types import BoolArray, IntArray

AnyArray: TypeAlias = npt.NDArray[Any]


@numba.njit(cache=True, nogil=True)
def refine_rotations(
    q: AnyArray,
    used: BoolArray,
    frame: IntArray,
    rotation: AnyArray,
    basis: AnyArray,
    start: tuple[float, float],
    end: tuple[float, float],
    limit: float,
    n_steps: int,
    volume: float,
) -> tuple[AnyArray, AnyArray]:
    """Return refined rotations (n, 3, 3) and log-odds (n,); see ``refine.refine_rotation`` and ``refine.log_odds``."""
    turned = rotation.copy()
    score = np.zeros(frame.size)
    real = np.linalg.inv(basis)
    for i in range(frame.size):
        spots, free = q[frame[i]], used[frame[i]]
        length = np.sqrt((spots * spots).sum(axis=1))
        tolerance = length
        for step in range(n_steps):
            part = step / max(n_steps - 1, 1)
            near = start[0] * (end[0] / start[0]) ** part
            tilt = start[1] * (end[1] / start[1]) ** part
            tolerance = np.minimum(near + tilt * length, limit)
            turned[i] = _turn(spots, free, turned[i], basis, real, tolerance)
        score[i] = _log_odds(spots, free, turned[i], basis, real, tolerance, volume)
    return turned, score


@numba.njit(cache=True)
def _point(spot: AnyArray, axes: AnyArray, inverse: AnyArray, index: AnyArray, point: AnyArray) -> None:
    for a in range(3):
        index[a] = np.rint(inverse[a, 0] * spot[0] + inverse[a, 1] * spot[1] + inverse[a, 2] * spot[2])
    for a in range(3):
        point[a] = axes[a, 0] * index[0] + axes[a, 1] * index[1] + axes[a, 2] * index[2]


@numba.njit(cache=True)
def _turn(
    spots: AnyArray,
    free: BoolArray,
    rotation: AnyArray,
    basis: AnyArray,
    real: AnyArray,
    tolerance: AnyArray,
) -> AnyArray:
    axes, inverse = rotation @ basis, real @ rotation.T
    normal, right = np.zeros((3, 3)), np.zeros(3)
    index, g, d = np.zeros(3), np.zeros(3), np.zeros(3)
    mean, count = 0.0, len(tolerance)
    for j in range(count):
        mean += tolerance[j] / count
        if not free[j]:
            continue
        _point(spots[j], axes, inverse, index, g)
        for a in range(3):
            d[a] = spots[j, a] - g[a]
        squared = (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) / tolerance[j] ** 2
        if squared >= 1.0:
            continue
        # The normal equations of refine._rotation_step: Σ w (|g|² 1 - g gᵀ) v = Σ w g × d.
        weight = (1.0 - squared) ** 2
        square = g[0] * g[0] + g[1] * g[1] + g[2] * g[2]
        for a in range(3):
            normal[a, a] += weight * square
            for b in range(3):
                normal[a, b] -= weight * g[a] * g[b]
        right[0] += weight * (g[1] * d[2] - g[2] * d[1])
        right[1] += weight * (g[2] * d[0] - g[0] * d[2])
        right[2] += weight * (g[0] * d[1] - g[1] * d[0])
    for a in range(3):
        normal[a, a] += 1e-3 * mean * mean + 1e-12
    turn = np.linalg.solve(normal, right)
    turned: AnyArray = _rotation_of(np.minimum(np.maximum(turn, -0.05), 0.05)) @ rotation
    return turned


@numba.njit(cache=True)
def _rotation_of(v: AnyArray) -> AnyArray:
    angle2 = (v * v).sum()
    angle = np.sqrt(angle2)
    first = np.sin(angle) / angle if angle > 1e-8 else 1.0 - angle2 / 6.0
    second = (1.0 - np.cos(angle)) / angle2 if angle > 1e-4 else 0.5 - angle2 / 24.0
    cross = np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])
    rotation: AnyArray = np.eye(3) + first * cross + second * (cross @ cross)
    return rotation


@numba.njit(cache=True)
def _log_odds(
    spots: AnyArray,
    free: BoolArray,
    rotation: AnyArray,
    basis: AnyArray,
    real: AnyArray,
    tolerance: AnyArray,
    volume: float,
) -> float:
    axes, inverse = rotation @ basis, real @ rotation.T
    index, g = np.zeros(3), np.zeros(3)
    total = 0.0
    for j in range(len(tolerance)):
        if free[j]:
            _point(spots[j], axes, inverse, index, g)
            squared = ((spots[j] - g) ** 2).sum() / tolerance[j] ** 2
            chance = 4.0 / 3.0 * np.pi * tolerance[j] ** 3 * volume
            if squared < 1.0 and chance < 1.0:
                total -= np.log(chance) * (1.0 - squared)
    return total


@numba.njit(cache=True, nogil=True)
def refine_lattices(
    q: AnyArray,
    used: BoolArray,
    rays: AnyArray,
    frame: IntArray,
    rotation: AnyArray,
    basis: AnyArray,
    strains: AnyArray,
    tolerance: float,
    cell_sigma: float,
    cell_tolerance: float,
    n_steps: int,
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return rotations (n, 3, 3), strain coefficients (n, k) and bases (n, 3, 3); see ``refine.refine_lattice``.

    ``rays`` (n_frames, m, 3) are unit vectors towards the spots, all zero when the beam isn't known.
    """
    n, n_strains = frame.size, strains.shape[0] if cell_sigma > 0 else 0
    turned, all_axes, strain = rotation.copy(), rotation.copy(), np.zeros((n, strains.shape[0]))
    for i in range(n):
        f = frame[i]
        length = np.sqrt((q[f] * q[f]).sum(axis=1))
        widths = np.full(2, 0.5 * tolerance)
        for step in range(n_steps):
            scale = 1.0 + length * (cell_tolerance / tolerance * 0.5**step)
            change = _lattice_step(
                q[f],
                used[f],
                rays[f],
                turned[i],
                strain[i],
                basis,
                strains[:n_strains],
                scale,
                widths,
                tolerance,
                cell_sigma,
            )
            turned[i] = _rotation_of(np.minimum(np.maximum(change[:3], -0.02), 0.02)) @ turned[i]
            strain[i, :n_strains] += change[3:]
        all_axes[i] = turned[i] @ _stretched(strain[i], strains) @ basis
    return turned, strain, all_axes


@numba.njit(cache=True)
def _stretched(strain: AnyArray, strains: AnyArray) -> AnyArray:
    total = np.eye(3)
    for k in range(strains.shape[0]):
        total += strain[k] * strains[k]
    return total


@numba.njit(cache=True)
def _lattice_step(
    spots: AnyArray,
    free: BoolArray,
    rays: AnyArray,
    rotation: AnyArray,
    strain: AnyArray,
    basis: AnyArray,
    strains: AnyArray,
    scale: AnyArray,
    widths: AnyArray,
    tolerance: float,
    cell_sigma: float,
) -> AnyArray:
    n, m, k = len(scale), rays.any(), 3 + strains.shape[0]
    axes = rotation @ _stretched(strain[: k - 3], strains) @ basis
    inverse = np.linalg.inv(axes)
    index, difference, point = np.zeros((n, 3)), np.zeros((n, 3)), np.zeros((n, 3))
    across, along, near = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.bool_)
    for j in range(n):
        _point(spots[j], axes, inverse, index[j], point[j])
        d = (spots[j] - point[j]) / scale[j]
        squared = (d * d).sum()
        along[j] = (d * rays[j]).sum()
        across[j] = np.sqrt(max(squared - along[j] ** 2, 0.0) / (2.0 if m else 3.0))
        near[j] = free[j] and squared < tolerance**2
        difference[j] = d * scale[j]
    # Half of the way to the new widths, 1.48 times the median misfit (σ of a normal error), within their bounds.
    for a, values in enumerate((across, along)):
        spread = 1.4826 * _lower_median(np.abs(values[near])) if near.any() else 0.0
        widths[a] = min(max(0.5 * (widths[a] + spread), 0.1 * tolerance), tolerance)
    change: AnyArray = _normal_equations(
        free,
        rays,
        rotation,
        strain,
        basis,
        strains,
        scale,
        widths,
        cell_sigma,
        index,
        difference,
        point,
        across,
        along,
    )
    return change


@numba.njit(cache=True)
def _lower_median(values: AnyArray) -> float:
    return float(np.sort(values)[(values.size - 1) // 2])


@numba.njit(cache=True)
def _normal_equations(
    free: BoolArray,
    rays: AnyArray,
    rotation: AnyArray,
    strain: AnyArray,
    basis: AnyArray,
    strains: AnyArray,
    scale: AnyArray,
    widths: AnyArray,
    cell_sigma: float,
    index: AnyArray,
    difference: AnyArray,
    point: AnyArray,
    across: AnyArray,
    along: AnyArray,
) -> AnyArray:
    k = 3 + strains.shape[0]
    normal, right, columns = np.zeros((k, k)), np.zeros(k), np.zeros((3, k))
    tilted = np.zeros((strains.shape[0], 3, 3))
    # Columns of the Jacobian: a turn v moves g by v × g = -[g]× v, a strain e moves it by R E_e B h.
    for e in range(strains.shape[0]):
        tilted[e] = rotation @ strains[e] @ basis
    for j in range(len(scale)):
        squared = (2.0 * (across[j] / widths[0]) ** 2 + (along[j] / widths[1]) ** 2) / 16.0
        if not free[j] or squared >= 1.0:
            continue
        weight = (1.0 - squared) ** 2 / scale[j] ** 2
        g = point[j]
        columns[:, :3] = -np.array([[0.0, -g[2], g[1]], [g[2], 0.0, -g[0]], [-g[1], g[0], 0.0]])
        for e in range(strains.shape[0]):
            columns[:, 3 + e] = tilted[e] @ index[j]
        _accumulate(normal, right, columns, difference[j], rays[j], weight, widths)
    # The strain's normal prior pulls back towards no strain; 1 on the turn only keeps the system regular.
    for a in range(k):
        normal[a, a] += 1.0 if a < 3 else cell_sigma**-2
        if a >= 3:
            right[a] -= strain[a - 3] * cell_sigma**-2
    return np.linalg.solve(normal, right)


@numba.njit(cache=True)
def _accumulate(
    normal: AnyArray,
    right: AnyArray,
    columns: AnyArray,
    difference: AnyArray,
    ray: AnyArray,
    weight: float,
    widths: AnyArray,
) -> None:
    """Add Jᵀ W J and Jᵀ W d with W = weight · [(1 - r rᵀ)/a² + r rᵀ/b²]."""
    inner, outer = weight / widths[0] ** 2, weight / widths[1] ** 2 - weight / widths[0] ** 2
    k = columns.shape[1]
    along = (ray * difference).sum()
    for a in range(k):
        ray_a = ray[0] * columns[0, a] + ray[1] * columns[1, a] + ray[2] * columns[2, a]
        dot = columns[0, a] * difference[0] + columns[1, a] * difference[1] + columns[2, a] * difference[2]
        right[a] += inner * dot + outer * ray_a * along
        for b in range(k):
            ray_b = ray[0] * columns[0, b] + ray[1] * columns[1, b] + ray[2] * columns[2, b]
            product = (
                columns[0, a] * columns[0, b] + columns[1, a] * columns[1, b] + columns[2, a] * columns[2, b]
            )
            normal[a, b] += inner * product + outer * ray_a * ray_b
