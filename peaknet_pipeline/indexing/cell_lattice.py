"""Which lattice types, centrings, unique axes, lengths and angles go together, as CrystFEL's ``cell_tool`` checks it.

A lattice of R type has two settings. On its own axes (a = b = c, equal angles) it is *rhombohedral R* and primitive; on
hexagonal axes (a = b, γ = 120°) it is *hexagonal H*, with three lattice points a cell in the obverse setting.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from peaknet_pipeline.errors import CellError
from peaknet_pipeline.types import UnitCell

LATTICE_TYPES = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "rhombohedral",
    "hexagonal",
    "cubic",
)
"""CrystFEL's names of the lattice types."""

CENTERINGS = ("P", "A", "B", "C", "I", "F", "R", "H")
"""CrystFEL's centrings: R is rhombohedral on its own axes, H the obverse hexagonal setting of it."""

IN_USE: Mapping[str, str] = {
    "triclinic": "P",
    "monoclinic": "PABCI",
    "orthorhombic": "PABCIF",
    "tetragonal": "PI",
    "rhombohedral": "PR",
    "hexagonal": "PH",
    "cubic": "PIF",
}
"""Centrings that make a Bravais lattice of each type; of A, B and C a monoclinic lattice takes not its unique axis's."""

UNIQUE: Mapping[str, str] = {"monoclinic": "bca", "tetragonal": "cab", "hexagonal": "cab"}
"""Lattice types with a unique axis, and the order in which one is chosen where the numbers allow several."""

LENGTH_TOLERANCE = 0.02
"""Relative difference up to which two axes count as equal: refined and averaged cells are never exact."""

ANGLE_TOLERANCE_DEG = 2.0


def settle_lattice(cell: UnitCell, *, where: Path | str | None = None) -> UnitCell:
    """Return the cell as `name_lattice` names it, or refuse it.

    Raises
    ------
    CellError
        Lattice type, centring, unique axis, lengths and angles contradict each other.

    """
    if cell.unique_axis not in ("*", "a", "b", "c"):
        raise CellError("unknown unique axis", where=where, expected="a, b or c", found=cell.unique_axis)
    named = name_lattice(cell)
    lattice, axis = named.lattice_type, named.unique_axis
    if named.centering not in IN_USE[lattice]:
        raise _unused_centering(named, where)
    if named.centering == axis.upper() or (named.centering == "H" and axis != "c"):
        expected = "unique axis c" if named.centering == "H" else "a centring of another face"
        raise CellError(
            f"{lattice} {named.centering} with unique axis {axis} is no Bravais lattice",
            where=where, expected=expected, found=f"centering = {named.centering}, unique_axis = {axis}",
        )  # fmt: skip
    wrong = shape_problems(named, lattice, axis)
    if wrong:
        raise _contradiction(named, wrong, where)
    return named


def name_lattice(cell: UnitCell) -> UnitCell:
    """Return the cell in CrystFEL's words: with a unique axis where its lattice type has one, else without.

    A rhombohedral lattice with centring H becomes hexagonal. A unique axis that isn't given follows from lengths and angles.
    """
    lattice = cell.lattice_type
    if (lattice, cell.centering) == ("rhombohedral", "H"):
        lattice = "hexagonal"
    axis = cell.unique_axis if lattice in UNIQUE else "*"
    if axis == "*" and lattice in UNIQUE:
        fitting = [axis for axis in UNIQUE[lattice] if not shape_problems(cell, lattice, axis)]
        axis = fitting[0] if fitting else UNIQUE[lattice][0]
    return replace(cell, lattice_type=lattice, unique_axis=axis)


def shape_problems(cell: UnitCell, lattice: str, axis: str = "*") -> list[str]:
    """Return which of a lattice type's equalities the lengths and angles break, in words; empty where they fit."""
    lengths = dict(zip("abc", (cell.a, cell.b, cell.c), strict=True))
    angles = dict(zip("abc", (cell.alpha, cell.beta, cell.gamma), strict=True))
    greek = dict(zip("abc", "αβγ", strict=True))
    others = [name for name in "abc" if name != axis]
    equal = {
        "cubic": ["a", "b", "c"],
        "rhombohedral": ["a", "b", "c"],
        "tetragonal": others,
        "hexagonal": others,
    }
    same = equal.get(lattice, [])
    problems = []
    if same and max(lengths[n] for n in same) > (1 + LENGTH_TOLERANCE) * min(lengths[n] for n in same):
        problems.append(" = ".join(same))
    if lattice == "rhombohedral" and max(angles.values()) - min(angles.values()) > ANGLE_TOLERANCE_DEG:
        problems.append("α = β = γ")
    for name, angle in _fixed_angles(lattice, axis).items():
        if abs(angles[name] - angle) > ANGLE_TOLERANCE_DEG:
            problems.append(f"{greek[name]} = {angle:g}°")
    return problems


def _fixed_angles(lattice: str, axis: str) -> dict[str, float]:
    """Return the angles that a lattice type fixes, by the axis that each stands opposite to."""
    if lattice in ("triclinic", "rhombohedral"):
        return {}
    angles = dict.fromkeys("abc", 90.0)
    if lattice == "hexagonal":
        angles[axis] = 120.0
    if lattice == "monoclinic":
        del angles[axis]
    return angles


def _unused_centering(cell: UnitCell, where: Path | str | None) -> CellError:
    lattice, remedy = cell.lattice_type, None
    if cell.centering == "R":
        remedy = (
            "R is for rhombohedral axes; on hexagonal axes write lattice_type = hexagonal, centering = H."
        )
    return CellError(
        f"{lattice} {cell.centering} is no Bravais lattice",
        where=where,
        expected=f"one of {', '.join(IN_USE[lattice])} with a {lattice} lattice",
        found=cell.centering,
        remedy=remedy,
    )


def _contradiction(cell: UnitCell, wrong: list[str], where: Path | str | None) -> CellError:
    lattice, axis = cell.lattice_type, cell.unique_axis
    other = [a for a in UNIQUE.get(lattice, "") if a != axis and not shape_problems(cell, lattice, a)]
    remedy = f"unique_axis = {other[0]} fits." if other else "Check the lattice type."
    if lattice == "rhombohedral" and not shape_problems(cell, "hexagonal", "c"):
        remedy = "On hexagonal axes write lattice_type = hexagonal, centering = H, unique_axis = c."
    unique = f" with unique axis {axis}" if axis != "*" else ""
    return CellError(
        f"a {lattice} cell{unique} has other lengths and angles",
        where=where,
        expected=", ".join(wrong),
        found=f"{cell.a:g} {cell.b:g} {cell.c:g} Å, {cell.alpha:g} {cell.beta:g} {cell.gamma:g}°",
        remedy=remedy,
    )
