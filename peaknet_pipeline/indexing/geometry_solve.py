"""One least-squares step for a detector's geometry with all crystals free to turn.

Unknowns are the detector's shift and tilt, each panel's shift in x and y and turn about z, and a small rotation of every
crystal. The rotations are eliminated crystal by crystal (Schur complement), so that runs of many crystals stay small.
"""

import numpy as np

from peaknet_pipeline.types import BoolArray, Float64Array, IntArray

N_COMMON = 5
"""Unknowns of the whole detector: shift in x, y and z (m), tilt about x and y (rad)."""


def solve_geometry(
    positions: tuple[Float64Array, Float64Array, Float64Array, Float64Array],
    owners: tuple[IntArray, IntArray, Float64Array],
    weight: Float64Array,
    free: BoolArray,
) -> Float64Array:
    """Return the step of the free parameters.

    Parameters
    ----------
    positions : tuple of (n, 3)
        Predicted unit rays; positions from their panel's centre, from the point that the detector tilts about, and from the
        sample, metres.
    owners : tuple of (n,)
        Crystal, panel and 1/λ (Å⁻¹) of each spot.
    weight : (n,)
    free : (5 + 3 n_panels,) bool
        Which of the detector's x, y, z (m) and tilts (rad), and each panel's x, y (m) and turn (rad), may move.

    """
    rays, arm, lever, position = positions
    crystal, panel, wave = owners
    projector = np.eye(3) - rays[:, :, None] * rays[:, None, :]
    off = np.einsum("nij,nj->ni", projector, position)
    columns = _geometry_columns(projector, arm, lever)
    turns = _crystal_columns(rays, projector, position, wave)
    n_crystals, n_all = int(crystal.max()) + 1, free.size
    where = np.concatenate(
        [np.tile(np.arange(N_COMMON), (len(panel), 1)), N_COMMON + 3 * panel[:, None] + np.arange(3)], axis=1
    )
    normal, right = np.zeros((n_all, n_all)), np.zeros(n_all)
    weighted = weight[:, None, None] * columns
    np.add.at(normal, (where[:, :, None], where[:, None, :]), np.einsum("nik,nil->nkl", weighted, columns))
    np.add.at(right, where, -np.einsum("nik,ni->nk", weighted, off))
    coupling, inner, inner_right = _crystal_blocks(
        turns, columns, off, weight, crystal, where, n_crystals, n_all
    )
    solved = np.linalg.solve(inner, coupling)
    normal -= np.einsum("cka,ckb->ab", coupling, solved)
    right -= np.einsum("cka,ck->a", solved, inner_right)
    return _solve_free(normal[np.ix_(free, free)], right[free])


def _geometry_columns(projector: Float64Array, arm: Float64Array, lever: Float64Array) -> Float64Array:
    """Return ∂(distance from the ray)/∂(x, y, z, tilt about x and y, panel's x, y, turn), (n, 3, 8).

    A small rotation ω moves a point at r from its centre by ω × r.
    """
    zero = np.zeros(len(arm))
    about_x = np.stack([zero, -lever[:, 2], lever[:, 1]], axis=1)
    about_y = np.stack([lever[:, 2], zero, -lever[:, 0]], axis=1)
    about_z = np.stack([-arm[:, 1], arm[:, 0], zero], axis=1)
    turns = [np.einsum("nij,nj->ni", projector, way)[:, :, None] for way in (about_x, about_y, about_z)]
    return np.concatenate([projector, *turns[:2], projector[:, :, :2], turns[2]], axis=2)


def _crystal_columns(
    rays: Float64Array, projector: Float64Array, position: Float64Array, wave: Float64Array
) -> Float64Array:
    """Return ∂(distance from the ray)/∂(crystal's rotation vector), (n, 3, 3)."""
    point = wave[:, None] * (rays - np.array([0.0, 0.0, 1.0]))
    x, y, z = point.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    length = np.linalg.norm(position, axis=1) / wave
    return np.asarray(length[:, None, None] * projector @ cross, dtype=np.float64)


def _crystal_blocks(
    turns: Float64Array,
    columns: Float64Array,
    off: Float64Array,
    weight: Float64Array,
    crystal: IntArray,
    where: IntArray,
    n_crystals: int,
    n_all: int,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    weighted = weight[:, None, None] * turns
    inner = np.zeros((n_crystals, 3, 3))
    np.add.at(inner, crystal, np.einsum("nik,nil->nkl", weighted, turns))
    inner_right = np.zeros((n_crystals, 3))
    np.add.at(inner_right, crystal, -np.einsum("nik,ni->nk", weighted, off))
    coupling = np.zeros((n_crystals, 3, n_all))
    blocks = np.einsum("nik,nil->nkl", weighted, columns)
    np.add.at(coupling, (crystal[:, None, None], np.arange(3)[None, :, None], where[:, None, :]), blocks)
    ridge = 1e-6 * np.trace(inner, axis1=1, axis2=2)[:, None, None] + 1e-12
    return coupling, inner + ridge * np.eye(3), inner_right


def _solve_free(normal: Float64Array, right: Float64Array) -> Float64Array:
    """Solve the scaled normal equations; what they don't fix (all panels moving together) stays."""
    scale = 1.0 / np.sqrt(np.maximum(np.diag(normal), 1e-30))
    scaled = normal * scale[:, None] * scale[None, :]
    return np.asarray(scale * np.linalg.lstsq(scaled, right * scale, rcond=1e-6)[0], dtype=np.float64)
