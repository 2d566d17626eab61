"""From a primitive basis to the conventional cell of its Bravais lattice."""

import itertools

import gemmi
import numpy as np

from peaknet_pipeline.errors import CellError
from peaknet_pipeline.indexing.cell_lattice import settle_lattice
from peaknet_pipeline.indexing.symmetry import reduce_basis
from peaknet_pipeline.types import BoolArray, Float64Array, UnitCell

SYSTEM_OF_ORDER = {
    1: "triclinic",
    2: "monoclinic",
    4: "orthorhombic",
    6: "rhombohedral",
    8: "tetragonal",
    12: "hexagonal",
    24: "cubic",
}
"""The lattice's system from the number of its proper rotations."""

_CENTRING_POINTS = {
    "A": (0.0, 0.5, 0.5),
    "B": (0.5, 0.0, 0.5),
    "C": (0.5, 0.5, 0.0),
    "I": (0.5, 0.5, 0.5),
    "H": (2 / 3, 1 / 3, 1 / 3),
}


def conventional_cell(
    rows: Float64Array, *, max_obliquity_deg: float = 1.5, length_tolerance: float = 0.02
) -> UnitCell:
    """Return the conventional cell of a lattice given by a primitive real basis, (3, 3) rows, Å.

    The system is that of the highest metric symmetry within the obliquity (Le Page 1982, by gemmi); the cell is the smallest
    one with the system's angles and equal lengths whose axes lie along the lattice's rotation axes. Lengths and angles
    are averaged to obey the system exactly.

    Raises
    ------
    CellError
        No such cell is found, which means a basis far from any lattice.

    """
    rows = reduce_basis(rows)
    order = _symmetry_order(rows, max_obliquity_deg)
    system = SYSTEM_OF_ORDER[order]
    if system == "triclinic":
        return _cell(_niggli(rows), system, "P")
    angle = np.radians(2.0 * max_obliquity_deg)
    for basis, n_points in _bases(rows, system, angle, length_tolerance):
        centering = _centering(basis, rows, n_points)
        if centering is not None:
            return _cell(basis, system, centering)
    raise CellError(f"no conventional {system} cell", found=np.round(rows, 3).tolist())


def _symmetry_order(rows: Float64Array, max_obliquity_deg: float) -> int:
    cell = gemmi.UnitCell(*_parameters(rows))
    return len(gemmi.find_lattice_symmetry(cell, "P", max_obliquity_deg).sym_ops)


def _parameters(rows: Float64Array) -> list[float]:
    lengths = np.linalg.norm(rows, axis=1)
    unit = rows / lengths[:, None]
    cosines = np.clip([unit[1] @ unit[2], unit[2] @ unit[0], unit[0] @ unit[1]], -1.0, 1.0)
    return [float(v) for v in (*lengths, *np.degrees(np.arccos(cosines)))]


def _niggli(rows: Float64Array) -> Float64Array:
    vector = gemmi.GruberVector(gemmi.UnitCell(*_parameters(rows)), "P")
    vector.niggli_reduce()
    cell = vector.get_cell()
    return np.array(cell.orth.mat.tolist(), dtype=np.float64).T


def _bases(
    rows: Float64Array, system: str, angle: float, length_tolerance: float
) -> list[tuple[Float64Array, int]]:
    """Return bases (rows) with the system's shape and the lattice points they hold, smallest and shortest first."""
    steps = np.array([s for s in itertools.product(range(-2, 3), repeat=3) if any(s)], dtype=np.float64)
    vectors = steps @ rows
    lengths = np.linalg.norm(vectors, axis=1)
    cosine = (vectors @ vectors.T) / np.outer(lengths, lengths)
    square = np.abs(cosine) < np.sin(angle)
    equal = np.abs(np.log(lengths[:, None] / lengths[None, :])) < length_tolerance
    wide = np.abs(cosine + 0.5) < np.sin(angle)
    pairs = {
        "cubic": square & equal,
        "tetragonal": square & equal,
        "hexagonal": wide & equal,
        "rhombohedral": wide & equal,
        "orthorhombic": square & (lengths[:, None] <= lengths[None, :]),
        "monoclinic": square,
    }[system]
    found = []
    for i, j in np.argwhere(pairs):
        for k in np.flatnonzero(_third(system, i, j, square, equal, cosine, lengths)):
            volume = float(np.linalg.det(steps[[i, j, k]]))
            if 0.5 < volume < 4.5:
                found.append(
                    (round(volume), round(float(lengths[[i, j, k]].sum()), 3), (int(i), int(j), int(k)))
                )
    return [(vectors[list(which)], n) for n, _, which in sorted(found)]


def _third(
    system: str,
    i: int,
    j: int,
    square: BoolArray,
    equal: BoolArray,
    cosine: Float64Array,
    lengths: Float64Array,
) -> BoolArray:
    """Return which vectors can be the third axis: **c**, or for monoclinic (a, b found) again **c** in **b**'s plane."""
    if system == "monoclinic":
        return np.asarray(square[j] & (cosine[i] <= 1e-9) & (cosine[i] > -0.6), dtype=np.bool_)
    third = square[i] & square[j]
    if system == "cubic":
        third = third & equal[i]
    if system == "orthorhombic":
        third = third & (lengths >= lengths[j])
    return np.asarray(third, dtype=np.bool_)


def _centering(basis: Float64Array, rows: Float64Array, n_points: int) -> str | None:
    """Return the centring letter of a basis that holds n lattice points; None when it is none that is in use."""
    if n_points == 1:
        return "P"
    grid = np.array(list(itertools.product(range(-3, 4), repeat=3)), dtype=np.float64)
    fraction = (grid @ rows) @ np.linalg.inv(basis)
    inside = {tuple(np.round(f % 1.0, 3) % 1.0) for f in fraction}
    names = [
        name
        for name, point in _CENTRING_POINTS.items()
        if any(np.abs((np.array(p) - point + 0.5) % 1.0 - 0.5).max() < 0.02 for p in inside)
    ]
    if n_points == 4 and {"A", "B", "C"} <= set(names):
        return "F"
    if n_points == 2 and len(names) == 1 and names[0] != "H":
        return names[0]
    return "H" if n_points == 3 and names == ["H"] else None


def _cell(basis: Float64Array, system: str, centering: str) -> UnitCell:
    a, b, c, alpha, beta, gamma = _parameters(basis)
    if system == "cubic":
        a = b = c = (a * b * c) ** (1 / 3)
    elif system in ("tetragonal", "hexagonal", "rhombohedral"):
        a = b = (a * b) ** 0.5
    if system == "monoclinic":
        alpha = gamma = 90.0
    elif system != "triclinic":
        alpha = beta = 90.0
        gamma = 120.0 if system in ("hexagonal", "rhombohedral") else 90.0
    return settle_lattice(UnitCell(a, b, c, alpha, beta, gamma, system, centering))
