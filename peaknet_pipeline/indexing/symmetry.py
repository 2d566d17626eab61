"""What a lattice's symmetry implies: primitive setting, equivalent orientations, strains that keep it."""

import itertools

import gemmi
import numpy as np

from peaknet_pipeline.indexing.cell import reciprocal_matrix
from peaknet_pipeline.types import Float64Array, UnitCell

SYMMETRY_OBLIQUITY_DEG = 1.0
"""Le Page obliquity up to which a two-fold axis counts as one of the lattice's."""

_RATIONAL = 24


def gemmi_centering(cell: UnitCell) -> str:
    """Return gemmi's letter: CrystFEL's H is gemmi's R; CrystFEL's R (rhombohedral axes) is primitive."""
    return {"R": "P", "H": "R"}.get(cell.centering, cell.centering)


def primitive_matrix(cell: UnitCell) -> Float64Array:
    """Return Bₚ, (3, 3), Å⁻¹: reciprocal axes (columns) of a Niggli-reduced primitive cell, crystal frame."""
    real = gemmi.UnitCell(cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)
    columns = np.array(real.primitive_orth_matrix(gemmi_centering(cell)).tolist(), dtype=np.float64)
    reduced = reduce_basis(columns.T)
    return np.asarray(np.linalg.inv(reduced), dtype=np.float64)


def reduce_basis(rows: Float64Array) -> Float64Array:
    """Return a right-handed basis (rows, Å) of the same lattice with its three shortest independent vectors.

    Repeated size reduction by all small combinations; for three dimensions this reaches the Minkowski basis.
    """
    basis = np.array(rows, dtype=np.float64)
    for _ in range(100):
        order = np.argsort((basis**2).sum(axis=1), kind="stable")
        basis = basis[order]
        if not _shorten(basis):
            break
    return basis if np.linalg.det(basis) > 0 else -basis


def _shorten(basis: Float64Array) -> bool:
    """Shorten the third, or else the second, vector in place by small multiples of the others; say if it did."""
    gram = basis[:2] @ basis[:2].T
    m = np.rint(gram[0, 1] / gram[0, 0])
    if m:
        basis[1] -= m * basis[0]
        return True
    best = np.rint(np.linalg.solve(gram, basis[:2] @ basis[2]))
    steps = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=2))) + best
    trials = basis[2] - steps @ basis[:2]
    lengths = (trials**2).sum(axis=1)
    pick = int(np.argmin(lengths))
    if lengths[pick] < (basis[2] ** 2).sum() * (1 - 1e-10):
        basis[2] = trials[pick]
        return True
    return False


def rotation_operators(cell: UnitCell, *, max_obliquity_deg: float = SYMMETRY_OBLIQUITY_DEG) -> Float64Array:
    """Return the proper rotations of the lattice, (n, 3, 3), crystal frame; the identity comes first.

    They are the metric symmetry of the cell with its centring (gemmi, Le Page 1982), rounded to the nearest
    rotation when the metric is only nearly symmetric.
    """
    real = gemmi.UnitCell(cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)
    group = gemmi.find_lattice_symmetry(real, gemmi_centering(cell), max_obliquity_deg)
    orth = np.array(real.orth.mat.tolist(), dtype=np.float64)
    matrices = [orth @ (np.array(op.rot) / _RATIONAL) @ np.linalg.inv(orth) for op in group.sym_ops]
    u, _, vt = np.linalg.svd(np.stack(matrices))
    rotations: Float64Array = np.asarray(u @ vt, dtype=np.float64)
    order = np.argsort(-np.trace(rotations, axis1=1, axis2=2), kind="stable")
    return rotations[order]


def misorientation_deg(first: Float64Array, second: Float64Array, cell: UnitCell) -> float:
    """Return the smallest rotation, degrees, that takes one reciprocal basis into the other's lattice.

    ``first`` and ``second`` are (3, 3), Å⁻¹, columns **a***, **b***, **c*** of ``cell``'s conventional setting;
    their lengths may differ by strain. Lattice-equivalent settings count as the same orientation; a mirrored
    basis is compared through its inverse, which spans the same lattice.
    """
    b_inverse = np.linalg.inv(reciprocal_matrix(cell))
    one, two = (
        orientation_matrix(np.asarray(axes, dtype=np.float64) @ b_inverse) for axes in (first, second)
    )
    relative = np.einsum("ij,nkj,lk->nil", one, rotation_operators(cell), two)
    cosine = (np.trace(relative, axis1=1, axis2=2).max() - 1.0) / 2.0
    sine = np.linalg.norm(relative - np.swapaxes(relative, 1, 2), axis=(1, 2)) / np.sqrt(8.0)
    best = int(np.argmax(np.trace(relative, axis1=1, axis2=2)))
    return float(np.degrees(np.arctan2(sine[best], cosine)))


def orientation_matrix(transform: Float64Array) -> Float64Array:
    """Return the rotation nearest to a 3×3 transform; a left-handed one is inverted first."""
    if np.linalg.det(transform) < 0:
        transform = -transform
    u, _, vt = np.linalg.svd(transform)
    rotation: Float64Array = np.asarray(u @ vt, dtype=np.float64)
    return rotation


def strain_basis(cell: UnitCell) -> Float64Array:
    """Return an orthonormal basis, (k, 3, 3), of the symmetric strains that keep the lattice's symmetry.

    k is 1 (cubic), 2 (uniaxial), 3 (orthorhombic), 4 (monoclinic) or 6 (triclinic). The declared lattice type is
    not consulted: the metric is, so that a pseudo-symmetric cell is restrained to what it looks like.
    """
    operators = rotation_operators(cell)
    units = [np.zeros((3, 3)) for _ in range(6)]
    for unit, (i, j) in zip(units, ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)), strict=True):
        unit[i, j] = unit[j, i] = 1.0
    averaged = [np.mean(operators @ unit @ np.swapaxes(operators, 1, 2), axis=0).ravel() for unit in units]
    _, values, vt = np.linalg.svd(np.array(averaged), full_matrices=False)
    basis: Float64Array = np.asarray(vt[values > 1e-6].reshape(-1, 3, 3), dtype=np.float64)
    return basis


def systematically_absent(h: Float64Array, centering: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return which Miller indices, (n, 3), the centring forbids."""
    i, j, k = np.asarray(h, dtype=np.int64).T
    rules = {
        "A": (j + k) % 2 != 0,
        "B": (i + k) % 2 != 0,
        "C": (i + j) % 2 != 0,
        "I": (i + j + k) % 2 != 0,
        "F": ((i + j) % 2 != 0) | ((j + k) % 2 != 0),
        "H": (-i + j + k) % 3 != 0,
    }
    absent: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = rules.get(
        centering, np.zeros(len(i), dtype=bool)
    )
    return absent
