"""Which reflections are the same one: asymmetric unit, settings that a lattice cannot tell apart, what is possible."""

from dataclasses import dataclass

import gemmi
import numba
import numpy as np

from peaknet_pipeline.errors import CellError
from peaknet_pipeline.types import Float64Array, IntArray, UnitCell

OFFSET = 1024
"""Added to Miller indices before they are packed into one number; indices reach from −1,023 to 1,023."""

MAX_OBLIQUITY_DEG = 1.0
"""Le Page obliquity up to which a two-fold axis counts as one of the lattice's."""

HOLOHEDRIES = {
    "triclinic": "-1",
    "monoclinic": "2/m",
    "orthorhombic": "mmm",
    "tetragonal": "4/mmm",
    "rhombohedral": "-3m",
    "hexagonal": "6/mmm",
    "cubic": "m-3m",
}
"""The highest point group of each lattice type: what is assumed of crystals of which nothing else is known."""

SETTINGS = {"1": "P 1", "-1": "P -1", "2": "P 1 2 1", "2/m": "P 1 2/m 1", "m-3": "P m -3", "m-3m": "P m -3 m"}
"""Point groups, as CrystFEL writes them, whose space group gemmi doesn't find under the same name."""


@dataclass(frozen=True)
class Symmetry:
    """A crystal's symmetry, as far as merging needs it.

    Attributes
    ----------
    group : gemmi.SpaceGroup
    rotations : (n_ops, 3, 3) int64
        Operators on Miller indices (row vectors: h·R), Friedel's −1 among them unless mates are kept apart.
    settings : (n_settings, 3, 3) int64
        Ways to index the same lattice that the symmetry does not make equal; the identity first.

    """

    group: gemmi.SpaceGroup
    rotations: IntArray
    settings: IntArray


def find_symmetry(name: str, cell: UnitCell, *, friedel: bool = True) -> Symmetry:
    """Return the symmetry of a space group, or of a point group as CrystFEL names it (``4/mmm``).

    Parameters
    ----------
    name : str
    cell : UnitCell
        Tells which rotations the lattice has, and so whether there is an indexing ambiguity.
    friedel : bool
        Friedel mates are one reflection.

    Raises
    ------
    CellError
        The name is unknown, or the cell does not obey the symmetry.

    """
    group = _group(name, cell)
    real = gemmi.UnitCell(cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)
    if not real.is_compatible_with_spacegroup(group, 0.02):
        raise CellError("the cell does not obey the symmetry", where=name, expected=group.hm, found=cell)
    ops = group.operations()
    rotations = _unique([_rotation(op) for op in ops.sym_ops])
    if friedel:
        rotations = _unique([*rotations, *(-r for r in rotations)])
    return Symmetry(group, np.stack(rotations), _settings(real, group, rotations))


def _group(name: str, cell: UnitCell) -> gemmi.SpaceGroup:
    centring = {"H": "R"}.get(cell.centering, cell.centering)
    for trial in (name, SETTINGS.get(name, ""), f"{centring} {name}", f"{centring}{name}"):
        group = gemmi.find_spacegroup_by_name(trial, cell.alpha, cell.gamma) if trial else None
        if group is not None:
            return group
    raise CellError(
        "unknown symmetry",
        where="symmetry",
        expected="a space group, such as P43212, or a point group, such as 422 or 4/mmm",
        found=name,
    )


def _rotation(op: gemmi.Op) -> IntArray:
    return np.asarray(op.rot, dtype=np.int64) // gemmi.Op.DEN


def _unique(matrices: list[IntArray]) -> list[IntArray]:
    seen = {matrix.tobytes(): matrix for matrix in matrices}
    return list(seen.values())


def _settings(cell: gemmi.UnitCell, group: gemmi.SpaceGroup, rotations: list[IntArray]) -> IntArray:
    """Return one operator per coset of the crystal's rotations in its lattice's: what indexing may confuse."""
    own = {matrix.tobytes() for r in rotations for matrix in (r, -r)}
    settings = [np.eye(3, dtype=np.int64)]
    for op in gemmi.find_twin_laws(cell, group, MAX_OBLIQUITY_DEG, True):
        matrix = _rotation(op)
        known = [(matrix @ np.rint(np.linalg.inv(s)).astype(np.int64)).tobytes() in own for s in settings]
        if not any(known):
            settings.append(matrix)
    return np.stack(settings)


def asymmetric_keys(hkl: IntArray, rotations: IntArray) -> IntArray:
    """Return one number per reflection, (n,) int64, the same for equivalent ones; see :func:`indices_of`.

    Parameters
    ----------
    hkl : (n, 3) int
    rotations : (n_ops, 3, 3) int64

    Raises
    ------
    CellError
        An index lies beyond ±1,023.

    """
    if hkl.size and np.abs(hkl).max() >= OFFSET:
        raise CellError("a Miller index is too large", expected=f"< {OFFSET}", found=int(np.abs(hkl).max()))
    return _highest_keys(np.ascontiguousarray(hkl, dtype=np.int64), rotations)


@numba.njit(cache=True, nogil=True)
def _highest_keys(hkl: IntArray, rotations: IntArray) -> IntArray:
    keys = np.empty(len(hkl), dtype=np.int64)
    for i in range(len(hkl)):
        best = -1
        for r in rotations:
            key = 0
            for j in range(3):
                value = hkl[i, 0] * r[0, j] + hkl[i, 1] * r[1, j] + hkl[i, 2] * r[2, j]
                key = (key << 11) | (value + 1024)
            best = max(best, key)
        keys[i] = best
    return keys


def indices_of(keys: IntArray) -> IntArray:
    """Return the Miller indices, (n, 3), that the keys stand for."""
    return np.stack([(keys >> shift & 2047) - OFFSET for shift in (22, 11, 0)], axis=1)


def inverse_spacing(hkl: IntArray, cell: UnitCell) -> Float64Array:
    """Return 1/d, (n,), Å⁻¹."""
    real = gemmi.UnitCell(cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)
    fractional = np.asarray(real.frac.mat.tolist(), dtype=np.float64)
    return np.asarray(np.linalg.norm(hkl @ fractional, axis=1), dtype=np.float64)


def possible_keys(cell: UnitCell, symmetry: Symmetry, *, max_inv_d: float) -> IntArray:
    """Return the keys of all unique reflections up to a resolution, without systematic absences, sorted."""
    real = gemmi.UnitCell(cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)
    hkl = np.asarray(
        gemmi.make_miller_array(real, symmetry.group, 1.0 / max_inv_d, 0.0, True), dtype=np.int64
    )
    ops = symmetry.group.operations()
    hkl = hkl[~np.asarray(ops.systematic_absences(hkl.astype(np.int32)), dtype=bool)]
    keys = asymmetric_keys(np.concatenate([hkl, -hkl]), symmetry.rotations)
    return np.unique(keys)


def epsilon_factors(hkl: IntArray, symmetry: Symmetry) -> Float64Array:
    """Return how much stronger than average a reflection is by its symmetry, (n,)."""
    ops = symmetry.group.operations()
    return np.asarray(ops.epsilon_factor_without_centering_array(hkl.astype(np.int32)), dtype=np.float64)
