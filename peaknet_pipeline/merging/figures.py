"""The merged set and what it is worth: intensities with errors, half sets, figures by resolution shell with standard errors."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import gemmi
import numpy as np
import pandas as pd

from peaknet_pipeline.merging.parameters import MergeParams
from peaknet_pipeline.merging.run_sums import RunSums
from peaknet_pipeline.merging.symmetry import (
    Symmetry,
    epsilon_factors,
    indices_of,
    inverse_spacing,
    possible_keys,
)
from peaknet_pipeline.schemas import MERGE_SHELLS, MERGED, MergedTable, MergeShellTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import Float64Array, IntArray, UnitCell

SCATTER_PRIOR = 4.0
"""Degrees of freedom that the shell's mean χ² has beside a reflection's own."""

JACKKNIFE_BLOCKS = 20
"""Random groups of reflections, each left out once, whose spread gives the standard errors."""

WILSON_LOWEST_INV_D = 0.22
"""1/d, Å⁻¹, from which ln(I/Σf²) is a straight line in proteins: 4.5 Å."""

PROTEIN = (("C", 5.0), ("N", 1.35), ("O", 1.5), ("H", 8.0), ("S", 0.03))
"""Mean composition of a residue."""


@dataclass(frozen=True)
class Wilson:
    """Wilson plot: ``s2`` (n,), Å⁻², and ``log_ratio`` (n,), ln⟨I/ε⟩/Σf²; B, Å², its standard error, both NaN where unknown."""

    s2: Float64Array
    log_ratio: Float64Array
    b_factor: float
    b_error: float


@dataclass(frozen=True)
class MergedSet:
    """A merged data set: reflections, figures by shell (the last row over all), Wilson plot."""

    reflections: MergedTable
    shells: MergeShellTable
    wilson: Wilson

    @property
    def overall(self) -> "pd.Series[float]":
        """The row of figures over all reflections."""
        return self.shells.iloc[-1]


def merged_set(sums: RunSums, *, cell: UnitCell, symmetry: Symmetry, params: MergeParams) -> MergedSet:
    """Return the merged intensities of a run, or of several combined, and their figures."""
    table = merged_table(sums, cell=cell, params=params)
    shells = shell_table(table, cell=cell, symmetry=symmetry, n_shells=params.n_shells)
    return MergedSet(table, shells, wilson_plot(table, symmetry))


def merged_table(sums: RunSums, *, cell: UnitCell, params: MergeParams) -> MergedTable:
    """Return intensity and standard error of each reflection, over all and per half of the crystals.

    σ² = χ²ᵣ/Σ w G²: the error that the weights promise, times the reduced χ² of the observations about their mean, which is
    drawn towards that of reflections at the same resolution where observations are few. Reflections with less information
    than ``min_information`` count as not measured.
    """
    hkl = indices_of(sums.keys)
    inv_d = inverse_spacing(hkl, cell)
    total = sums.sums.sum(axis=0)
    bins = _equal_bins(inv_d, max(1, min(20, len(inv_d) // 30)))
    chi2 = _reduced_chi2(total, bins)
    columns: dict[str, Float64Array] = {}
    for name, (s0, s1, _, n) in (("", total), ("_1", sums.sums[0]), ("_2", sums.sums[1])):
        seen = s0 > 0
        columns[f"intensity{name}"] = np.divide(s1, s0, out=np.full(len(s0), np.nan), where=seen)
        columns[f"sigma{name}"] = np.sqrt(np.divide(chi2, s0, out=np.full(len(s0), np.nan), where=seen))
        columns[f"n{name}"] = n
    weight = np.where(total[0] > 0, total[0], 0.0)
    mean = np.bincount(bins, weights=np.sqrt(weight) * np.nan_to_num(columns["intensity"]))
    mean = np.maximum(mean / np.maximum(np.bincount(bins, weights=np.sqrt(weight)), 1e-300), 0.0)
    measured = total[0] * mean[bins] ** 2 >= params.min_information
    measured &= total[3] > 0
    parts = dict(zip("hkl", hkl.T, strict=True)) | {"inv_d": inv_d} | columns
    return make_table(MERGED, {name: np.asarray(values)[measured] for name, values in parts.items()})


def _reduced_chi2(total: Float64Array, bins: IntArray) -> Float64Array:
    s0, s1, s2, n = total
    chi2 = np.maximum(s2 - np.divide(s1**2, s0, out=np.zeros_like(s0), where=s0 > 0), 0.0)
    free = np.maximum(n - 1.0, 0.0)
    usual = np.bincount(bins, weights=chi2) / np.maximum(np.bincount(bins, weights=free), 1.0)
    usual = np.where(np.bincount(bins, weights=free) > 10, usual, 1.0)[bins]
    return np.asarray((chi2 + SCATTER_PRIOR * usual) / (free + SCATTER_PRIOR), dtype=np.float64)


def _equal_bins(inv_d: Float64Array, n_bins: int) -> IntArray:
    edges = np.quantile(inv_d, np.linspace(0, 1, n_bins + 1)[1:-1]) if inv_d.size else np.zeros(0)
    return np.searchsorted(edges, inv_d, side="right")


def shell_table(table: MergedTable, *, cell: UnitCell, symmetry: Symmetry, n_shells: int) -> MergeShellTable:
    """Return the figures of shells of equal volume, and over all in the last row, each with its standard error (jackknife)."""
    if not len(table):
        return make_table(MERGE_SHELLS, {name: [] for name in MERGE_SHELLS.column_names()})
    inv_d = table["inv_d"].to_numpy(dtype=np.float64)
    low, high = float(inv_d.min()), float(inv_d.max())
    possible = inverse_spacing(indices_of(possible_keys(cell, symmetry, max_inv_d=high * 1.0001)), cell)
    edges = np.cbrt(np.linspace(low**3, high**3, n_shells + 1))
    block = np.random.default_rng(0).integers(JACKKNIFE_BLOCKS, size=len(table))
    rows = []
    for a, b in [*pairwise(edges), (low, high)]:
        inside = (inv_d >= a) & ((inv_d < b) | (b == high))
        n_possible = int(((possible >= a * 0.99999) & ((possible < b) | (b == high))).sum())
        rows.append(_figures(table[inside], block[inside], n_possible) | {"inv_d_low": a, "inv_d_high": b})
    return make_table(
        MERGE_SHELLS, {name: [row[name] for row in rows] for name in MERGE_SHELLS.column_names()}
    )


def _figures(table: MergedTable, block: IntArray, n_possible: int) -> dict[str, float]:
    n = len(table)
    found: dict[str, float] = {
        "n_possible": n_possible,
        "n_unique": n,
        "completeness": n / n_possible if n_possible else float("nan"),
        "multiplicity": float(table["n"].mean()) if n else float("nan"),
    }
    columns = {
        name: table[name].to_numpy(dtype=np.float64)
        for name in ("intensity", "sigma", "intensity_1", "intensity_2")
    }
    for name, figure in FIGURES.items():
        found[name] = figure(columns)
        found[f"{name}_error"] = _jackknife(figure, columns, block)
    return found


def _mean_snr(columns: dict[str, Float64Array]) -> float:
    return _mean(columns["intensity"] / columns["sigma"])


def _cc_half(columns: dict[str, Float64Array]) -> float:
    a, b = columns["intensity_1"], columns["intensity_2"]
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3 or a[both].std() == 0 or b[both].std() == 0:
        return float("nan")
    return float(np.corrcoef(a[both], b[both])[0, 1])


def _cc_star(columns: dict[str, Float64Array]) -> float:
    """Return √(2 CC₁/₂ / (1 + CC₁/₂)) (Karplus & Diederichs, Science 336, 1030, 2012); NaN for a negative CC₁/₂."""
    half = _cc_half(columns)
    return float(np.sqrt(2 * half / (1 + half))) if half >= 0 else float("nan")


def _r_split(columns: dict[str, Float64Array]) -> float:
    """Return 2^−½ Σ|I₁ − I₂| / ½ Σ(I₁ + I₂) (White et al., J. Appl. Cryst. 45, 335, 2012)."""
    a, b = columns["intensity_1"], columns["intensity_2"]
    both = np.isfinite(a) & np.isfinite(b)
    below = 0.5 * (a[both] + b[both]).sum()
    return float(np.abs(a[both] - b[both]).sum() / np.sqrt(2) / below) if below > 0 else float("nan")


FIGURES: dict[str, Callable[[dict[str, Float64Array]], float]] = {
    "mean_snr": _mean_snr,
    "cc_half": _cc_half,
    "cc_star": _cc_star,
    "r_split": _r_split,
}
"""Figures of a shell that have a standard error."""


def _mean(values: Float64Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _jackknife(
    figure: Callable[[dict[str, Float64Array]], float], columns: dict[str, Float64Array], block: IntArray
) -> float:
    without = np.array(
        [figure({k: v[block != b] for k, v in columns.items()}) for b in range(JACKKNIFE_BLOCKS)]
    )
    without = without[np.isfinite(without)]
    n = len(without)
    return float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())) if n > 1 else float("nan")


def wilson_plot(table: MergedTable, symmetry: Symmetry) -> Wilson:
    """Return the Wilson plot, ln(⟨I/ε⟩ / Σf²) = ln k − B s²/2, with the mean composition of proteins.

    B is of reflections beyond 4.5 Å, or of all where there are too few of them.
    """
    hkl = table[["h", "k", "l"]].to_numpy(dtype=np.int64)
    s2 = table["inv_d"].to_numpy(dtype=np.float64) ** 2
    value = table["intensity"].to_numpy(dtype=np.float64) / epsilon_factors(hkl, symmetry)
    bins = _equal_bins(s2, max(1, min(30, len(s2) // 50)))
    counts = np.maximum(np.bincount(bins), 1) if len(s2) else np.zeros(0)
    mean, centre = (np.bincount(bins, weights=w) / counts if len(s2) else np.zeros(0) for w in (value, s2))
    seen = mean > 0
    log_ratio = np.log(mean[seen] / _scattering(centre[seen]))
    x = centre[seen]
    far = x >= WILSON_LOWEST_INV_D**2
    chosen = far if far.sum() >= 4 else np.ones(len(x), dtype=bool)
    if chosen.sum() < 3:
        return Wilson(x, log_ratio, float("nan"), float("nan"))
    fit, covariance = np.polyfit(x[chosen], log_ratio[chosen], 1, cov="unscaled")
    left = log_ratio[chosen] - np.polyval(fit, x[chosen])
    spread = (left**2).sum() / max(chosen.sum() - 2, 1)
    return Wilson(x, log_ratio, -2.0 * float(fit[0]), 2.0 * float(np.sqrt(covariance[0, 0] * spread)))


def _scattering(s2: Float64Array) -> Float64Array:
    """Return Σf², (n,), of a mean residue, at stol² = s²/4."""
    total = np.zeros(len(s2))
    for element, number in PROTEIN:
        factor = gemmi.Element(element).it92
        total += number * np.array([factor.calculate_sf(v / 4.0) ** 2 for v in s2])
    return total
