"""Unit cells on disk and as matrices.

The crystal frame is gemmi's (PDB convention): **a** along x, **b** in the xy plane. The columns of
``reciprocal_matrix`` are **a***, **b***, **c*** in Å⁻¹ without 2π; its inverse has the real axes as rows.
"""

import math
import re
from pathlib import Path

import gemmi
import numpy as np

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.errors import CellError
from peaknet_pipeline.text_files import read_text
from peaknet_pipeline.types import Float64Array, UnitCell

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

_NAMES = {"a": "a", "b": "b", "c": "c", "al": "alpha", "be": "beta", "ga": "gamma"}
_TEXT_KEYS = ("lattice_type", "centering", "unique_axis")
_HEADER = "CrystFEL unit cell file version"
_UNITS = {"A": 1.0, "nm": 10.0, "deg": 1.0, "rad": 180.0 / math.pi}
MAX_FILE_BYTES = 50_000_000


def read_cell(path: Path | str) -> UnitCell:
    """Read a unit cell from a CrystFEL ``.cell`` file or from the CRYST1 record of a PDB file.

    Raises
    ------
    CellError
        The file is missing, no text, incomplete, or describes an impossible cell.

    """
    path = Path(path)
    text = read_text(
        path,
        kind="cell file",
        error=CellError,
        max_bytes=MAX_FILE_BYTES,
        remedy="Give a CrystFEL .cell or a PDB file.",
    )
    line = next((t for t in text.splitlines() if t.startswith("CRYST1")), None)
    cell = _from_cryst1(line, path) if line is not None else _from_cell_file(text, path)
    return check_cell(cell, where=path)


def write_cell(cell: UnitCell, path: Path | str, *, made_by: str = "") -> None:
    """Write a CrystFEL ``.cell`` file, atomically; ``made_by`` becomes a comment below its first line."""
    first, _, rest = cell_text(cell).partition("\n")
    comment = f"; made by {made_by}\n" if made_by else ""
    write_file(Path(path), f"{first}\n{comment}{rest}")


def cell_text(cell: UnitCell) -> str:
    """Return the text of a CrystFEL ``.cell`` file, version 1.0."""
    lines = [f"{_HEADER} 1.0", "", f"lattice_type = {cell.lattice_type}", f"centering = {cell.centering}"]
    if cell.unique_axis in ("a", "b", "c"):
        lines.append(f"unique_axis = {cell.unique_axis}")
    lines.append("")
    for short, name in _NAMES.items():
        lines.append(f"{short} = {getattr(cell, name):.6g} {'A' if short in 'abc' else 'deg'}")
    return "\n".join(lines) + "\n"


def check_cell(cell: UnitCell, *, where: Path | str | None = None) -> UnitCell:
    """Return ``cell``, or raise CellError when no lattice can have it."""
    lengths, angles = (cell.a, cell.b, cell.c), (cell.alpha, cell.beta, cell.gamma)
    if not all(math.isfinite(v) for v in lengths + angles):
        raise CellError("not a finite cell", where=where, found=lengths + angles)
    if min(lengths) <= 1.0 or max(lengths) > 10_000.0:
        raise CellError("axis length out of range", where=where, expected="1 … 10,000 Å", found=lengths)
    cos = [math.cos(math.radians(v)) for v in angles]
    squared = 1.0 - sum(v * v for v in cos) + 2.0 * cos[0] * cos[1] * cos[2]
    if min(angles) <= 0.0 or max(angles) >= 180.0 or squared <= 1e-4:
        raise CellError("the angles span no volume", where=where, found=angles)
    if cell.lattice_type not in LATTICE_TYPES:
        raise CellError("unknown lattice type", where=where, expected=LATTICE_TYPES, found=cell.lattice_type)
    if cell.centering not in CENTERINGS:
        raise CellError("unknown centring", where=where, expected=CENTERINGS, found=cell.centering)
    return cell


def reciprocal_matrix(cell: UnitCell) -> Float64Array:
    """Return B, (3, 3), Å⁻¹: columns **a***, **b***, **c*** of the conventional cell in the crystal frame."""
    real = gemmi.UnitCell(cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)
    matrix: Float64Array = np.array(real.frac.mat.tolist(), dtype=np.float64).T
    return matrix


def cell_from_axes(axes: Float64Array, *, like: UnitCell | None = None) -> UnitCell:
    """Return the cell of a reciprocal basis, (3, 3), Å⁻¹, columns **a***, **b***, **c***, in any frame.

    Lattice type, centring and unique axis are copied from ``like``.
    """
    rows = np.linalg.inv(np.asarray(axes, dtype=np.float64))
    lengths = np.linalg.norm(rows, axis=1)
    unit = rows / lengths[:, None]
    cosines = (unit[1] @ unit[2], unit[2] @ unit[0], unit[0] @ unit[1])
    angles = [math.degrees(math.acos(min(1.0, max(-1.0, float(v))))) for v in cosines]
    kind = (like.lattice_type, like.centering, like.unique_axis) if like else ("triclinic", "P", "*")
    a, b, c = (float(v) for v in lengths)
    return UnitCell(a, b, c, angles[0], angles[1], angles[2], *kind)


def _from_cell_file(text: str, path: Path) -> UnitCell:
    if not text.lstrip().startswith(_HEADER):
        raise CellError(
            "not a unit cell file",
            where=path,
            expected=f"a first line '{_HEADER} 1.0', or a CRYST1 record",
            found=text[:40].strip() or "nothing",
        )
    values: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        name, separator, value = line.split(";")[0].partition("=")
        if separator:
            values[name.strip()] = value.strip()
    missing = [name for name in ("lattice_type", "centering", *_NAMES) if name not in values]
    if missing:
        raise CellError("incomplete cell", where=path, found=f"no {', '.join(missing)}")
    lattice_type, centering, unique = (values.get(key, "*").replace("?", "*") for key in _TEXT_KEYS)
    a, b, c, alpha, beta, gamma = (_quantity(short, values[short], path) for short in _NAMES)
    return UnitCell(a, b, c, alpha, beta, gamma, lattice_type, centering, unique)


def _quantity(name: str, text: str, path: Path) -> float:
    match = re.fullmatch(r"([-+.\deE]+)\s*(\w+)?", text)
    try:
        if match is None:
            raise ValueError
        return float(match[1]) * _UNITS[match[2] or ("A" if name in "abc" else "deg")]
    except (ValueError, KeyError) as error:
        raise CellError(
            f"cannot read {name}", where=path, expected="a number and A, nm, deg or rad", found=text
        ) from error


def _from_cryst1(line: str, path: Path) -> UnitCell:
    try:
        numbers = [float(v) for v in line[6:54].split()[:6]]
        if len(numbers) != 6:
            raise ValueError
    except ValueError as error:
        raise CellError("malformed CRYST1 record", where=path, found=line.strip()) from error
    group = gemmi.find_spacegroup_by_name(line[55:66].strip(), numbers[3], numbers[5])
    system = group.crystal_system_str() if group else "triclinic"
    centering = group.centring_type() if group else "P"
    if group is not None and group.ext == "H":
        centering = "H"
    kinds = {"trigonal": "rhombohedral" if centering in "RH" else "hexagonal"}
    unique = {"monoclinic": "b", "tetragonal": "c", "trigonal": "c", "hexagonal": "c"}.get(system, "*")
    a, b, c, alpha, beta, gamma = numbers
    return UnitCell(a, b, c, alpha, beta, gamma, kinds.get(system, system), centering, unique)
