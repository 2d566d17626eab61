"""Crystals: which reflections exist, how strong they are, and how a crystal is turned."""

from dataclasses import dataclass

import gemmi
import numpy as np

from peaknet_pipeline.errors import CellError
from peaknet_pipeline.simulate.experiment import Sample
from peaknet_pipeline.types import Float64Array, IntArray, UnitCell

MAX_REFLECTIONS = 4_000_000
"""Upper bound on the reflections of one crystal: a larger cell needs a coarser resolution limit."""

LATTICE_TYPES = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic")


@dataclass(frozen=True)
class StructureFactors:
    """All reflections of a crystal to a resolution limit.

    ``hkl`` is (n, 3); ``intensity`` (n,) is |F|² over its mean in the resolution shell (Wilson statistics,
    symmetry equivalents and Friedel mates equal); ``inv_d`` (n,) is in Å⁻¹.
    """

    hkl: IntArray
    intensity: Float64Array
    inv_d: Float64Array


def make_sample(name: str, space_group: str, a: float, b: float, c: float, *angles: float) -> Sample:
    """Describe a crystal form; lattice type, centring and unique axis follow from the space group.

    Raises
    ------
    CellError
        The space group is unknown, or the cell does not obey it.

    """
    group = find_space_group(space_group)
    alpha, beta, gamma = angles or (90.0, 90.0, 90.0)
    if not gemmi.UnitCell(a, b, c, alpha, beta, gamma).is_compatible_with_spacegroup(group):
        raise CellError("the cell does not obey its space group", where=name, expected=space_group)
    system = str(group.crystal_system_str())
    lattice_type = {"trigonal": "hexagonal"}.get(system, system)
    unique_axis = {"monoclinic": "b", "tetragonal": "c", "hexagonal": "c"}.get(lattice_type, "*")
    centering = "H" if group.ext == "H" else str(group.hm)[0]
    return Sample(
        name, UnitCell(a, b, c, alpha, beta, gamma, lattice_type, centering, unique_axis), space_group
    )


def find_space_group(name: str) -> gemmi.SpaceGroup:
    """Return gemmi's space group of that name.

    Raises
    ------
    CellError
        gemmi does not know the name.

    """
    group = gemmi.find_spacegroup_by_name(name)
    if group is None:
        raise CellError(
            "unknown space group", where="sample", found=name, remedy="Use a Hermann-Mauguin symbol."
        )
    return group


def reciprocal_axes(cell: UnitCell) -> Float64Array:
    """Return a*, b*, c* as rows (3, 3), Å⁻¹, in the cell's own Cartesian frame (a along x)."""
    fractional = np.asarray(_gemmi_cell(cell).frac.mat.tolist(), dtype=np.float64)
    return np.ascontiguousarray(fractional)


def draw_structure_factors(sample: Sample, *, min_d_angstrom: float, seed: int) -> StructureFactors:
    """Draw |F|² for every reflection to ``min_d_angstrom``, after Wilson (Acta Cryst. 2, 318, 1949).

    |F|²/⟨|F|²⟩ is exponentially distributed for acentric and χ²₁ for centric reflections, times the ε factor
    of special directions; systematic absences are left out, symmetry equivalents and Friedel mates are equal.

    Raises
    ------
    CellError
        More than :data:`MAX_REFLECTIONS` reflections lie inside the limit.

    """
    cell = _gemmi_cell(sample.cell)
    expected = 4.19 * cell.volume / min_d_angstrom**3
    if expected > MAX_REFLECTIONS:
        raise CellError(
            "too many reflections",
            where=sample.name,
            expected=f"at most {MAX_REFLECTIONS}",
            found=int(expected),
            remedy="Raise resolution_limit_angstrom.",
        )
    group = find_space_group(sample.space_group)
    unique = np.asarray(gemmi.make_miller_array(cell, group, min_d_angstrom, 0.0, True), dtype=np.int64)
    operations = group.operations()
    unique = unique[~np.asarray(operations.systematic_absences(unique.astype(np.int32)), dtype=bool)]
    intensity = _draw_wilson(unique, operations, np.random.default_rng([seed, 1]))
    hkl, values = _expand(unique, intensity, operations)
    inv_d = np.linalg.norm(hkl @ reciprocal_axes(sample.cell), axis=1)
    return StructureFactors(hkl, values, inv_d)


def draw_rotation(generator: np.random.Generator) -> Float64Array:
    """Draw a rotation (3, 3) uniformly on SO(3), from a random unit quaternion (Shoemake 1992)."""
    w, x, y, z = (q := generator.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _gemmi_cell(cell: UnitCell) -> gemmi.UnitCell:
    return gemmi.UnitCell(cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)


def _draw_wilson(
    unique: IntArray, operations: gemmi.GroupOps, generator: np.random.Generator
) -> Float64Array:
    hkl = unique.astype(np.int32)
    centric = np.asarray(operations.centric_flag_array(hkl), dtype=bool)
    epsilon = np.asarray(operations.epsilon_factor_without_centering_array(hkl), dtype=np.float64)
    acentric_draw = generator.exponential(size=len(hkl))
    centric_draw = generator.standard_normal(len(hkl)) ** 2
    return np.where(centric, centric_draw, acentric_draw) * epsilon


def _expand(
    unique: IntArray, intensity: Float64Array, operations: gemmi.GroupOps
) -> tuple[IntArray, Float64Array]:
    """Copy each unique reflection's intensity to its symmetry equivalents and Friedel mates."""
    rotations = [np.asarray(op.rot, dtype=np.int64) // gemmi.Op.DEN for op in operations.sym_ops]
    equivalents = [sign * (unique @ rotation) for rotation in rotations for sign in (1, -1)]
    limit = np.max([np.abs(e).max(axis=0, initial=0) for e in equivalents], axis=0)
    grid = np.full(2 * limit + 1, -1.0)
    for equivalent in equivalents:
        grid[tuple((equivalent + limit).T)] = intensity
    hkl = np.argwhere(grid >= 0)
    return hkl - limit, grid[tuple(hkl.T)]
