"""Cells from .cell, PDB and CIF files obey CrystFEL's rules, and what contradicts itself is refused with the way out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import CellError
from peaknet_pipeline.indexing.cell import read_cell, write_cell
from peaknet_pipeline.indexing.cell_lattice import CENTERINGS, LATTICE_TYPES, settle_lattice
from peaknet_pipeline.types import UnitCell

SHAPES = {
    "triclinic": (40, 50, 60, 75, 82, 95),
    "monoclinic": (40, 50, 60, 90, 105, 90),
    "orthorhombic": (40, 50, 60, 90, 90, 90),
    "tetragonal": (79.1, 79.1, 37.9, 90, 90, 90),
    "rhombohedral": (60, 60, 60, 75, 75, 75),
    "hexagonal": (80, 80, 120, 90, 90, 120),
    "cubic": (78, 78, 78, 90, 90, 90),
}


def is_bravais(cell: UnitCell) -> bool:
    """CrystFEL's rule, with its words: which lattice, centring and unique axis make a Bravais lattice."""
    lattice, centering, axis = cell.lattice_type, cell.centering, cell.unique_axis
    named = lattice in ("monoclinic", "tetragonal", "hexagonal")
    if named != (axis in ("a", "b", "c")):
        return False
    if centering in "ABC":
        return lattice == "orthorhombic" or (lattice == "monoclinic" and centering != axis.upper())
    rules = {
        "P": True,
        "I": lattice in ("monoclinic", "orthorhombic", "tetragonal", "cubic"),
        "F": lattice in ("orthorhombic", "cubic"),
        "H": lattice == "hexagonal" and axis == "c",
        "R": lattice == "rhombohedral",
    }
    return rules[centering]


def cell_file(path, lattice, centering, numbers, unique=None):
    names = ("a", "b", "c", "al", "be", "ga")
    lines = [f"lattice_type = {lattice}", f"centering = {centering}"]
    lines += [f"unique_axis = {unique}"] if unique else []
    units = ("A",) * 3 + ("deg",) * 3
    lines += [f"{n} = {v} {u}" for n, v, u in zip(names, numbers, units, strict=True)]
    path.write_text("CrystFEL unit cell file version 1.0\n" + "\n".join(lines))
    return path


def kind(cell):
    return cell.lattice_type, cell.centering, cell.unique_axis


@settings(deadline=None)
@given(
    lattice=st.sampled_from(LATTICE_TYPES), centering=st.sampled_from(CENTERINGS),
    shape=st.sampled_from(sorted(SHAPES)), unique=st.sampled_from(["*", "a", "b", "c"]),
)  # fmt: skip
def test_whatever_is_accepted_is_a_bravais_lattice_of_crystfel(lattice, centering, shape, unique):
    try:
        cell = settle_lattice(UnitCell(*SHAPES[shape], lattice, centering, unique))
    except CellError:
        return
    assert is_bravais(cell)
    assert settle_lattice(cell) == cell


@pytest.mark.parametrize("lattice", LATTICE_TYPES)
def test_every_lattice_type_is_accepted_with_its_own_shape_and_kept_when_written(lattice, tmp_path):
    for centering in "PABCIFRH":
        given_cell = UnitCell(*SHAPES[lattice], lattice, centering)
        try:
            cell = settle_lattice(given_cell)
        except CellError:
            continue
        write_cell(given_cell, tmp_path / "a.cell")
        assert read_cell(tmp_path / "a.cell") == cell
    assert is_bravais(settle_lattice(UnitCell(*SHAPES[lattice], lattice, "P")))


@pytest.mark.parametrize(
    ("group", "numbers", "expected"),
    [
        ("P 43 21 2", (79.1, 79.1, 37.9, 90, 90, 90), ("tetragonal", "P", "c")),
        ("P 21 21 21", (40, 50, 60, 90, 90, 90), ("orthorhombic", "P", "*")),
        ("C 2 2 21", (40, 50, 60, 90, 90, 90), ("orthorhombic", "C", "*")),
        ("P 1 21 1", (40, 50, 60, 90, 105, 90), ("monoclinic", "P", "b")),
        ("P 21", (40, 50, 60, 90, 90, 105), ("monoclinic", "P", "c")),
        ("P 1 1 21", (40, 50, 60, 90, 90, 105), ("monoclinic", "P", "c")),
        ("I 1 21 1", (40, 50, 60, 90, 105, 90), ("monoclinic", "I", "b")),
        ("R 3 2", (80, 80, 120, 90, 90, 120), ("hexagonal", "H", "c")),
        ("H 3 2", (80, 80, 120, 90, 90, 120), ("hexagonal", "H", "c")),
        ("R 3", (60, 60, 60, 75, 75, 75), ("rhombohedral", "R", "*")),
        ("P 31 2 1", (80, 80, 120, 90, 90, 120), ("hexagonal", "P", "c")),
        ("P 63", (80, 80, 120, 90, 90, 120), ("hexagonal", "P", "c")),
        ("I 2 3", (78, 78, 78, 90, 90, 90), ("cubic", "I", "*")),
        ("F 4 3 2", (128, 128, 128, 90, 90, 90), ("cubic", "F", "*")),
        ("P 1", (40, 50, 60, 75, 82, 95), ("triclinic", "P", "*")),
    ],
)
def test_pdb_and_cif_give_crystfels_names(group, numbers, expected, tmp_path):
    lengths, angles = numbers[:3], numbers[3:]
    record = "CRYST1" + "".join(f"{v:9.3f}" for v in lengths) + "".join(f"{v:7.2f}" for v in angles)
    (tmp_path / "a.pdb").write_text(f"HEADER\n{record} {group:<11}   8\n")
    values = zip(
        ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"), numbers, strict=True
    )
    lines = [f"{name} {value}" for name, value in values]
    (tmp_path / "mm.cif").write_text(
        "data_x\n" + "".join(f"_cell.{ln}\n" for ln in lines) + f"_symmetry.space_group_name_H-M '{group}'\n"
    )
    (tmp_path / "small.cif").write_text(
        "data_x\n" + "".join(f"_cell_{ln}(3)\n" for ln in lines) + f"_space_group_name_H-M_alt '{group}'\n"
    )
    for name in ("a.pdb", "mm.cif", "small.cif"):
        cell = read_cell(tmp_path / name)
        assert kind(cell) == expected
        assert (cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma) == pytest.approx(numbers)
        assert is_bravais(cell)


@pytest.mark.parametrize("end", ["", "   8", " 8 "])
def test_a_record_out_of_its_columns_is_read_by_its_words(end, tmp_path):
    (tmp_path / "a.pdb").write_text(f"CRYST1 79.1 79.1 37.9 90 90 90 P 43 21 2{end}\n")
    assert kind(read_cell(tmp_path / "a.pdb")) == ("tetragonal", "P", "c")


@pytest.mark.parametrize(
    ("lattice", "centering", "numbers", "unique", "expected"),
    [
        ("tetragonal", "P", (37.9, 79.1, 79.1, 90, 90, 90), None, ("tetragonal", "P", "a")),
        ("tetragonal", "I", (79.3, 79.0, 37.9, 90, 90.4, 90), "c", ("tetragonal", "I", "c")),
        ("monoclinic", "C", (40, 50, 60, 90, 105, 90), None, ("monoclinic", "C", "b")),
        ("monoclinic", "P", (40, 50, 60, 90, 90, 105), "?", ("monoclinic", "P", "c")),
        ("orthorhombic", "F", (40, 50, 60, 90, 90, 90), "c", ("orthorhombic", "F", "*")),
        ("rhombohedral", "H", (80, 80, 120, 90, 90, 120), "c", ("hexagonal", "H", "c")),
        ("hexagonal", "P", (120, 80, 80, 120, 90, 90), None, ("hexagonal", "P", "a")),
    ],
)
def test_cell_files_are_named_as_crystfel_wants_them(lattice, centering, numbers, unique, expected, tmp_path):
    cell = read_cell(cell_file(tmp_path / "a.cell", lattice, centering, numbers, unique))
    assert kind(cell) == expected


@pytest.mark.parametrize(
    ("lattice", "centering", "numbers", "unique", "match"),
    [
        ("tetragonal", "P", (79.1, 37.9, 79.1, 90, 90, 90), "c", r"expected a = b.*unique_axis = b fits"),
        ("cubic", "P", (78, 78, 81, 90, 90, 90), None, r"a cubic cell.*expected a = b = c"),
        ("orthorhombic", "P", (40, 50, 60, 90, 95, 90), None, "expected β = 90°.*Check the lattice type"),
        ("monoclinic", "P", (40, 50, 60, 90, 90, 105), "b", "expected γ = 90°.*unique_axis = c fits"),
        ("hexagonal", "P", (80, 80, 120, 90, 90, 90), "c", "expected γ = 120°"),
        ("hexagonal", "R", (80, 80, 120, 90, 90, 120), "c", "no Bravais lattice.*centering = H"),
        ("rhombohedral", "R", (80, 80, 120, 90, 90, 120), None, "expected a = b = c.*centering = H"),
        ("hexagonal", "H", (120, 80, 80, 120, 90, 90), "a", "unique axis a is no Bravais lattice"),
        ("monoclinic", "B", (40, 50, 60, 90, 105, 90), "b", "unique axis b is no Bravais lattice"),
        ("tetragonal", "F", (79.1, 79.1, 37.9, 90, 90, 90), "c", "expected one of P, I"),
        ("triclinic", "C", (40, 50, 60, 75, 82, 95), None, "triclinic C is no Bravais lattice"),
        ("tetragonal", "P", (79.1, 79.1, 37.9, 90, 90, 90), "z", "unknown unique axis"),
    ],
)
def test_contradictions_are_refused_with_the_way_out(lattice, centering, numbers, unique, match, tmp_path):
    path = cell_file(tmp_path / "a.cell", lattice, centering, numbers, unique)
    with pytest.raises(CellError, match=match) as caught:
        read_cell(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("CRYST1   79.100   79.100   37.900  90.00  90.00  90.00\n", "no known space group"),
        ("CRYST1   79.100   79.100   37.900  90.00  90.00  90.00 P 9 9 9\n", "no known space group.*P 9 9 9"),
        ("CRYST1   79.100   60.100   37.900  90.00  90.00  90.00 P 43 21 2     8\n", "expected a = b"),
        ("data_x\n_cell.length_a 3\n", "no unit cell in the CIF"),
        ("data_x\nloop_\n_cell.length_a\n'", "not readable as CIF"),
    ],
)
def test_pdb_and_cif_files_that_do_not_tell_are_refused(text, match, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(CellError, match=match):
        read_cell(tmp_path / "a.txt")
