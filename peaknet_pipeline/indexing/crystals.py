"""What integrated reflections tell of their crystal: how wide and how far it diffracts, how well it was measured."""

import numpy as np

from peaknet_pipeline.indexing.predict import LatticeExtent
from peaknet_pipeline.schemas import CRYSTALS, SNR_SHELLS, CrystalTable, IndexTable, ReflectionTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import Float64Array, IntArray

REFLECTIONS_PER_STEP = 40
"""Reflections, in order of resolution, whose mean I/σ is looked at together."""

LEAST_SIGNIFICANCE = 3.0
"""Mean I/σ over its standard error, 1/√n, from which such a group holds signal."""


def describe_crystals(
    lattices: IndexTable, reflections: ReflectionTable, extents: list[LatticeExtent]
) -> CrystalTable:
    """Return one row per lattice: profile radius, reach of its peaks, resolution limit, mean I/σ by shell.

    Parameters
    ----------
    lattices : IndexTable
    reflections : ReflectionTable
        Of these lattices, integrated.
    extents : list of LatticeExtent
        One per lattice, as ``predict.lattice_extents`` estimates them from the peaks.

    """
    rows = reflections.groupby(["frame", "lattice"], sort=False).indices
    inv_d, snr = (_values(reflections, name) for name in ("inv_d", "snr"))
    keys = zip(lattices["frame"], lattices["lattice"], strict=True)
    own: list[IntArray] = [np.asarray(rows.get(key, []), dtype=np.int64) for key in keys]
    own = [r[np.isfinite(snr[r])] for r in own]
    columns: dict[str, object] = {
        "frame": lattices["frame"],
        "lattice": lattices["lattice"],
        "profile_radius": [e.profile_radius for e in extents],
        "peak_inv_d": [e.peak_inv_d for e in extents],
        "resolution_limit": [resolution_limit(inv_d[r], snr[r]) for r in own],
        "n_reflections": [len(r) for r in own],
        "mean_snr": [_mean(snr[r]) for r in own],
    }
    low = 0.0
    for name, high in SNR_SHELLS:
        columns[name] = [_mean(snr[r[(inv_d[r] >= low) & (inv_d[r] < high)]]) for r in own]
        low = high
    return make_table(CRYSTALS, columns)


def resolution_limit(inv_d: Float64Array, snr: Float64Array) -> float:
    """Return the 1/d, Å⁻¹, up to which a crystal's reflections hold signal; NaN where none do.

    Reflections are taken in order of resolution, :data:`REFLECTIONS_PER_STEP` at a time: the last group before two without
    signal ends at the limit. Of noise alone one group in 700 passes.
    """
    order = np.argsort(inv_d)
    limit, misses = float("nan"), 0
    for start in range(0, len(order), REFLECTIONS_PER_STEP):
        group = order[start : start + REFLECTIONS_PER_STEP]
        if snr[group].mean() * np.sqrt(len(group)) >= LEAST_SIGNIFICANCE:
            limit, misses = float(inv_d[group[-1]]), 0
        else:
            misses += 1
        if misses == 2:
            break
    return limit


def _values(reflections: ReflectionTable, name: str) -> Float64Array:
    if name != "snr":
        return reflections[name].to_numpy(dtype=np.float64)
    intensity, sigma = (reflections[n].to_numpy(dtype=np.float64) for n in ("intensity", "sigma"))
    snr: Float64Array = np.divide(intensity, sigma, out=np.full(len(sigma), np.nan), where=sigma > 0)
    return snr


def _mean(values: Float64Array) -> float:
    return float(values.mean()) if values.size else float("nan")
