"""The texts in which unit cells are found: CrystFEL's ``.cell``, PDB files and CIF."""

import math
import re
from pathlib import Path

import gemmi

from peaknet_pipeline.errors import CellError
from peaknet_pipeline.types import UnitCell

HEADER = "CrystFEL unit cell file version"
SHORT_NAMES = {"a": "a", "b": "b", "c": "c", "al": "alpha", "be": "beta", "ga": "gamma"}
"""The names of lengths and angles in a ``.cell`` file."""

_TEXT_KEYS = ("lattice_type", "centering", "unique_axis")
_UNITS = {"A": 1.0, "nm": 10.0, "deg": 1.0, "rad": 180.0 / math.pi}
_COLUMNS = ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))
"""Columns of the numbers in a CRYST1 record, which may touch."""

_CIF_NAMES = [f"length_{n}" for n in "abc"] + [f"angle_{n}" for n in ("alpha", "beta", "gamma")]
_CIF_GROUPS = (
    "_symmetry.space_group_name_H-M", "_space_group.name_H-M_full", "_space_group.name_H-M_alt",
    "_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt", "_space_group_name_H-M_full",
)  # fmt: skip


def parse_cell(text: str, path: Path) -> UnitCell:
    """Return the cell that a text describes, as it says; :mod:`.cell_lattice` tells whether its parts go together.

    Raises
    ------
    CellError
        The text is none of the three, incomplete, or names no known space group.

    """
    lines = text.split("\n")
    record = next((line for line in lines if line.startswith("CRYST1")), None)
    if record is not None:
        return _from_cryst1(record, path)
    if any(line.lower().startswith("data_") for line in lines):
        return _from_cif(text, path)
    return _from_cell_file(text, path)


def _from_cell_file(text: str, path: Path) -> UnitCell:
    if not text.lstrip().startswith(HEADER):
        raise CellError(
            "not a unit cell file",
            where=path,
            expected=f"a first line '{HEADER} 1.0', a CRYST1 record, or a CIF",
            found=text[:40].strip() or "nothing",
        )
    values: dict[str, str] = {}
    for line in text.split("\n")[1:]:
        name, separator, value = line.split(";")[0].partition("=")
        if separator:
            values[name.strip()] = value.strip()
    missing = [name for name in ("lattice_type", "centering", *SHORT_NAMES) if name not in values]
    if missing:
        raise CellError("incomplete cell", where=path, found=f"no {', '.join(missing)}")
    lattice_type, centering, unique = (values.get(key, "*").replace("?", "*") for key in _TEXT_KEYS)
    a, b, c, alpha, beta, gamma = (_quantity(short, values[short], path) for short in SHORT_NAMES)
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
    """Read a CRYST1 record by its columns, or, where they hold no numbers, by its words."""
    words = line[6:].split()
    by_words = [" ".join(words[6:]), " ".join(words[6:-1])]  # the number of chains may follow
    for numbers, names in (
        ([line[first:last] for first, last in _COLUMNS], [line[55:66]]),
        (words[:6], by_words),
    ):
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            continue
        if len(values) == 6:
            return _of_space_group(values, names, path)
    raise CellError("malformed CRYST1 record", where=path, found=line.strip())


def _from_cif(text: str, path: Path) -> UnitCell:
    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise CellError(f"not readable as CIF ({str(error)[:200]})", where=path) from error
    for block in document:
        for separator in (".", "_"):
            found = [block.find_value(f"_cell{separator}{name}") for name in _CIF_NAMES]
            if all(found):
                values = [gemmi.cif.as_number(value) for value in found]
                names = [gemmi.cif.as_string(block.find_value(tag) or "") for tag in _CIF_GROUPS]
                return _of_space_group(values, names, path)
    raise CellError("no unit cell in the CIF", where=path, expected="_cell.length_a and the others")


def _of_space_group(values: list[float], names: list[str], path: Path) -> UnitCell:
    """Return the cell with the lattice type and centring of its space group, the first of the names that is known."""
    a, b, c, alpha, beta, gamma = values
    names = [name.strip() for name in names if name.strip() not in ("", "?", ".")]
    groups = [gemmi.find_spacegroup_by_name(name, alpha, gamma) for name in names]
    group = next((g for g in groups if g is not None), None)
    if group is None:
        raise CellError(
            "no known space group, which tells lattice type and centring",
            where=path, found=names[0] if names else "none", remedy="Name it, or write the cell as a CrystFEL .cell file.",
        )  # fmt: skip
    lattice, centering = _lattice_of(group)
    unique = group.monoclinic_unique_axis() if lattice == "monoclinic" else "*"
    tilted = [axis for axis, angle in zip("abc", values[3:], strict=True) if abs(angle - 90.0) > 0.05]
    # As CrystFEL does, the axis follows the angles where they tell: names such as P 21 leave it open.
    unique = tilted[0] if lattice == "monoclinic" and len(tilted) == 1 else unique
    return UnitCell(a, b, c, alpha, beta, gamma, lattice, centering, unique)


def _lattice_of(group: gemmi.SpaceGroup) -> tuple[str, str]:
    """Return CrystFEL's lattice type and centring; R groups by their setting, which the angles have chosen."""
    system = group.crystal_system_str()
    if system != "trigonal":
        return system, group.centring_type()
    settings = {"H": ("hexagonal", "H"), "R": ("rhombohedral", "R")}
    return settings.get(group.ext, ("hexagonal", "P"))
