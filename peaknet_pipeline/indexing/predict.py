"""Which reflections a lattice puts on the detector, and where."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from peaknet_pipeline.geometry.distance import camera_lengths_m
from peaknet_pipeline.geometry.rays import project_rays
from peaknet_pipeline.indexing.cell import cell_from_axes, reciprocal_matrix
from peaknet_pipeline.indexing.lattice import AXIS_COLUMNS
from peaknet_pipeline.indexing.polish import shifted_spots
from peaknet_pipeline.indexing.qvectors import energy_of_frames, spot_vectors
from peaknet_pipeline.indexing.symmetry import systematically_absent
from peaknet_pipeline.indexing.target import lattice_points
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.schemas import REFLECTIONS, IndexTable, PeakTable, ReflectionTable
from peaknet_pipeline.tables import empty_table, make_table
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float64Array, Geometry, UnitCell

MAX_INV_D = 1.0
"""Resolution, Å⁻¹, beyond which nothing is predicted when neither peaks nor parameters set a limit."""


@dataclass(frozen=True)
class PredictParams(Parameters):
    """How far a lattice's reflections are predicted."""

    max_inv_d: float = parameter(
        0.0,
        meaning="resolution limit 1/d; 0: as far as the lattice's peaks reach, times the margin",
        unit="Å⁻¹",
        ge=0.0,
        le=2.0,
    )
    resolution_margin: float = parameter(
        1.5, meaning="how much further than its peaks a lattice is predicted", ge=1.0, le=3.0
    )
    profile_radius: float = parameter(
        0.0, meaning="largest excitation error; 0: estimated from the peaks", unit="Å⁻¹", ge=0.0, le=0.05
    )
    profile_quantile: float = parameter(
        0.97, meaning="share of the explained peaks whose excitation error the profile holds", gt=0.0, le=1.0
    )
    min_profile_radius: float = parameter(
        0.0002, meaning="least profile radius estimated", unit="Å⁻¹", gt=0.0
    )
    max_profile_radius: float = parameter(
        0.005, meaning="largest profile radius estimated", unit="Å⁻¹", gt=0.0
    )
    tolerance: float = parameter(
        0.0025, meaning="distance within which a peak belongs to a lattice", unit="Å⁻¹", gt=0.0
    )


@dataclass(frozen=True)
class LatticeExtent:
    """How far a lattice is predicted, ``profile_radius`` and ``max_inv_d``, how far its peaks reach, ``peak_inv_d``; Å⁻¹."""

    profile_radius: float
    max_inv_d: float
    peak_inv_d: float


def predict_reflections(
    lattices: IndexTable,
    *,
    cell: UnitCell,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    peaks: PeakTable | None = None,
    params: PredictParams | None = None,
    extents: list[LatticeExtent] | None = None,
) -> ReflectionTable:
    """Predict the reflections of every lattice on the detector.

    A reflection is predicted where its lattice point lies within the profile radius of the Ewald sphere and its ray,
    s_out = q + s_in/λ, meets a panel. Profile radius and resolution limit are estimated per lattice from the peaks that it
    explains, drawn towards the run's median where these are few. Reflections that the centring forbids are left out. Where a
    lattice has a detector shift of its own, the positions are those on the geometry as given.

    Parameters
    ----------
    photon_energy_ev : float or (n_frames,) float, eV
        By frame number.
    peaks : PeakTable, optional
        What the lattices were found from; without it the parameters alone set the limits.
    extents : list of LatticeExtent, optional
        Used instead of an estimate from ``peaks``.

    Returns
    -------
    ReflectionTable
        Ordered by frame, lattice and Miller index; intensities NaN.

    """
    params = params or PredictParams()
    if not len(lattices):
        return empty_table(REFLECTIONS)
    frames = lattices["frame"].to_numpy(dtype=np.int64)
    waves = energy_of_frames(photon_energy_ev, frames) / HC_EV_ANGSTROM
    axes, shifts = table_axes(lattices), table_shifts(lattices, geometry)
    extents = extents or lattice_extents(
        lattices, peaks, geometry=geometry, photon_energy_ev=photon_energy_ev, params=params
    )
    indices = _miller_indices(cell, max(extent.max_inv_d for extent in extents))
    parts = []
    for i, lattice in enumerate(lattices["lattice"]):
        part = _predict_one(axes[i], waves[i], shifts[i], indices, extents[i], geometry, int(frames[i]))
        n = len(part["h"])
        parts.append(part | {"frame": np.full(n, frames[i]), "lattice": np.full(n, lattice)})
    tables = [make_table(REFLECTIONS, part) for part in parts if len(part["h"])]
    return pd.concat(tables, ignore_index=True) if tables else empty_table(REFLECTIONS)


def table_axes(lattices: IndexTable) -> Float64Array:
    """Return reciprocal bases, (n, 3, 3), Å⁻¹, columns **a***, **b***, **c***, of an INDEX table."""
    flat = lattices[AXIS_COLUMNS].to_numpy(dtype=np.float64).reshape(-1, 3, 3)
    return np.asarray(np.swapaxes(flat, 1, 2), dtype=np.float64)


def table_shifts(lattices: IndexTable, geometry: Geometry) -> Float64Array:
    """Return each lattice's detector shift over the mean camera length, (n, 2), rad; 0 where it was kept."""
    clen_m = camera_lengths_m(geometry, lattices["frame"].to_numpy(dtype=np.int64))
    shift_mm = lattices[["shift_x_mm", "shift_y_mm"]].to_numpy(dtype=np.float64)
    return np.asarray(np.nan_to_num(shift_mm) / (1e3 * clen_m[:, None]), dtype=np.float64)


def move_spots(q: Float64Array, wave: float, shift: Float64Array) -> Float64Array:
    """Return the spots, (n, 3) Å⁻¹, that the same pixels are on a detector shifted by ``shift`` (2,), rad."""
    beam = torch.tensor([[0.0, 0.0, wave]], dtype=torch.float64)
    moved = shifted_spots(torch.from_numpy(q)[None], beam, torch.from_numpy(shift)[None])[0].numpy()
    return np.asarray(moved, dtype=np.float64)


def excitation_errors(q: Float64Array, wave: float) -> Float64Array:
    """Return the distance, (n,), Å⁻¹, of points from the Ewald sphere of radius ``wave`` = 1/λ, + outside."""
    out = np.linalg.norm(q + np.array([0.0, 0.0, wave]), axis=1)
    return np.asarray(out - wave, dtype=np.float64)


def lattice_extents(
    lattices: IndexTable,
    peaks: PeakTable | None,
    *,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    params: PredictParams,
) -> list[LatticeExtent]:
    """Estimate how far each lattice diffracts from the peaks that it explains."""
    raw = [(np.zeros(0), np.zeros(0))] * len(lattices)
    if peaks is not None:
        q = spot_vectors(peaks, geometry=geometry, photon_energy_ev=photon_energy_ev)
        rows = peaks.groupby("frame", sort=False).indices
        frames = lattices["frame"].to_numpy(dtype=np.int64)
        waves = energy_of_frames(photon_energy_ev, frames) / HC_EV_ANGSTROM
        raw = [
            _explained(move_spots(q[rows.get(frame, [])], wave, shift), axes, wave, params.tolerance)
            for frame, axes, wave, shift in zip(
                frames, table_axes(lattices), waves, table_shifts(lattices, geometry), strict=True
            )
        ]
    if not raw:
        return []
    pooled = np.concatenate([error for error, _ in raw])
    reach = np.array([inv_d.max() for _, inv_d in raw if inv_d.size])
    typical = _quantile(pooled, params.profile_quantile, 2.0 * params.min_profile_radius)
    limit = float(np.median(reach)) if reach.size else MAX_INV_D / params.resolution_margin
    return [_extent(error, inv_d, typical, limit, params) for error, inv_d in raw]


def _explained(
    q: Float64Array, axes: Float64Array, wave: float, tolerance: float
) -> tuple[Float64Array, Float64Array]:
    points = np.rint(q @ np.linalg.inv(axes).T) @ axes.T
    near = np.linalg.norm(q - points, axis=1) <= tolerance
    return np.abs(excitation_errors(points[near], wave)), np.linalg.norm(q[near], axis=1)


def _extent(
    error: Float64Array, inv_d: Float64Array, typical: float, limit: float, params: PredictParams
) -> LatticeExtent:
    own = _quantile(error, params.profile_quantile, typical)
    trust = error.size / (error.size + 20.0)
    radius = params.profile_radius or float(
        np.clip(trust * own + (1.0 - trust) * typical, params.min_profile_radius, params.max_profile_radius)
    )
    reach = _quantile(inv_d, 0.98, limit)
    limit = params.max_inv_d or min(reach * params.resolution_margin, MAX_INV_D)
    return LatticeExtent(radius, limit, reach)


def _quantile(values: Float64Array, share: float, default: float) -> float:
    return float(np.quantile(values, share)) if values.size else default


def _miller_indices(cell: UnitCell, max_inv_d: float) -> Float64Array:
    """Return all allowed indices within the limit, with a margin for strained cells."""
    indices = lattice_points(reciprocal_matrix(cell), max_inv_d * 1.06)
    return indices[~systematically_absent(indices, cell.centering)]


def _predict_one(
    axes: Float64Array,
    wave: float,
    shift: Float64Array,
    indices: Float64Array,
    extent: LatticeExtent,
    geometry: Geometry,
    frame: int,
) -> dict[str, npt.NDArray[Any]]:
    points = indices @ axes.T
    error = excitation_errors(points, wave)
    inv_d = np.linalg.norm(points, axis=1)
    keep = np.flatnonzero((np.abs(error) <= extent.profile_radius) & (inv_d <= extent.max_inv_d))
    keep = keep[points[keep, 2] > -wave]
    out = points[keep] + np.array([0.0, 0.0, wave])
    panel, fs, ss = project_rays(geometry, out / out[:, 2:] - np.append(shift, 0.0), frame=frame)
    hit = panel >= 0
    keep = keep[hit]
    h, k, m = indices[keep].T
    return {
        "h": h,
        "k": k,
        "l": m,
        "panel": panel[hit],
        "fs": fs[hit],
        "ss": ss[hit],
        "inv_d": inv_d[keep],
        "excitation_error": error[keep],
    }


def table_cells(lattices: IndexTable, cell: UnitCell) -> list[UnitCell]:
    """Return each lattice's own refined cell."""
    return [cell_from_axes(axes, like=cell) for axes in table_axes(lattices)]
