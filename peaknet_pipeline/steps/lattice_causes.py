"""Why hits don't index although they have peaks: another cell, another distance, another beam centre."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.indexing.blind import BlindParams
from peaknet_pipeline.indexing.consensus import CellConsensus, align_basis, find_cell
from peaknet_pipeline.indexing.examine import examine_cell
from peaknet_pipeline.indexing.geometry_refine import (
    GeometryRefinement,
    GeometryRefineParams,
    refine_geometry,
)
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.symmetry import primitive_matrix
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.steps.judge_cell import judge_cell
from peaknet_pipeline.steps.peak_causes import Evidence, Finding
from peaknet_pipeline.types import Float64Array, Geometry, IntArray, UnitCell

N_STRONG = 24
"""Hits with most peaks that other cells and geometries are tried on."""

N_BLIND = 10
"""Of these, hits that are searched without the cell."""

N_MOVED = 5
"""Of these, hits that the beam is sought with."""

STEP_PX = 2.5
"""Step of the search for the beam; indexing forgives about half of it."""

SAME_CELL = 0.008
"""Relative difference of scale within which a found cell is the given one."""

MAX_SCALE = 0.3
"""Largest error of the distance that is thought of."""

REFINED_LATTICES = 60
"""Lattices that the geometry of a run that indexes is judged by."""

LESS_VOLUME, SAME_SHARE, MORE_SHARE = 0.7, 0.9, 1.1
"""A found cell of less than this volume of a doubted one must explain this share of the peaks that the doubted one does; a
larger one must explain this much more."""

CONVINCING = 0.7
"""Share of strong hits, or of their peaks, that a cause explains, beyond which no other is sought."""


def find_lattice_causes(evidence: Evidence) -> list[Finding]:
    """Say why hits have no lattice, or, where they have, how far the geometry is off."""
    hits, indexed = evidence.hits(), evidence.indexed_hits()
    if len(hits) < evidence.params.min_hits:
        return []
    doubt, healthy = _doubt(evidence), len(indexed) >= evidence.params.healthy_rate * len(hits)
    if healthy and not doubt:
        return _off_geometry(evidence)
    trial = _strong_hits(evidence, hits)
    better = _better_cell(evidence, trial, doubt) if doubt else []
    if better or healthy:
        return better or [_doubtful(doubt)]
    found = _other_beam(evidence, trial)
    if not found or found[0].share < CONVINCING:
        # A large enough cell explains some of anything: the beam centre is asked first, the better answer counts.
        found = sorted([*found, *_other_lattice(evidence, trial)], key=lambda f: -f.share)[:1]
    return found or [_unexplained(len(hits), len(indexed))]


def _doubt(evidence: Evidence) -> str:
    """Return what the peaks of indexed frames say against the cell; empty if nothing."""
    found = examine_cell(
        evidence.clean_peaks(),
        evidence.lattices,
        geometry=evidence.geometry,
        photon_energy_ev=evidence.photon_energy_ev,
        cell=evidence.cell,
        params=evidence.cell_check,
    )
    verdict = judge_cell(found, evidence.cell_check)
    return "" if verdict.passed else verdict.message


def _doubtful(doubt: str) -> Finding:
    return Finding(
        "cell doubtful",
        1.0,
        f"{doubt}; but the strong hits agree on no other cell that explains their peaks",
        "Check the cell file, its centring too; try peaknet cell on more frames. Split crystals can look like this.",
    )


def _unexplained(n_hits: int, n_indexed: int) -> Finding:
    return Finding(
        "not indexed",
        1.0 - n_indexed / n_hits,
        f"{n_indexed} of {n_hits} hits have a lattice, and neither another cell nor another distance or beam centre "
        "indexes them",
        "Look at frames: several crystals at once, or peaks that are none; then at the photon energy.",
    )


@dataclass(frozen=True)
class _Trial:
    """The hits that alternatives are tried on, and how many of them have a lattice now."""

    peaks: PeakTable
    frames: IntArray
    indexed: int


def _strong_hits(evidence: Evidence, hits: IntArray) -> _Trial:
    peaks = evidence.clean_peaks()
    counts = peaks["frame"].value_counts().reindex(hits)
    frames = np.sort(counts.sort_values(ascending=False, kind="stable").index.to_numpy(np.int64)[:N_STRONG])
    rows = peaks[peaks["frame"].isin(frames)].reset_index(drop=True)
    indexed = int(np.isin(frames, evidence.lattices["frame"].to_numpy(np.int64)).sum())
    return _Trial(rows, frames, indexed)


def _index(evidence: Evidence, peaks: PeakTable, geometry: Geometry, cell: UnitCell) -> IndexTable:
    return index_peaks(
        peaks, geometry=geometry, photon_energy_ev=evidence.photon_energy_ev, cell=cell, params=evidence.index
    )


def _gains(trial: _Trial, lattices: IndexTable) -> int | None:
    """Return how many frames index, if that is clearly more than now."""
    n = int(lattices["frame"].nunique())
    return n if n >= max(3, trial.indexed + 3, len(trial.frames) // 3) else None


def _other_lattice(evidence: Evidence, trial: _Trial) -> list[Finding]:
    """Search without the cell; a lattice that is the given one at another scale speaks of the distance."""
    found = _blind_cell(evidence, trial)
    if found is None:
        return []
    scale = _scale_of(found.cell, evidence.cell)
    if scale is None:
        return _wrong_cell(evidence, trial, found.cell, found.n_agreeing, found.n_tried)
    return [] if abs(scale - 1.0) < SAME_CELL else _wrong_distance(evidence, trial, scale)


def _blind_cell(evidence: Evidence, trial: _Trial) -> CellConsensus | None:
    try:
        return find_cell(
            trial.peaks,
            geometry=evidence.geometry,
            photon_energy_ev=evidence.photon_energy_ev,
            params=BlindParams(max_frames=N_BLIND),
        )
    except IndexingError:
        return None


def _scale_of(found: UnitCell, given: UnitCell) -> float | None:
    """Return by which factor the found lattice is the given one enlarged; None when it is another."""
    rows, reference = (
        np.asarray(np.linalg.inv(primitive_matrix(cell)), dtype=np.float64) for cell in (found, given)
    )
    scale = float(np.cbrt(np.linalg.det(rows) / np.linalg.det(reference)))
    if abs(scale - 1.0) > MAX_SCALE:
        return None
    aligned = align_basis(rows / scale, reference, length_agreement=0.02, angle_agreement_deg=2.0)
    return None if aligned is None else scale


def _wrong_cell(
    evidence: Evidence, trial: _Trial, cell: UnitCell, n_agreeing: int, n_tried: int
) -> list[Finding]:
    n = _gains(trial, _index(evidence, trial.peaks, evidence.geometry, cell))
    if n is None:
        return []
    return [
        Finding(
            "wrong cell",
            n / len(trial.frames),
            f"{n_agreeing} of {n_tried} strong hits agree on another cell, {cell}, which indexes {n} of "
            f"{len(trial.frames)}; the given one, {evidence.cell}, indexes {trial.indexed}",
            "Check the cell file, and whether this is the sample that was meant.",
            {"indexed": n, "indexed_now": trial.indexed},
        )
    ]


def _better_cell(evidence: Evidence, trial: _Trial, doubt: str) -> list[Finding]:
    """Search without the doubted cell for one that explains as many peaks with a smaller cell, or more of them."""
    found = _blind_cell(evidence, trial)
    if found is None or _scale_of(found.cell, evidence.cell) is not None:
        return []
    lattices = _index(evidence, trial.peaks, evidence.geometry, found.cell)
    now = evidence.lattices[evidence.lattices["frame"].isin(trial.frames)]
    explained, before = (float(t["n_explained"].sum()) / len(trial.peaks) for t in (lattices, now))
    smaller = _volume(found.cell) < LESS_VOLUME * _volume(evidence.cell)
    if explained < (SAME_SHARE if smaller else MORE_SHARE) * before:
        return []
    n = int(lattices["frame"].nunique())
    return [
        Finding(
            "wrong cell",
            n / len(trial.frames),
            f"{doubt}. {found.n_agreeing} of {found.n_tried} strong hits agree on another cell, {found.cell}, "
            f"which explains {explained:.0%} of the peaks of {len(trial.frames)} strong hits; the given one, "
            f"{evidence.cell}, explains {before:.0%}",
            "Check the cell file, and whether this is the sample that was meant.",
            {"indexed": n, "indexed_now": trial.indexed, "explained": explained, "explained_now": before},
        )
    ]


def _volume(cell: UnitCell) -> float:
    """Return the volume of a cell's primitive lattice, Å³."""
    return float(1.0 / np.linalg.det(primitive_matrix(cell)))


def _wrong_distance(evidence: Evidence, trial: _Trial, scale: float) -> list[Finding]:
    nearer = _scaled_distance(evidence.geometry, 1.0 / scale)
    lattices = _index(evidence, trial.peaks, nearer, evidence.cell)
    n = _gains(trial, lattices)
    if n is None:
        return []
    refined = _refine(evidence, trial.peaks, lattices, nearer, distance=True)
    now, then = (_clen_mm(g) for g in (evidence.geometry, refined.geometry if refined else nearer))
    return [
        Finding(
            "geometry off: distance",
            n / len(trial.frames),
            f"the lattices are the given cell {now / then:.3f} times too large: with the detector at {then:.2f} mm instead "
            f"of {now:.2f} mm, {n} of {len(trial.frames)} strong hits index instead of {trial.indexed}",
            "Correct clen in the geometry; a photon energy that is off by the same factor looks the same.",
            {"scale": now / then, "clen_mm": then, "indexed": n, "indexed_now": trial.indexed},
        )
    ]


def _clen_mm(geometry: Geometry) -> float:
    return 1e3 * float(np.median([panel.clen_m for panel in geometry.panels]))


def _scaled_distance(geometry: Geometry, factor: float) -> Geometry:
    panels = tuple(replace(panel, clen_m=panel.clen_m * factor) for panel in geometry.panels)
    return replace(geometry, panels=panels)


def _other_beam(evidence: Evidence, trial: _Trial) -> list[Finding]:
    """Move the detector in steps until lattices explain the strongest hits' peaks, then fit the shift."""
    strongest = trial.frames[np.argsort(-_counts(trial), kind="stable")[:N_MOVED]]
    few = trial.peaks[trial.peaks["frame"].isin(strongest)].reset_index(drop=True)
    best, most = evidence.geometry, 0
    for dx, dy in _shifts(evidence.params.max_shift_px):
        moved = _moved(evidence.geometry, dx, dy)
        explained = int(_index(evidence, few, moved, evidence.cell)["n_explained"].sum())
        best, most = (moved, explained) if explained > most else (best, most)
        if most >= CONVINCING * len(few):
            break
    lattices = _index(evidence, trial.peaks, best, evidence.cell)
    n_indexed = _gains(trial, lattices)
    return [] if n_indexed is None else [_shift_finding(evidence, trial, best, lattices, n_indexed)]


def _shift_finding(
    evidence: Evidence, trial: _Trial, geometry: Geometry, lattices: IndexTable, n: int
) -> Finding:
    refined = _refine(evidence, trial.peaks, lattices, geometry)
    x, y = _shift_px(evidence.geometry, refined.geometry if refined else geometry)
    return Finding(
        "geometry off: beam centre",
        n / len(trial.frames),
        f"with the detector moved by ({x:+.1f}, {y:+.1f}) px in laboratory x, y, {n} of {len(trial.frames)} strong hits "
        f"index instead of {trial.indexed}",
        "Add the shift to corner_x and corner_y of every panel in the geometry.",
        {"shift_x_px": x, "shift_y_px": y, "indexed": n, "indexed_now": trial.indexed},
    )


def _off_geometry(evidence: Evidence) -> list[Finding]:
    """Tell a shift that a run's own lattices see, although they index."""
    frames = np.unique(evidence.lattices["frame"].to_numpy(np.int64))[:REFINED_LATTICES]
    lattices = evidence.lattices[evidence.lattices["frame"].isin(frames)].reset_index(drop=True)
    refined = _refine(evidence, evidence.clean_peaks(), lattices, evidence.geometry)
    if refined is None:
        return []
    x, y = _shift_px(evidence.geometry, refined.geometry)
    if np.hypot(x, y) < evidence.params.told_shift_px or refined.after_px > 0.9 * refined.before_px:
        return []
    return [
        Finding(
            "geometry off: beam centre",
            1.0 - refined.after_px / refined.before_px,
            f"the lattices move the detector by ({x:+.2f}, {y:+.2f}) px in laboratory x, y: their spots then lie "
            f"{refined.after_px:.2f} px from where they are predicted instead of {refined.before_px:.2f} px",
            "Add the shift to corner_x and corner_y of every panel in the geometry.",
            {"shift_x_px": x, "shift_y_px": y, "before_px": refined.before_px, "after_px": refined.after_px},
        )
    ]


def _refine(
    evidence: Evidence, peaks: PeakTable, lattices: IndexTable, geometry: Geometry, *, distance: bool = False
) -> GeometryRefinement | None:
    try:
        return refine_geometry(
            peaks,
            lattices,
            geometry=geometry,
            photon_energy_ev=evidence.photon_energy_ev,
            cell=evidence.cell,
            params=GeometryRefineParams(refine_panels=False, refine_distance=distance),
        )
    except IndexingError:  # too few spots: the lattices say nothing about the geometry
        return None


def _counts(trial: _Trial) -> IntArray:
    counts = trial.peaks["frame"].value_counts().reindex(trial.frames)
    return np.asarray(counts.to_numpy(), dtype=np.int64)


def _shifts(reach_px: float) -> Iterator[tuple[float, float]]:
    """Yield shifts (x, y), px, on a grid of ``STEP_PX``, from the middle outward."""
    steps = np.arange(-np.floor(reach_px / STEP_PX), np.floor(reach_px / STEP_PX) + 1) * STEP_PX
    grid: Float64Array = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    distance = np.hypot(grid[:, 0], grid[:, 1])
    for i in np.argsort(distance, kind="stable"):
        if 0 < distance[i] <= reach_px:
            yield float(grid[i, 0]), float(grid[i, 1])


def _moved(geometry: Geometry, dx: float, dy: float) -> Geometry:
    panels = tuple(replace(p, corner_x=p.corner_x + dx, corner_y=p.corner_y + dy) for p in geometry.panels)
    return replace(geometry, panels=panels)


def _shift_px(old: Geometry, new: Geometry) -> tuple[float, float]:
    """Return the panels' median shift (x, y) between two geometries, px."""
    pairs = list(zip(old.panels, new.panels, strict=True))
    return (
        float(np.median([b.corner_x - a.corner_x for a, b in pairs])),
        float(np.median([b.corner_y - a.corner_y for a, b in pairs])),
    )
