"""The unknown cell of a run, by consensus of its frames."""

import itertools
from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.indexing.blind import BlindLattice, BlindParams, find_lattice
from peaknet_pipeline.indexing.bravais import conventional_cell
from peaknet_pipeline.indexing.cell import cell_from_axes
from peaknet_pipeline.indexing.qvectors import SpotBatch, batch_spots, spot_vectors
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import Float64Array, Geometry, UnitCell

MAX_REFERENCES = 20
"""Most significant lattices that the others are compared with."""


@dataclass(frozen=True)
class CellConsensus:
    """A run's cell and the vote for it: frames tried, frames with a lattice, frames that agree, all reduced cells.

    ``reduced`` (n_with_lattice, 6): lengths (Å) and angles (deg) of each frame's reduced cell; ``agreeing``
    (n_with_lattice,) those that the cell is the median of.
    """

    cell: UnitCell
    n_tried: int
    n_agreeing: int
    reduced: Float64Array
    agreeing: tuple[bool, ...]


def find_cell(
    peaks: PeakTable,
    *,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    params: BlindParams | None = None,
) -> CellConsensus:
    """Find the cell that most frames of a run agree on.

    Raises
    ------
    IndexingError
        Too few frames agree.

    """
    q = spot_vectors(peaks, geometry=geometry, photon_energy_ev=photon_energy_ev)
    frames = peaks["frame"].to_numpy(dtype=np.int64)
    return find_cell_vectors(batch_spots(frames, q, photon_energy_ev=photon_energy_ev), params=params)


def find_cell_vectors(batch: SpotBatch, *, params: BlindParams | None = None) -> CellConsensus:
    """Find the cell that most frames of padded spots agree on; see :func:`find_cell`."""
    params = params or BlindParams()
    counts = batch.used.sum(axis=1)
    tried = [i for i in np.argsort(-counts, kind="stable") if counts[i] >= params.min_peaks][
        : params.max_frames
    ]
    lattices: list[BlindLattice] = []
    for i in tried:
        beam = None if batch.beam is None else batch.beam[i]
        found = find_lattice(batch.q[i][batch.used[i]], beam=beam, params=params)
        if found is not None:
            lattices.append(found)
    aligned = _vote(lattices, params)
    members = [rows for rows in aligned if rows is not None]
    if len(members) < params.min_agreeing:
        raise IndexingError(
            "no cell that frames agree on",
            expected=f"≥ {params.min_agreeing} agreeing frames",
            found=f"{len(members)} of {len(tried)} tried",
            remedy="Give more or stronger frames, or check the geometry's distance and beam centre.",
        )
    metric = np.median([rows @ rows.T for rows in members], axis=0)
    cell = conventional_cell(np.linalg.cholesky(metric))
    reduced = np.array([_parameters(found.rows) for found in lattices]).reshape(-1, 6)
    return CellConsensus(cell, len(tried), len(members), reduced, tuple(a is not None for a in aligned))


def align_basis(
    rows: Float64Array, reference: Float64Array, *, length_agreement: float, angle_agreement_deg: float
) -> Float64Array | None:
    """Return the same lattice in the basis, (3, 3) rows, whose shape is nearest to the reference's; None when none is near.

    A lattice has many reduced bases of nearly the same shape when it is nearly symmetric; lengths and angles are compared
    only after the best has been picked among all small combinations.
    """
    steps = np.array([s for s in itertools.product((-1, 0, 1), repeat=3) if any(s)], dtype=np.float64)
    vectors = steps @ rows
    lengths, wanted = np.linalg.norm(vectors, axis=1), np.linalg.norm(reference, axis=1)
    near = [np.flatnonzero(np.abs(np.log(lengths / w)) < length_agreement) for w in wanted]
    i, j, k = (m.ravel() for m in np.meshgrid(*near, indexing="ij"))
    angles = [_angles(vectors[a], vectors[b]) for a, b in ((j, k), (i, k), (i, j))]
    target = [_angles(reference[a][None], reference[b][None]) for a, b in ((1, 2), (0, 2), (0, 1))]
    off = np.max([np.abs(a - t) for a, t in zip(angles, target, strict=True)], axis=0)
    whole = np.abs(np.abs(np.linalg.det(np.stack([steps[i], steps[j], steps[k]], axis=1))) - 1.0) < 1e-6
    off = np.where(whole, off, np.inf)
    if not off.size or off.min() > angle_agreement_deg:
        return None
    best = int(np.argmin(off))
    return np.asarray(vectors[[i[best], j[best], k[best]]], dtype=np.float64)


def _angles(first: Float64Array, second: Float64Array) -> Float64Array:
    cosine = (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))), dtype=np.float64)


def _parameters(rows: Float64Array) -> list[float]:
    cell = cell_from_axes(np.asarray(np.linalg.inv(rows), dtype=np.float64))
    return [cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma]


def _vote(lattices: list[BlindLattice], params: BlindParams) -> list[Float64Array | None]:
    """Return every lattice's basis aligned to the one that most agree with, None where it doesn't agree."""
    best: list[Float64Array | None] = [None] * len(lattices)
    for reference in sorted(lattices, key=lambda found: -found.significance)[:MAX_REFERENCES]:
        aligned = [
            align_basis(
                found.rows,
                reference.rows,
                length_agreement=params.length_agreement,
                angle_agreement_deg=params.angle_agreement_deg,
            )
            for found in lattices
        ]
        if sum(a is not None for a in aligned) > sum(b is not None for b in best):
            best = aligned
    return best
