"""Cells on disk, their matrices and their symmetry."""

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import CellError
from peaknet_pipeline.indexing.cell import (
    cell_from_axes,
    check_cell,
    read_cell,
    reciprocal_matrix,
    write_cell,
)
from peaknet_pipeline.indexing.symmetry import (
    misorientation_deg,
    primitive_matrix,
    rotation_operators,
    strain_basis,
    systematically_absent,
)
from peaknet_pipeline.types import UnitCell
from peaknet_pipeline_tests.indexing.spots import LYSOZYME, random_rotation

BRAVAIS = {
    "aP": (UnitCell(40, 50, 60, 75, 82, 95), 1),
    "mP": (UnitCell(40, 50, 60, 90, 105, 90, "monoclinic", "P", "b"), 2),
    "mC": (UnitCell(80, 50, 60, 90, 105, 90, "monoclinic", "C", "b"), 2),
    "oP": (UnitCell(40, 50, 60, 90, 90, 90, "orthorhombic", "P"), 4),
    "oA": (UnitCell(40, 53, 67, 90, 90, 90, "orthorhombic", "A"), 4),
    "oI": (UnitCell(40, 53, 67, 90, 90, 90, "orthorhombic", "I"), 4),
    "oF": (UnitCell(60, 73, 97, 90, 90, 90, "orthorhombic", "F"), 4),
    "tP": (LYSOZYME, 8),
    "tI": (UnitCell(78, 78, 38, 90, 90, 90, "tetragonal", "I", "c"), 8),
    "hP": (UnitCell(60, 60, 90, 90, 90, 120, "hexagonal", "P", "c"), 12),
    "hR": (UnitCell(80, 80, 120, 90, 90, 120, "hexagonal", "H", "c"), 6),
    "rhombohedral axes": (UnitCell(60, 60, 60, 75, 75, 75, "rhombohedral", "R"), 6),
    "cP": (UnitCell(78, 78, 78, 90, 90, 90, "cubic", "P"), 24),
    "cI": (UnitCell(78, 78, 78, 90, 90, 90, "cubic", "I"), 24),
    "cF": (UnitCell(128, 128, 128, 90, 90, 90, "cubic", "F"), 24),
}


@pytest.mark.parametrize("name", BRAVAIS)
def test_every_bravais_lattice_has_its_rotations_and_strains(name):
    cell, order = BRAVAIS[name]
    operators = rotation_operators(cell)
    n_strains = {1: 6, 2: 4, 4: 3, 6: 2, 8: 2, 12: 2, 24: 1}[order]

    assert len(operators) == order
    assert np.allclose(operators @ np.swapaxes(operators, 1, 2), np.eye(3), atol=1e-9)
    assert strain_basis(cell).shape == (n_strains, 3, 3)


@pytest.mark.parametrize("name", BRAVAIS)
def test_primitive_basis_spans_exactly_the_allowed_reflections(name):
    cell, _ = BRAVAIS[name]
    grid = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    index = grid @ np.linalg.solve(primitive_matrix(cell), reciprocal_matrix(cell)).T
    on_lattice = np.abs(index - np.rint(index)).max(axis=1) < 1e-6

    assert np.array_equal(on_lattice, ~systematically_absent(grid, cell.centering))
    assert np.linalg.det(primitive_matrix(cell)) > 0


def test_reciprocal_matrix_gives_gemmis_d_spacings():
    cell = UnitCell(40, 50, 60, 75, 82, 95)
    spacing = 1.0 / np.linalg.norm(reciprocal_matrix(cell) @ [3, -2, 5])

    assert spacing == pytest.approx(gemmi.UnitCell(40, 50, 60, 75, 82, 95).calculate_d([3, -2, 5]))


@pytest.mark.parametrize("name", BRAVAIS)
def test_cell_files_round_trip(name, tmp_path):
    cell, _ = BRAVAIS[name]
    write_cell(cell, tmp_path / "a.cell")

    assert read_cell(tmp_path / "a.cell") == cell


def test_cell_reads_pdb_and_other_units(tmp_path):
    line = "CRYST1   79.100   79.100   37.900  90.00  90.00  90.00 P 43 21 2     8\n"
    (tmp_path / "a.pdb").write_text(f"HEADER    HYDROLASE\n{line}")
    text = "CrystFEL unit cell file version 1.0\nlattice_type = monoclinic\ncentering = C ; kept\nunique_axis = b\n"
    (tmp_path / "b.cell").write_text(
        f"{text}a = 8.0 nm\nb = 50 A\nc = 60\nal = 90 deg\nbe = 105\nga = 90 deg\n"
    )

    assert read_cell(tmp_path / "a.pdb") == LYSOZYME
    assert read_cell(tmp_path / "b.cell") == BRAVAIS["mC"][0]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not a unit cell file"),
        ("\0\1\2", "not a text file"),
        ("CrystFEL unit cell file version 1.0\na = 3 A\n", "no lattice_type, centering, b, c, al"),
        ("CRYST1   79.100   79.100\n", "malformed CRYST1"),
    ],
)
def test_damaged_cell_files_say_what_is_wrong(text, match, tmp_path):
    path = tmp_path / "bad.cell"
    path.write_text(text)

    with pytest.raises(CellError, match=match):
        read_cell(path)


def test_impossible_cells_are_refused(tmp_path):
    with pytest.raises(CellError, match="no such cell file"):
        read_cell(tmp_path / "none.cell")
    with pytest.raises(CellError, match="span no volume"):
        check_cell(UnitCell(50, 50, 50, 120, 120, 120))
    with pytest.raises(CellError, match="unknown centring"):
        check_cell(UnitCell(50, 50, 50, 90, 90, 90, "cubic", "Q"))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), angle=st.floats(0.0, 3.0), name=st.sampled_from(sorted(BRAVAIS)))
def test_misorientation_is_the_turn_whatever_equivalent_setting_is_named(seed, angle, name):
    cell, _ = BRAVAIS[name]
    generator = np.random.default_rng(seed)
    axes = random_rotation(generator) @ reciprocal_matrix(cell)
    axis = generator.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    radians = np.radians(angle)
    turn = np.eye(3) + np.sin(radians) * cross + (1 - np.cos(radians)) * cross @ cross
    operator = rotation_operators(cell)[generator.integers(len(rotation_operators(cell)))]
    b = reciprocal_matrix(cell)
    equivalent = axes @ np.linalg.solve(b, operator @ b)

    assert misorientation_deg(turn @ equivalent, axes, cell) == pytest.approx(angle, abs=1e-5)
    assert misorientation_deg(axes, -turn @ equivalent, cell) == pytest.approx(angle, abs=1e-5)
    assert cell_from_axes(turn @ axes, like=cell).a == pytest.approx(cell.a)
