"""Merged intensities against known ones, beside two independent ways to merge; and what many crystals cost."""

import resource
import time
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.bench.merging_references import Crystals, plain_mean, scaled_mean
from peaknet_pipeline.merging.combine import combine_runs
from peaknet_pipeline.merging.figures import MergedSet, merged_set
from peaknet_pipeline.merging.parameters import MergeParams
from peaknet_pipeline.merging.run_sums import merge_run
from peaknet_pipeline.merging.symmetry import (
    Symmetry,
    asymmetric_keys,
    find_symmetry,
    indices_of,
    possible_keys,
)
from peaknet_pipeline.simulate.draw import find_sample
from peaknet_pipeline.types import Float64Array


def run(
    sample: str = "lysozyme",
    n_crystals: int = 300,
    photons: float = 300.0,
    noise: float = 20.0,
    brightness: float = 0.7,
    orientation_error: float = 2e-4,
    seed: int = 0,
    many: int = 0,
) -> dict[str, Any]:
    """Merge simulated crystals; with ``many``, so many synthetic lattices in runs of 10,000 for time and memory alone.

    ``cc_true`` is the correlation with the true intensities of the reflections that are measured by all three ways.
    """
    if many:
        return _cost(many, seed)
    form = find_sample(sample)
    symmetry = find_symmetry(form.space_group, form.cell)
    settings = symmetry.settings if len(symmetry.settings) > 1 else None
    crystals = Crystals(
        sample, n_crystals, seed=seed, photons=photons, noise=noise, brightness=brightness, settings=settings,
        orientation_error=orientation_error,
    )  # fmt: skip
    start = time.process_time()
    params = MergeParams()
    scaled = merge_run(crystals.table, run="bench", cell=form.cell, symmetry=symmetry, params=params)
    made = merged_set(scaled.sums, cell=form.cell, symmetry=symmetry, params=params)
    seconds = time.process_time() - start
    return {
        "observations": len(crystals.table),
        "processor_ms_per_crystal": 1e3 * seconds / n_crystals,
        **_compare(crystals, made, symmetry, scaled.sums.crystals["setting"].to_numpy()),
    }


def _compare(crystals: Crystals, made: MergedSet, symmetry: Symmetry, found: Any) -> dict[str, Any]:
    keys = asymmetric_keys(made.reflections[["h", "k", "l"]].to_numpy(), symmetry.rotations)
    ours = made.reflections["intensity"].to_numpy(dtype=np.float64)
    if len(symmetry.settings) > 1:
        each = [crystals.true_intensity(keys, symmetry, s) for s in symmetry.settings]
        names = pd.Series(list(zip(crystals.setting.tolist(), found.tolist(), strict=True))).value_counts()
        return {
            "cc_true": max(_correlation(ours, true) for true in each),
            "cc_other_setting": min(_correlation(ours, true) for true in each),
            "in_one_setting": _in_one_setting(crystals.setting, found, len(symmetry.settings)),
            "pairs": {str(pair): int(n) for pair, n in names.items()},
        }
    true = crystals.true_intensity(keys, symmetry)
    inv_d = made.reflections["inv_d"].to_numpy(dtype=np.float64)
    outer = inv_d > np.quantile(inv_d, 0.8)
    found_ways = {
        "ours": ours,
        "plain_mean": plain_mean(crystals.table, symmetry).reindex(keys).to_numpy(),
        "scaled_mean": scaled_mean(crystals.table, symmetry).reindex(keys).to_numpy(),
    }
    told: dict[str, Any] = {"reflections": len(keys)}
    told |= {name: float(made.overall[name]) for name in ("completeness", "cc_half", "cc_star")}
    for name, value in found_ways.items():
        told[f"cc_true_{name}"] = _correlation(value, true)
        told[f"cc_true_{name}_outer_fifth"] = _correlation(value[outer], true[outer])
    return told


def _in_one_setting(true: Any, found: Any, n: int) -> float:
    """Return the share of crystals that end in one setting: those of each true setting that have its commonest answer."""
    right = sum(int(np.bincount(found[true == s], minlength=n).max()) for s in range(n) if (true == s).any())
    return right / len(true)


def _correlation(a: Float64Array, b: Float64Array) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[known], b[known])[0, 1])


def _cost(n_lattices: int, seed: int, *, per_run: int = 10_000, per_lattice: int = 300) -> dict[str, Any]:
    form = find_sample("lysozyme")
    symmetry, params = find_symmetry(form.space_group, form.cell), MergeParams()
    hkl = indices_of(possible_keys(form.cell, symmetry, max_inv_d=0.55))
    generator = np.random.default_rng(seed)
    true = generator.exponential(100.0, len(hkl))
    start, runs, making = time.perf_counter(), [], 0.0
    for number in range(0, n_lattices, per_run):
        began = time.perf_counter()
        n = min(per_run, n_lattices - number)
        row = generator.integers(len(hkl), size=n * per_lattice)
        error = generator.uniform(-1e-3, 1e-3, len(row))
        value = true[row] * np.exp(-0.5 * (error / 5e-4) ** 2) + generator.normal(0.0, 10.0, len(row))
        columns = dict(zip("hkl", hkl[row].T.astype(np.int16), strict=True)) | {
            "excitation_error": error.astype(np.float32)
        }
        columns |= {"intensity": value.astype(np.float32), "sigma": np.full(len(row), 10.0, np.float32)}
        table = pd.DataFrame(
            columns | {"frame": np.repeat(np.arange(n, dtype=np.int32), per_lattice), "lattice": 0}
        )
        making += time.perf_counter() - began
        runs.append(merge_run(table, run=str(number), cell=form.cell, symmetry=symmetry, params=params).sums)
    total, _ = combine_runs(runs, cell=form.cell, symmetry=symmetry)
    made = merged_set(total, cell=form.cell, symmetry=symmetry, params=params)
    return {
        "lattices": n_lattices,
        "observations": n_lattices * per_lattice,
        "seconds": time.perf_counter() - start - making,
        "seconds_of_making_the_tables": making,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "multiplicity": float(made.overall["multiplicity"]),
    }
