"""Merged and unmerged reflections as MTZ (gemmi), and merged ones as CrystFEL's ``.hkl``."""

from pathlib import Path

import gemmi
import numpy as np

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.merging.run_sums import ScaledRun
from peaknet_pipeline.merging.symmetry import Symmetry
from peaknet_pipeline.schemas import MergedTable
from peaknet_pipeline.types import Float32Array, UnitCell

COLUMNS = (
    ("IMEAN", "J", "intensity"),
    ("SIGIMEAN", "Q", "sigma"),
    ("N", "I", "n"),
    ("IMEAN_HALF1", "J", "intensity_1"),
    ("SIGIMEAN_HALF1", "Q", "sigma_1"),
    ("IMEAN_HALF2", "J", "intensity_2"),
    ("SIGIMEAN_HALF2", "Q", "sigma_2"),
)
"""Columns of the merged MTZ beside the indices: label, type, and the merged table's column."""


def write_merged_mtz(
    path: Path, table: MergedTable, *, cell: UnitCell, symmetry: Symmetry, wavelength_angstrom: float = 0.0
) -> None:
    """Write merged intensities with those of both halves, in CCP4's asymmetric unit; what a half lacks is missing there."""
    mtz = _new_mtz("merged serial crystallography data", cell, symmetry, wavelength_angstrom)
    for label, kind, _ in COLUMNS:
        mtz.add_column(label, kind)
    values = table[["h", "k", "l", *(name for _, _, name in COLUMNS)]].to_numpy(dtype=np.float32)
    mtz.set_data(np.ascontiguousarray(values))
    mtz.ensure_asu()
    mtz.sort()
    with replace_atomically(path) as temporary:
        mtz.write_to_file(str(temporary))


def write_unmerged_mtz(
    path: Path, scaled: ScaledRun, *, cell: UnitCell, symmetry: Symmetry, wavelength_angstrom: float = 0.0
) -> None:
    """Write the scaled observations that the merged set was made from, one batch per accepted crystal.

    I and SIGI are over scale, B factor and recorded share: estimates of the full reflection; SIGI holds the scatter that the
    model leaves. FRACTIONCALC is the recorded share over its mean at that resolution.
    """
    mtz = _new_mtz("scaled serial crystallography observations", cell, symmetry, wavelength_angstrom)
    for label, kind in (("M/ISYM", "Y"), ("BATCH", "B"), ("I", "J"), ("SIGI", "Q"), ("FRACTIONCALC", "R")):
        mtz.add_column(label, kind)
    data = _observation_columns(scaled)
    for number in np.unique(data[:, 4]).astype(int):
        batch = gemmi.Mtz.Batch()
        batch.number = int(number)
        batch.cell = mtz.cell
        mtz.batches.append(batch)
    mtz.set_data(data)
    mtz.switch_to_asu_hkl()
    mtz.sort(5)
    with replace_atomically(path) as temporary:
        mtz.write_to_file(str(temporary))


def _observation_columns(scaled: ScaledRun) -> Float32Array:
    obs, state = scaled.observations, scaled.scaling
    of = np.repeat(np.arange(obs.n_crystals), np.diff(obs.starts))
    share = state.curve[obs.shell, obs.excitation]
    s2 = obs.inv_d[obs.row] ** 2
    g = np.exp(state.log_scale[of] - 0.5 * state.b_factor[of] * s2) * share
    m = g * state.reference[obs.row]
    sigma = np.sqrt(obs.variance + obs.gain * m + state.spread2[obs.shell, obs.excitation] * m**2)
    columns = [*obs.hkl.T, np.zeros(len(g)), of + 1, obs.intensity / g, sigma / g, share]
    noise2 = sigma**2 + g**2 * state.reference_variance[obs.row]
    taken = state.accepted[of] & ((obs.intensity - m) ** 2 <= scaled.params.outlier_sigma**2 * noise2)
    return np.ascontiguousarray(np.stack(columns, axis=1)[taken], dtype=np.float32)


def _new_mtz(title: str, cell: UnitCell, symmetry: Symmetry, wavelength_angstrom: float) -> gemmi.Mtz:
    mtz = gemmi.Mtz(with_base=True)
    mtz.title = title
    mtz.spacegroup = symmetry.group
    mtz.set_cell_for_all(gemmi.UnitCell(cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma))
    dataset = mtz.add_dataset("serial")
    dataset.wavelength = wavelength_angstrom
    return mtz


def write_hkl(path: Path, table: MergedTable, *, symmetry: Symmetry, half: str = "") -> None:
    """Write CrystFEL's reflection list, format 2.0, as check_hkl, compare_hkl and get_hkl read it.

    ``half`` is ``_1`` or ``_2`` for one half's intensities; empty for all.
    """
    rows = table[table[f"n{half}"] > 0]
    names = ("h", "k", "l", f"intensity{half}", f"sigma{half}", f"n{half}")
    with replace_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("CrystFEL reflection list version 2.0\n")
        file.write(f"Symmetry: {crystfel_point_group(symmetry)}\n")
        file.write("   h    k    l            I    phase     sigma(I)   nmeas\n")
        for h, k, m, value, sigma, n in zip(*(rows[name] for name in names), strict=True):
            file.write(f"{h:4d} {k:4d} {m:4d} {value:12.4f} {'-':>8} {sigma:12.4f} {int(n):7d}\n")
        file.write("End of reflections\n")


def crystfel_point_group(symmetry: Symmetry) -> str:
    """Return the name that CrystFEL gives to the symmetry that reflections were merged in.

    CrystFEL's unique axis is c unless the name says otherwise (``2/m_uab``), and trigonal groups name their axes (``-3m1_H``).
    """
    point, centric = str(symmetry.group.point_group_hm()), len(symmetry.rotations) > _n_rotations(symmetry)
    name = LAUE[point] if centric else point
    if symmetry.group.crystal_system_str() == "monoclinic":
        return f"{name}_ua{'abc'[_unique_axis(symmetry)]}"
    if symmetry.group.crystal_system_str() != "trigonal":
        return name
    if symmetry.group.ext == "R":
        return f"{name}_R"
    second, third = ("1m", "12") if str(symmetry.group.hm).split()[2:3] == ["1"] else ("m1", "21")
    return {"32": f"3{third}_H", "-3m": f"-3{second}_H"}.get(name, f"{name}_H")


def _n_rotations(symmetry: Symmetry) -> int:
    return len({np.asarray(op.rot).tobytes() for op in symmetry.group.operations().sym_ops})


def _unique_axis(symmetry: Symmetry) -> int:
    turn = next(r for r in symmetry.rotations if np.trace(r) == -1)
    return int(np.argmax(np.diag(turn)))


LAUE = {
    **dict.fromkeys(("1", "-1"), "-1"),
    **dict.fromkeys(("2", "m", "2/m"), "2/m"),
    **dict.fromkeys(("222", "mm2", "mmm"), "mmm"),
    **dict.fromkeys(("4", "-4", "4/m"), "4/m"),
    **dict.fromkeys(("422", "4mm", "-42m", "-4m2", "4/mmm"), "4/mmm"),
    **dict.fromkeys(("3", "-3"), "-3"),
    **dict.fromkeys(("32", "3m", "-3m"), "-3m"),
    **dict.fromkeys(("321", "3m1", "-3m1"), "-3m1"),
    **dict.fromkeys(("312", "31m", "-31m"), "-31m"),
    **dict.fromkeys(("6", "-6", "6/m"), "6/m"),
    **dict.fromkeys(("622", "6mm", "-6m2", "-62m", "6/mmm"), "6/mmm"),
    **dict.fromkeys(("23", "m-3"), "m-3"),
    **dict.fromkeys(("432", "-43m", "m-3m"), "m-3m"),
}
"""Laue class of each point group, as CrystFEL names them."""
