"""Unit cells on disk and as matrices.

The crystal frame is gemmi's (PDB convention): **a** along x, **b** in the xy plane. The columns of
``reciprocal_matrix`` are **a***, **b***, **c*** in Å⁻¹ without 2π; its inverse has the real axes as rows.
"""

import math
from pathlib import Path

import gemmi
import numpy as np

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.errors import CellError
from peaknet_pipeline.indexing.cell_formats import HEADER, SHORT_NAMES, parse_cell
from peaknet_pipeline.indexing.cell_lattice import CENTERINGS, LATTICE_TYPES, name_lattice, settle_lattice
from peaknet_pipeline.text_files import read_text
from peaknet_pipeline.types import Float64Array, UnitCell

MAX_FILE_BYTES = 50_000_000


def read_cell(path: Path | str) -> UnitCell:
    """Read a unit cell from a CrystFEL ``.cell`` file, the CRYST1 record of a PDB file, or a CIF.

    Lattice type, centring and unique axis are CrystFEL's, whatever the file calls them.

    Raises
    ------
    CellError
        The file is missing, no text, incomplete, describes an impossible cell, or one that contradicts itself.

    """
    path = Path(path)
    text = read_text(
        path,
        kind="cell file",
        error=CellError,
        max_bytes=MAX_FILE_BYTES,
        remedy="Give a CrystFEL .cell, a PDB or a CIF file.",
    )
    return settle_lattice(check_cell(parse_cell(text, path), where=path), where=path)


def write_cell(cell: UnitCell, path: Path | str, *, made_by: str = "") -> None:
    """Write a CrystFEL ``.cell`` file, atomically; ``made_by`` becomes a comment below its first line."""
    first, _, rest = cell_text(cell).partition("\n")
    comment = f"; made by {made_by}\n" if made_by else ""
    write_file(Path(path), f"{first}\n{comment}{rest}")


def cell_text(cell: UnitCell) -> str:
    """Return the text of a CrystFEL ``.cell`` file, version 1.0, in CrystFEL's words for lattice type and unique axis."""
    cell = name_lattice(cell)
    lines = [f"{HEADER} 1.0", "", f"lattice_type = {cell.lattice_type}", f"centering = {cell.centering}"]
    if cell.unique_axis in ("a", "b", "c"):
        lines.append(f"unique_axis = {cell.unique_axis}")
    lines.append("")
    for short, name in SHORT_NAMES.items():
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
