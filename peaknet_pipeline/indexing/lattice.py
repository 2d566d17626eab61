"""The known-cell indexer: peaks → lattices, batched over frames, on a processor or a GPU."""

from dataclasses import dataclass

import numpy as np
import torch

from peaknet_pipeline.devices import choose_device
from peaknet_pipeline.geometry.distance import camera_lengths_m
from peaknet_pipeline.indexing.gate import Verdict, judge
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.qvectors import SpotBatch, batch_spots, spot_vectors
from peaknet_pipeline.indexing.refining import polish, refine_on_device, refine_on_processor
from peaknet_pipeline.indexing.repeats import find_repeats
from peaknet_pipeline.indexing.search import find_orientations
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.indexing.target import Target, make_target
from peaknet_pipeline.schemas import INDEX, IndexTable, PeakTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import BoolArray, Float64Array, Geometry, IntArray, UnitCell

AXIS_COLUMNS = [f"{axis}star_{xyz}" for axis in "abc" for xyz in "xyz"]


@dataclass(frozen=True)
class LatticeSet:
    """Accepted lattices, one entry each.

    ``batch`` position of the frame, ``lattice`` number in the frame, ``axes`` (n, 3, 3) Å⁻¹ conventional **a***, **b***,
    **c*** as columns, ``n_peaks``, ``n_explained``, ``residual`` Å⁻¹, ``significance`` log10 before the last refinement,
    ``explained`` (n, m) spots, ``shift`` (n, 2) the detector's refined shift over the camera length, rad.
    """

    batch: IntArray
    lattice: IntArray
    axes: Float64Array
    n_peaks: IntArray
    n_explained: IntArray
    residual: Float64Array
    significance: Float64Array
    explained: BoolArray
    shift: Float64Array


def index_peaks(
    peaks: PeakTable,
    *,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    cell: UnitCell,
    params: IndexParams | None = None,
) -> IndexTable:
    """Index every frame of a peak table with a known cell.

    Parameters
    ----------
    peaks : PeakTable
    geometry : Geometry
        With known camera length.
    photon_energy_ev : float or (n_frames,) float, eV
        One value, or one per frame of the run, by frame number.
    cell : UnitCell
    params : IndexParams, optional

    Returns
    -------
    IndexTable
        One row per lattice; frames without one have no row. The same peaks give the same table, whatever their order.

    Raises
    ------
    CellError, GeometryError, IndexingError
        The cell is impossible, a panel number or camera length is wrong, an energy is missing.

    """
    params = params or IndexParams()
    batch = offered_spots(peaks, geometry=geometry, photon_energy_ev=photon_energy_ev, params=params)
    found = index_vectors(batch, cell=cell, params=params)
    clen_m = camera_lengths_m(geometry, batch.frame[found.batch]) if params.beam_sigma > 0 else None
    return lattice_table(found, batch, clen_m=clen_m)


def offered_spots(
    peaks: PeakTable, *, geometry: Geometry, photon_energy_ev: float | Float64Array, params: IndexParams
) -> SpotBatch:
    """Return the spots that the indexer is offered: all peaks but those that repeat from frame to frame."""
    repeats = find_repeats(peaks, min_frames=params.repeat_frames, min_fraction=params.repeat_fraction)
    kept = peaks[~repeats]
    q = spot_vectors(kept, geometry=geometry, photon_energy_ev=photon_energy_ev)
    frames = kept["frame"].to_numpy(dtype=np.int64)
    return batch_spots(frames, q, photon_energy_ev=photon_energy_ev)


def lattice_table(found: LatticeSet, batch: SpotBatch, *, clen_m: Float64Array | None = None) -> IndexTable:
    """Return accepted lattices as an INDEX table, ordered by frame and lattice.

    With the camera length of each one's frame, (n_lattices,), metres, also their shifts.
    """
    columns: dict[str, object] = {"frame": batch.frame[found.batch], "lattice": found.lattice}
    flat = np.swapaxes(found.axes, 1, 2).reshape(-1, 9)
    columns |= {name: flat[:, i] for i, name in enumerate(AXIS_COLUMNS)}
    columns |= {"n_peaks": found.n_peaks, "n_explained": found.n_explained, "residual": found.residual}
    if clen_m is not None:
        columns |= {f"shift_{xyz}_mm": 1e3 * clen_m * found.shift[:, i] for i, xyz in enumerate("xy")}
    return make_table(INDEX, columns)


def index_vectors(batch: SpotBatch, *, cell: UnitCell, params: IndexParams | None = None) -> LatticeSet:
    """Index padded spots; the explained ones are taken out and the rest tried again, up to ``max_lattices`` times."""
    params = params or IndexParams()
    target = make_target(cell)
    device = choose_device(params.device)
    parts = []
    for begin in range(0, len(batch.frame), params.frames_at_once):
        which = np.arange(begin, min(begin + params.frames_at_once, len(batch.frame)))
        parts.append(_index_chunk(batch.take(which), begin, target, params, device))
    return _join(parts, batch.q.shape[1])


def _index_chunk(
    batch: SpotBatch, offset: int, target: Target, params: IndexParams, device: torch.device
) -> LatticeSet:
    remaining = batch.used.copy()
    found: list[LatticeSet] = []
    active = np.flatnonzero(remaining.sum(axis=1) >= params.min_peaks)
    for number in range(params.max_lattices):
        if not active.size:
            break
        new = _one_pass(batch, remaining, active, number, target, params, device)
        new = _without_repeats(new, found, target.cell, params.min_misorientation_deg)
        remaining[new.batch] &= ~new.explained
        found.append(new)
        active = new.batch[remaining[new.batch].sum(axis=1) >= params.min_peaks]
    joined = _join(found, batch.q.shape[1])
    order = np.lexsort((joined.lattice, joined.batch))
    return _select(joined, order, offset)


def _one_pass(
    batch: SpotBatch,
    remaining: BoolArray,
    active: IntArray,
    number: int,
    target: Target,
    params: IndexParams,
    device: torch.device,
) -> LatticeSet:
    """Find at most one further lattice in each active frame."""
    part, used = batch.take(active), remaining[active]
    frame, rotation = find_orientations(part.q, used, target, params, device)
    if not frame.size:
        return _join([], batch.q.shape[1])
    refine = refine_on_processor if device.type == "cpu" else refine_on_device
    lattices, owner = refine(part, used, frame, rotation, target, params, device)
    verdict = _judge(part.q[owner], used[owner], lattices, target, params, first=number == 0)
    best = _winners(owner, verdict)
    owner = owner[best]
    polished, shift, spots = polish(part.take(owner), used[owner], lattices[best], target, params, device)
    last = _judge(spots, used[owner], polished, target, params, first=number == 0)
    better = last.accepted
    chosen = np.where(better[:, None, None], polished, lattices[best])
    distance = _distances(np.where(better[:, None, None], spots, part.q[owner]), chosen)
    explained = np.where(better[:, None], last.explained, verdict.explained[best])
    return LatticeSet(
        batch=active[owner],
        lattice=np.full(best.size, number, dtype=np.int64),
        axes=chosen @ target.to_conventional,
        n_peaks=part.used.sum(axis=1)[owner],
        n_explained=np.where(better, last.n_explained, verdict.n_explained[best]),
        residual=np.where(better, last.residual, verdict.residual[best]),
        significance=verdict.significance[best],
        explained=explained | (distance <= params.final_tolerance),
        shift=np.where(better[:, None], shift, 0.0),
    )


def _judge(
    q: Float64Array, used: BoolArray, axes: Float64Array, target: Target, params: IndexParams, *, first: bool
) -> Verdict:
    return judge(
        _distances(q, axes),
        used,
        _reach(q, used),
        volume=target.volume,
        spacing=target.spacing,
        n_rotations=target.n_rotations,
        params=params,
        first=first,
    )


def _distances(q: Float64Array, axes: Float64Array) -> Float64Array:
    """Return each spot's distance from its lattice point, (n, m), Å⁻¹."""
    index = np.rint(q @ np.swapaxes(np.linalg.inv(axes), 1, 2))
    return np.asarray(np.linalg.norm(q - index @ np.swapaxes(axes, 1, 2), axis=2), dtype=np.float64)


def _winners(owner: IntArray, verdict: Verdict) -> IntArray:
    """Return the most significant accepted candidate of each frame."""
    order = np.lexsort((verdict.residual, -np.round(verdict.significance, 6), ~verdict.accepted, owner))
    first = np.ones(order.size, dtype=np.bool_)
    first[1:] = owner[order][1:] != owner[order][:-1]
    best = order[first]
    return best[verdict.accepted[best]]


def _reach(q: Float64Array, used: BoolArray) -> Float64Array:
    squares = np.where(used, (q**2).sum(axis=2), 0.0).sum(axis=1)
    return np.asarray(np.sqrt(squares / np.maximum(used.sum(axis=1), 1)), dtype=np.float64)


def _without_repeats(
    new: LatticeSet, found: list[LatticeSet], cell: UnitCell, min_angle_deg: float
) -> LatticeSet:
    keep = np.ones(new.batch.size, dtype=np.bool_)
    for i, frame in enumerate(new.batch):
        for earlier in found:
            for axes in earlier.axes[earlier.batch == frame]:
                keep[i] &= misorientation_deg(axes, new.axes[i], cell) >= min_angle_deg
    return _select(new, np.flatnonzero(keep), 0)


def _select(lattices: LatticeSet, which: IntArray, offset: int) -> LatticeSet:
    fields = {name: getattr(lattices, name)[which] for name in LatticeSet.__dataclass_fields__}
    fields["batch"] = fields["batch"] + offset
    return LatticeSet(**fields)


def _join(parts: list[LatticeSet], n_spots: int) -> LatticeSet:
    if not parts:
        whole, real = np.zeros(0, dtype=np.int64), np.zeros(0)
        nothing = np.zeros((0, n_spots), dtype=np.bool_)
        return LatticeSet(
            whole, whole, np.zeros((0, 3, 3)), whole, whole, real, real, nothing, np.zeros((0, 2))
        )
    fields = {
        name: np.concatenate([getattr(p, name) for p in parts]) for name in LatticeSet.__dataclass_fields__
    }
    return LatticeSet(**fields)
