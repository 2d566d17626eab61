"""The observations of one run in the form that scaling loops over: packed columns, crystal by crystal."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.merging.symmetry import Symmetry, asymmetric_keys, indices_of, inverse_spacing
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, IntArray, UnitCell

COLUMNS = ("frame", "lattice", "h", "k", "l", "excitation_error", "intensity", "sigma")
"""Columns of a REFLECTIONS table that merging reads."""

N_SHELLS, N_EXCITATIONS = 20, 10
"""Bins in resolution, of equal numbers of observations, and in excitation error over the crystal's largest."""

GAIN_QUANTILE = 0.002
"""σ² is noise + gain · I: the gain is at most the least σ²/I of the strong reflections."""


@dataclass(frozen=True)
class Observations:
    """One run's integrated reflections, ordered by crystal.

    Attributes
    ----------
    keys : (n_unique,) int64
        Unique reflections, sorted; ``inv_d`` (n_unique,), Å⁻¹, goes with them.
    hkl : (n, 3) int16
        As they were indexed.
    row : (n,) int32
        Each observation's unique reflection, in ``keys``.
    intensity, variance : (n,) float32
        Measured intensity, and its variance without the counting noise of the signal itself.
    shell, excitation : (n,) uint8
        Bins of resolution and of the excitation error.
    starts : (n_crystals + 1,) int64
        Where each crystal's observations begin.
    frame, lattice : (n_crystals,) int
    gain : float
        Intensity units per photon, estimated from σ; 0 where σ holds no counting noise.

    """

    keys: IntArray
    inv_d: Float64Array
    hkl: npt.NDArray[np.int16]
    row: npt.NDArray[np.int32]
    intensity: Float32Array
    variance: Float32Array
    shell: npt.NDArray[np.uint8]
    excitation: npt.NDArray[np.uint8]
    starts: IntArray
    frame: IntArray
    lattice: IntArray
    gain: float

    @property
    def n_crystals(self) -> int:
        """Crystals, accepted or not."""
        return len(self.frame)


def gather_observations(
    reflections: pd.DataFrame, *, cell: UnitCell, symmetry: Symmetry, max_inv_d: float = 0.0
) -> Observations:
    """Pack a run's reflections; those that were not integrated, or have no error, are left out.

    Parameters
    ----------
    reflections : DataFrame
        With at least the columns :data:`COLUMNS`.
    cell : UnitCell
    symmetry : Symmetry
    max_inv_d : float, Å⁻¹
        Reflections beyond it are left out; 0 keeps all.

    Raises
    ------
    TableError
        A column is missing, or no reflection was integrated.

    """
    missing = [name for name in COLUMNS if name not in reflections]
    if missing:
        raise TableError(
            "columns are missing", where="reflections", expected=", ".join(COLUMNS), found=missing
        )
    intensity, sigma = (reflections[n].to_numpy(dtype=np.float32) for n in ("intensity", "sigma"))
    good = np.isfinite(intensity) & np.isfinite(sigma) & (sigma > 0)
    frame, lattice = (reflections[n].to_numpy(dtype=np.int64) for n in ("frame", "lattice"))
    hkl = np.stack([reflections[n].to_numpy(dtype=np.int16) for n in "hkl"], axis=1)
    good &= (hkl != 0).any(axis=1)
    if max_inv_d:
        good &= inverse_spacing(hkl, cell) <= max_inv_d
    order = np.flatnonzero(good)
    if not order.size:
        raise TableError(
            "no reflection was integrated",
            where="reflections",
            expected="finite intensity and sigma > 0",
            found=f"{len(reflections)} rows without",
        )
    order = order[np.lexsort((lattice[order], frame[order]))]
    crystal_of = frame[order] * 32_768 + lattice[order]
    first = np.flatnonzero(np.r_[True, crystal_of[1:] != crystal_of[:-1]])
    starts = np.r_[first, order.size].astype(np.int64)
    gain, variance = _split_noise(intensity[order], sigma[order])
    error = np.abs(reflections["excitation_error"].to_numpy(dtype=np.float32)[order])
    return _with_rows(
        Observations(
            keys=np.zeros(0, np.int64),
            inv_d=np.zeros(0),
            hkl=hkl[order],
            row=np.zeros(0, np.int32),
            intensity=intensity[order],
            variance=variance,
            shell=np.zeros(0, np.uint8),
            excitation=_excitation_bins(error, starts),
            starts=starts,
            frame=frame[order][first],
            lattice=lattice[order][first],
            gain=gain,
        ),
        cell,
        symmetry,
    )


def reindex(
    observations: Observations, setting: IntArray, *, cell: UnitCell, symmetry: Symmetry
) -> Observations:
    """Return the observations with each crystal indexed in another of its settings, (n_crystals,)."""
    if not setting.any():
        return observations
    of = np.repeat(setting, np.diff(observations.starts))
    hkl = observations.hkl.copy()
    for number in range(1, len(symmetry.settings)):
        rows = of == number
        hkl[rows] = hkl[rows] @ symmetry.settings[number]
    return _with_rows(replace(observations, hkl=hkl), cell, symmetry)


def _with_rows(observations: Observations, cell: UnitCell, symmetry: Symmetry) -> Observations:
    keys, row = np.unique(
        asymmetric_keys(observations.hkl.astype(np.int64), symmetry.rotations), return_inverse=True
    )
    inv_d = inverse_spacing(indices_of(keys), cell)
    edges = np.quantile(inv_d[row], np.linspace(0, 1, N_SHELLS + 1)[1:-1])
    shell = np.searchsorted(edges, inv_d, side="right").astype(np.uint8)[row]
    return replace(observations, keys=keys, inv_d=inv_d, row=row.astype(np.int32), shell=shell)


def _split_noise(intensity: Float32Array, sigma: Float32Array) -> tuple[float, Float32Array]:
    """Return the gain and the variance without the signal's counting noise.

    Weights that hold an observation's own counting noise are larger for those that came out weak, and pull the mean down.
    """
    variance = sigma.astype(np.float64) ** 2
    strong: BoolArray = intensity > 5.0 * sigma
    gain = 0.0
    if strong.sum() >= 100:
        gain = float(np.quantile(variance[strong] / intensity[strong], GAIN_QUANTILE))
    rest = variance - gain * np.maximum(intensity, 0.0)
    weak = ~strong
    floor = 0.1 * float(np.median(variance[weak])) if weak.any() else 0.1 * float(np.median(variance))
    return gain, np.maximum(rest, floor).astype(np.float32)


def _excitation_bins(error: Float32Array, starts: IntArray) -> npt.NDArray[np.uint8]:
    largest = np.maximum.reduceat(error, starts[:-1])
    share = error / np.maximum(np.repeat(largest, np.diff(starts)), 1e-12)
    return np.asarray(np.minimum(share * N_EXCITATIONS, N_EXCITATIONS - 1), dtype=np.uint8)
