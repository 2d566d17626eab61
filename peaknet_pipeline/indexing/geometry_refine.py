"""Refine a detector's geometry from a run's lattices: distance, shift, tilt, and each panel's shift and rotation.

With the cell held at its known value, a lattice predicts the ray of every spot that it explains. A position p on a panel
should lie on its ray's line: (1 - ŝŝᵀ)(p + t + ω × (p - c)) = 0 is linear in the panel's shift t and small rotation ω. The
whole detector tilts about the point where the beam meets it.
Each step also lets every crystal turn, since crystals would otherwise hide most of a panel's displacement. A rotation of
the whole detector about the beam is not sought: it can't be told from turning all crystals.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.geometry.maps import peak_positions_m
from peaknet_pipeline.indexing.gate import LARGEST_SHARE
from peaknet_pipeline.indexing.geometry_motion import (
    beam_point_m,
    detector_motion,
    move_detector,
    move_panel,
    panel_turns,
    turn_matrix,
    without_common_turn,
)
from peaknet_pipeline.indexing.geometry_solve import N_COMMON, solve_geometry
from peaknet_pipeline.indexing.predict import table_axes
from peaknet_pipeline.indexing.qvectors import energy_of_frames, scattering_vectors
from peaknet_pipeline.indexing.refine_compiled import refine_lattices
from peaknet_pipeline.indexing.symmetry import orientation_matrix
from peaknet_pipeline.indexing.target import Target, make_target
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.types import (
    HC_EV_ANGSTROM,
    BoolArray,
    Float64Array,
    Geometry,
    IntArray,
    UnitCell,
)


@dataclass(frozen=True)
class GeometryRefineParams(Parameters):
    """What of a geometry is refined."""

    refine_distance: bool = parameter(True, meaning="refine the camera length, all panels alike")
    refine_tilt: bool = parameter(
        True, meaning="refine the detector's tilt against the beam, all panels alike"
    )
    refine_panels: bool = parameter(True, meaning="refine each panel's shift and rotation in its plane")
    min_panel_spots: int = parameter(
        50, meaning="panels with fewer explained spots move with the detector only", ge=3
    )
    tolerance: float = parameter(0.003, meaning="distance within which a spot is used", unit="Å⁻¹", gt=0.0)
    n_rounds: int = parameter(10, meaning="rounds of orientations and geometry in turn", ge=1, le=100)
    min_spots: int = parameter(50, meaning="least explained spots of the run", ge=6)


@dataclass(frozen=True)
class GeometryRefinement:
    """Outcome: the new geometry, its shift (x, y, z), metres, its tilt about x and y, rad, and residuals per panel.

    ``panels``: panel, name, n_spots, before_px and after_px (rms distance of spot and predicted ray), and the
    laboratory shift_x_px, shift_y_px and rotation_deg beyond the common shift. ``before_px``, ``after_px``: the run's rms.
    """

    geometry: Geometry
    shift_m: tuple[float, float, float]
    tilt_rad: tuple[float, float]
    before_px: float
    after_px: float
    panels: pd.DataFrame


@dataclass(frozen=True)
class _Spots:
    """Peaks of indexed frames, once per lattice: lattice number, frame, panel, fs, ss and 1/λ of each, (n,)."""

    lattice: IntArray
    frame: IntArray
    panel: IntArray
    fs: Float64Array
    ss: Float64Array
    wave: Float64Array


def refine_geometry(
    peaks: PeakTable,
    lattices: IndexTable,
    *,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    cell: UnitCell,
    params: GeometryRefineParams | None = None,
) -> GeometryRefinement:
    """Refine a geometry from the lattices found with it.

    The distance is found by holding the cell: it is as good as the cell given.

    Raises
    ------
    IndexingError
        Too few spots are explained.

    """
    params = params or GeometryRefineParams()
    spots = _gather(peaks, lattices, photon_energy_ev)
    target, current = make_target(cell), geometry
    rotations = _start(lattices, target)
    before: tuple[Float64Array, BoolArray] | None = None
    for number in range(params.n_rounds):
        rotations = _orient(spots, rotations, current, target, params)
        if before is None:
            rays, position, used = _rays(spots, rotations, current, target, params)
            _check_enough(used, params)
            before = _misses(rays, position, spots, current), used
        with_panels = params.refine_panels and number >= min(3, params.n_rounds // 2)
        current = _step(spots, rotations, current, target, params, with_panels=with_panels)
    current = without_common_turn(geometry, current)
    rotations = _orient(spots, rotations, current, target, params)
    rays, position, used = _rays(spots, rotations, current, target, params)
    return _report(geometry, current, spots, before, (_misses(rays, position, spots, current), used))


def spot_misses(
    peaks: PeakTable,
    lattices: IndexTable,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    cell: UnitCell,
    params: GeometryRefineParams,
) -> tuple[IntArray, Float64Array, BoolArray]:
    """Return frame, distance from the predicted ray (px), and whether a lattice explains it, of each spot of each lattice.

    Each (n,). Orientations are refined at this geometry, the cell is held.
    """
    spots, target = _gather(peaks, lattices, photon_energy_ev), make_target(cell)
    rotations = _orient(spots, _start(lattices, target), geometry, target, params)
    rays, position, used = _rays(spots, rotations, geometry, target, params)
    return spots.frame, _misses(rays, position, spots, geometry), used


def residuals_between(
    peaks: PeakTable,
    lattices: IndexTable,
    *,
    old: Geometry,
    new: Geometry,
    photon_energy_ev: float | Float64Array,
    cell: UnitCell,
    params: GeometryRefineParams,
) -> GeometryRefinement:
    """Return the motion from one geometry to another, with the residuals of the same lattices in both."""
    spots = _gather(peaks, lattices, photon_energy_ev)
    before, after = (
        spot_misses(peaks, lattices, geometry, photon_energy_ev, cell, params)[1:] for geometry in (old, new)
    )
    return _report(old, new, spots, before, after)


def _gather(peaks: PeakTable, lattices: IndexTable, photon_energy_ev: float | Float64Array) -> _Spots:
    numbered = lattices[["frame"]].assign(number=np.arange(len(lattices)))
    rows = (
        peaks[["frame", "panel", "fs", "ss"]].merge(numbered, on="frame").sort_values("number", kind="stable")
    )
    frames = rows["frame"].to_numpy(dtype=np.int64)
    return _Spots(
        lattice=rows["number"].to_numpy(dtype=np.int64),
        frame=frames,
        panel=rows["panel"].to_numpy(dtype=np.int64),
        fs=rows["fs"].to_numpy(dtype=np.float64),
        ss=rows["ss"].to_numpy(dtype=np.float64),
        wave=energy_of_frames(photon_energy_ev, frames) / HC_EV_ANGSTROM,
    )


def _check_enough(used: BoolArray, params: GeometryRefineParams) -> None:
    if used.sum() < params.min_spots:
        raise IndexingError(
            "too few explained spots to refine a geometry",
            expected=f"≥ {params.min_spots}",
            found=int(used.sum()),
            remedy="Index more frames, or start from a better geometry.",
        )


def _start(lattices: IndexTable, target: Target) -> Float64Array:
    primitive = table_axes(lattices) @ np.linalg.inv(target.to_conventional)
    inverse = np.linalg.inv(target.primitive)
    return np.array([orientation_matrix(axes @ inverse) for axes in primitive]).reshape(-1, 3, 3)


def _vectors(spots: _Spots, geometry: Geometry) -> tuple[Float64Array, Float64Array]:
    position = peak_positions_m(geometry, spots.panel, spots.fs, spots.ss, spots.frame)
    return scattering_vectors(position, spots.wave * HC_EV_ANGSTROM), position


def _orient(
    spots: _Spots, rotations: Float64Array, geometry: Geometry, target: Target, params: GeometryRefineParams
) -> Float64Array:
    """Refine the orientations at fixed cell and geometry."""
    q, position = _vectors(spots, geometry)
    n = len(rotations)
    counts = np.bincount(spots.lattice, minlength=n)
    column = np.arange(len(q)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (n, int(counts.max(initial=0)), 3)
    padded, rays, used = np.zeros(shape), np.zeros(shape), np.zeros(shape[:2], dtype=np.bool_)
    padded[spots.lattice, column], used[spots.lattice, column] = q, True
    rays[spots.lattice, column] = position / np.linalg.norm(position, axis=1, keepdims=True)
    turned, _, _ = refine_lattices(
        padded,
        used,
        rays,
        np.arange(n),
        rotations,
        target.primitive,
        target.strains,
        _tolerance(target, params),
        0.0,
        0.0,
        6,
    )
    return np.asarray(turned, dtype=np.float64)


def _rays(
    spots: _Spots, rotations: Float64Array, geometry: Geometry, target: Target, params: GeometryRefineParams
) -> tuple[Float64Array, Float64Array, BoolArray]:
    """Return predicted unit rays (n, 3), positions (n, 3) m, and which spots are explained (n,)."""
    q, position = _vectors(spots, geometry)
    axes = (rotations @ target.primitive)[spots.lattice]
    index = np.rint(np.einsum("nij,nj->ni", np.linalg.inv(axes), q))
    point = np.einsum("nij,nj->ni", axes, index)
    used: BoolArray = np.linalg.norm(q - point, axis=1) < _tolerance(target, params)
    out = point + spots.wave[:, None] * np.array([0.0, 0.0, 1.0])
    return out / np.linalg.norm(out, axis=1, keepdims=True), position, used


def _tolerance(target: Target, params: GeometryRefineParams) -> float:
    """Return the distance within which a spot is used, Å⁻¹: beyond a share of the spacing indices mean little."""
    return min(params.tolerance, LARGEST_SHARE * target.spacing)


def _misses(rays: Float64Array, position: Float64Array, spots: _Spots, geometry: Geometry) -> Float64Array:
    """Return the distance of each spot from its ray, (n,), pixels."""
    size = np.array([p.pixel_size_m for p in geometry.panels])[spots.panel]
    off = position - (position * rays).sum(axis=1)[:, None] * rays
    return np.asarray(np.linalg.norm(off, axis=1) / size, dtype=np.float64)


def _step(
    spots: _Spots,
    rotations: Float64Array,
    geometry: Geometry,
    target: Target,
    params: GeometryRefineParams,
    *,
    with_panels: bool,
) -> Geometry:
    """Move detector and panels by one Gauss-Newton step in which all orientations take part."""
    rays, position, used = _rays(spots, rotations, geometry, target, params)
    weight = _weights(_misses(rays, position, spots, geometry), used)
    counts = np.bincount(spots.panel[weight > 0], minlength=len(geometry.panels))
    centres = (
        np.stack([np.bincount(spots.panel, weight * x, len(counts)) for x in position.T], axis=1)
        / np.maximum(np.bincount(spots.panel, weight, len(counts)), 1e-9)[:, None]
    )
    free = np.zeros(N_COMMON + 3 * len(counts), dtype=np.bool_)
    free[:N_COMMON] = True, True, params.refine_distance, params.refine_tilt, params.refine_tilt
    free[N_COMMON:] = np.repeat(with_panels & (counts >= params.min_panel_spots), 3)
    change = np.zeros(free.size)
    change[free] = solve_geometry(
        (rays, position - centres[spots.panel], position - beam_point_m(geometry), position),
        (spots.lattice, spots.panel, spots.wave),
        weight,
        free,
    )
    panels = []
    for panel, centre, (x, y, angle) in zip(
        geometry.panels, centres, change[N_COMMON:].reshape(-1, 3), strict=True
    ):
        turn = turn_matrix(np.array([0.0, 0.0, angle]))
        panels.append(move_panel(panel, np.array([x, y, 0.0]), turn, centre))
    moved = replace(geometry, panels=tuple(panels))
    return move_detector(moved, change[:3], np.array([change[3], change[4], 0.0]))


def _weights(miss: Float64Array, used: BoolArray) -> Float64Array:
    """Return Tukey weights with a cut at six robust standard deviations of the spots used."""
    scale = max(float(np.median(miss[used])), 1e-3)
    return np.asarray(used * np.maximum(1.0 - (miss / (6.0 * scale)) ** 2, 0.0) ** 2, dtype=np.float64)


def _report(
    old: Geometry,
    new: Geometry,
    spots: _Spots,
    before: tuple[Float64Array, BoolArray] | None,
    after: tuple[Float64Array, BoolArray],
) -> GeometryRefinement:
    first = before or after
    shift, turn, beyond_m = detector_motion(old, new)
    beyond = beyond_m / np.array([p.pixel_size_m for p in old.panels])[:, None]
    own = [spots.panel == number for number in range(len(old.panels))]
    panels = pd.DataFrame(
        {
            "panel": np.arange(len(own)),
            "name": [p.name for p in old.panels],
            "n_spots": [int((o & after[1]).sum()) for o in own],
            "before_px": [_rms(first[0][o & first[1]]) for o in own],
            "after_px": [_rms(after[0][o & after[1]]) for o in own],
            "shift_x_px": beyond[:, 0],
            "shift_y_px": beyond[:, 1],
            "rotation_deg": np.degrees(panel_turns(old, new)),
        }
    )
    return GeometryRefinement(
        geometry=replace(new, text=""),
        shift_m=(float(shift[0]), float(shift[1]), float(shift[2])),
        tilt_rad=(float(turn[0]), float(turn[1])),
        before_px=_rms(first[0][first[1]]),
        after_px=_rms(after[0][after[1]]),
        panels=panels,
    )


def _rms(values: Float64Array) -> float:
    return float(np.sqrt((values**2).mean())) if values.size else float("nan")
