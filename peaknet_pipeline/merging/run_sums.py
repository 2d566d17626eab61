"""What one run gives to the merged set: sums per unique reflection and half, and what became of each crystal."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from peaknet_pipeline.merging.ambiguity import resolve_settings
from peaknet_pipeline.merging.observations import Observations, gather_observations, reindex
from peaknet_pipeline.merging.parameters import MergeParams
from peaknet_pipeline.merging.scaling import N_SUMS, Scaling, scale_run
from peaknet_pipeline.merging.symmetry import Symmetry, asymmetric_keys, indices_of
from peaknet_pipeline.schemas import (
    MERGE_CRYSTALS,
    MERGE_SUMS,
    MergeCrystalTable,
    MergeSumTable,
    ReflectionTable,
)
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import Float64Array, IntArray, UnitCell

SUM_NAMES = ("s0", "s1", "s2", "n")


@dataclass(frozen=True)
class RunSums:
    """Sufficient statistics of one run: ``keys`` (n_unique,) sorted, ``sums`` (2, 4, n_unique), and its crystals."""

    keys: IntArray
    sums: Float64Array
    crystals: MergeCrystalTable


@dataclass(frozen=True)
class ScaledRun:
    """A run's observations with their scales; ``sums`` is what the merged set takes from them."""

    observations: Observations
    scaling: Scaling
    sums: RunSums
    params: MergeParams


def merge_run(
    reflections: ReflectionTable, *, run: str, cell: UnitCell, symmetry: Symmetry, params: MergeParams
) -> ScaledRun:
    """Scale a run's crystals against each other, put them into one setting, and sum them per unique reflection.

    Parameters
    ----------
    reflections : ReflectionTable
        Integrated; other columns than ``observations.COLUMNS`` are not read.
    run : str
        The run's name in the table of crystals.
    cell, symmetry, params

    Raises
    ------
    TableError
        No reflection was integrated.

    """
    obs = gather_observations(reflections, cell=cell, symmetry=symmetry, max_inv_d=params.max_inv_d_merged)
    scaling = scale_run(obs, params)
    setting = np.zeros(obs.n_crystals, dtype=np.int64)
    if params.resolve_settings and len(symmetry.settings) > 1:
        setting = resolve_settings(obs, scaling, symmetry)
        obs = reindex(obs, setting, cell=cell, symmetry=symmetry)
        scaling = scale_run(obs, params)
    crystals = make_table(
        MERGE_CRYSTALS,
        {
            "run": np.full(obs.n_crystals, run, dtype=object),
            "frame": obs.frame,
            "lattice": obs.lattice,
            "setting": setting,
            "n_reflections": np.diff(obs.starts),
            "scale": np.exp(scaling.log_scale),
            "b_factor": scaling.b_factor,
            "correlation": scaling.correlation,
            "accepted": scaling.accepted,
            "reason": np.array(scaling.reasons, dtype=object),
        },
    )
    return ScaledRun(obs, scaling, RunSums(obs.keys, scaling.sums, crystals), params)


def sums_table(sums: RunSums) -> MergeSumTable:
    """Return the sums as a table, without reflections that no accepted crystal holds."""
    hkl = indices_of(sums.keys)
    parts = []
    for half in (0, 1):
        seen = sums.sums[half, 3] > 0
        columns = dict(zip("hkl", hkl[seen].T, strict=True)) | {"half": np.full(seen.sum(), half)}
        columns |= {name: sums.sums[half, n, seen] for n, name in enumerate(SUM_NAMES)}
        parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True)
    return make_table(MERGE_SUMS, {name: table[name] for name in MERGE_SUMS.column_names()})


def sums_of_table(table: MergeSumTable, crystals: MergeCrystalTable, symmetry: Symmetry) -> RunSums:
    """Return what :func:`sums_table` was made from."""
    hkl = table[["h", "k", "l"]].to_numpy(dtype=np.int64)
    keys, row = np.unique(asymmetric_keys(hkl, symmetry.rotations), return_inverse=True)
    sums = np.zeros((2, N_SUMS, len(keys)))
    for half in (0, 1):
        own = table["half"].to_numpy() == half
        for n, name in enumerate(SUM_NAMES):
            values = table[name].to_numpy(dtype=np.float64)[own]
            sums[half, n] = np.bincount(row[own], weights=values, minlength=len(keys))
    return RunSums(keys, sums, crystals)


def move_sums(sums: RunSums, setting: IntArray, symmetry: Symmetry) -> RunSums:
    """Return a run's sums in another setting, (3, 3) on Miller indices; its table of crystals stays as it is."""
    moved = asymmetric_keys(indices_of(sums.keys) @ setting, symmetry.rotations)
    keys, row = np.unique(moved, return_inverse=True)
    new = [[np.bincount(row, weights=one, minlength=len(keys)) for one in half] for half in sums.sums]
    return RunSums(keys, np.array(new).reshape(2, N_SUMS, len(keys)), sums.crystals)
