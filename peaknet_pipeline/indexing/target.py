"""The sought lattice, prepared once: primitive basis, symmetry, and its points sorted by length."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from peaknet_pipeline.indexing.cell import check_cell, reciprocal_matrix
from peaknet_pipeline.indexing.symmetry import primitive_matrix, rotation_operators, strain_basis
from peaknet_pipeline.types import Float64Array, UnitCell

MAX_POINTS = 150_000
"""Reciprocal-lattice points that the search table is made from."""


@dataclass(frozen=True)
class Target:
    """A known cell, ready to be searched for.

    ``primitive`` (3, 3) Å⁻¹, reduced reciprocal basis (columns), crystal frame; ``to_conventional`` (3, 3) turns a
    primitive basis (columns) into the cell's own; ``volume`` Å³ of the primitive real cell; ``points`` (n, 3) Å⁻¹, one
    lattice point of each set equivalent by rotation, by ascending ``length`` (n,); ``strains`` (k, 3, 3);
    ``n_rotations`` proper rotations of the lattice; ``spacing`` Å⁻¹, the shortest reciprocal-lattice vector.
    """

    cell: UnitCell
    primitive: Float64Array
    to_conventional: Float64Array
    volume: float
    points: Float64Array
    length: Float64Array
    strains: Float64Array
    n_rotations: int
    spacing: float


@lru_cache(maxsize=16)
def make_target(cell: UnitCell) -> Target:
    """Prepare a cell for the search; raises CellError for an impossible one."""
    check_cell(cell)
    primitive = primitive_matrix(cell)
    operators = rotation_operators(cell)
    volume = float(1.0 / np.linalg.det(primitive))
    points = _distinct_points(primitive, operators, volume)
    length = np.linalg.norm(points, axis=1)
    order = np.lexsort((points[:, 2], points[:, 1], points[:, 0], np.round(length, 9)))
    return Target(
        cell=cell,
        primitive=primitive,
        to_conventional=np.asarray(np.linalg.solve(primitive, reciprocal_matrix(cell)), dtype=np.float64),
        volume=volume,
        points=points[order],
        length=length[order],
        strains=strain_basis(cell),
        n_rotations=len(operators),
        spacing=float(length.min()),
    )


def lattice_points(primitive: Float64Array, radius: float) -> Float64Array:
    """Return the integer coordinates, (n, 3), of all points but the origin within ``radius``, Å⁻¹."""
    real = np.linalg.inv(primitive)
    limit = np.floor(radius * np.linalg.norm(real, axis=1)).astype(np.int64)
    axes = [np.arange(-n, n + 1, dtype=np.float64) for n in limit]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    near = np.linalg.norm(grid @ primitive.T, axis=1) <= radius
    near &= np.any(grid != 0, axis=1)
    return np.asarray(grid[near], dtype=np.float64)


def _distinct_points(primitive: Float64Array, operators: Float64Array, volume: float) -> Float64Array:
    radius = float((3.0 * MAX_POINTS / (4.0 * np.pi * volume)) ** (1.0 / 3.0))
    indices = lattice_points(primitive, min(radius, 1.0))
    integer_operators = np.rint(np.linalg.inv(primitive) @ operators @ primitive)
    base = 4.0 * np.abs(indices).max() + 1.0
    key_of = np.array([1.0, base, base * base])
    own = indices @ key_of
    first = np.ones(len(indices), dtype=np.bool_)
    for operator in integer_operators:
        first &= own >= (indices @ operator.T) @ key_of
    return np.asarray(indices[first] @ primitive.T, dtype=np.float64)
