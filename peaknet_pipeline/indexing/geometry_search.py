"""Refine a geometry without being given lattices: index, refine, index again, and keep only what proves itself.

Each pass divides the indexed frames into two halves. More and more of the geometry is set free: shift and distance, then
the tilt, then the panels. Each step is refined from one half and judged by the other (:mod:`geometry_compare`), both ways
round, and is kept when the frames' mean squared miss falls by at least ``MIN_GAIN`` standard errors. What is kept is refined
from all frames, and taken when no fewer frames index with it. Where hardly any frame indexes to begin with, the detector is
first moved and its distance changed in steps, with wide tolerances, until the strongest hits do.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.indexing.geometry_compare import GeometryComparison, compare_geometries
from peaknet_pipeline.indexing.geometry_motion import move_detector
from peaknet_pipeline.indexing.geometry_refine import (
    GeometryRefinement,
    GeometryRefineParams,
    refine_geometry,
    residuals_between,
)
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.params import parameter
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.types import Float64Array, Geometry, IntArray, UnitCell

MIN_GAIN = 2.0
"""Standard errors by which held-out frames must be better predicted."""

MAX_PASSES = 3
"""Times that the frames are indexed anew with what was refined."""

N_SOUGHT = 8
"""Strongest hits that the wider search is made with."""

CONVINCING = 0.6
"""Share of the strongest hits' peaks that lattices explain, beyond which no further place is tried."""

WIDE = {
    "spot_tolerance": 0.004,
    "final_tolerance": 0.003,
    "max_residual": 0.005,
    "cell_tolerance": 0.02,
    "beam_sigma": 0.004,
}
"""Least tolerances of the indexer in the wider search; their step forgives half of the search's own steps."""


@dataclass(frozen=True)
class GeometrySearchParams(GeometryRefineParams):
    """How a geometry is refined by itself."""

    min_indexed: int = parameter(6, meaning="least indexed frames that a geometry is refined from", ge=6)
    max_frames_used: int = parameter(200, meaning="frames that are indexed for it", ge=12)
    search_below: float = parameter(
        0.3,
        meaning="share of these frames that index below which the detector is sought more widely",
        ge=0,
        le=1,
    )
    search_shift_px: float = parameter(
        12.0, meaning="how far the wider search moves the detector", unit="px", ge=0, le=200
    )
    search_shift_step_px: float = parameter(
        4.0, meaning="step of the wider search in x and y", unit="px", gt=0
    )
    search_distance: float = parameter(
        0.03, meaning="relative change of the camera length that the wider search tries", ge=0, le=0.3
    )
    search_distance_step: float = parameter(0.015, meaning="its step", gt=0)


@dataclass(frozen=True)
class GeometrySearch:
    """Outcome: the geometry to use from now on, what of it was freed, and what speaks for it.

    ``freed`` names the steps that proved themselves, empty where the geometry stays as it was; ``held_out_px`` is the rms miss
    before and after on frames that the steps were not refined from; ``before`` and ``after`` of the ``tried`` frames
    index; ``residuals`` are those of the lattices at the end, with the geometry given and with this one, None without any.
    """

    geometry: Geometry
    freed: tuple[str, ...]
    told: str
    tried: int
    before: int
    after: int
    held_out_px: tuple[float, float]
    residuals: GeometryRefinement | None


@dataclass(frozen=True)
class _Run:
    """What stays the same while a geometry is sought."""

    peaks: PeakTable
    frames: IntArray
    energy: float | Float64Array
    cell: UnitCell
    index: IndexParams
    params: GeometrySearchParams

    def lattices(self, geometry: Geometry, index: IndexParams | None = None) -> IndexTable:
        return index_peaks(
            self.peaks,
            geometry=geometry,
            photon_energy_ev=self.energy,
            cell=self.cell,
            params=index or self.index,
        )

    def refined(
        self, lattices: IndexTable, geometry: Geometry, params: GeometryRefineParams
    ) -> GeometryRefinement:
        return refine_geometry(
            self.peaks,
            lattices,
            geometry=geometry,
            photon_energy_ev=self.energy,
            cell=self.cell,
            params=params,
        )

    def residuals(self, lattices: IndexTable, old: Geometry, new: Geometry) -> GeometryRefinement:
        return residuals_between(
            self.peaks,
            lattices,
            old=old,
            new=new,
            photon_energy_ev=self.energy,
            cell=self.cell,
            params=self.params,
        )

    def compared(self, lattices: IndexTable, old: Geometry, new: Geometry) -> GeometryComparison:
        return compare_geometries(
            self.peaks,
            lattices,
            old=old,
            new=new,
            photon_energy_ev=self.energy,
            cell=self.cell,
            params=self.params,
        )


def search_geometry(
    peaks: PeakTable,
    *,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    cell: UnitCell,
    index: IndexParams,
    params: GeometrySearchParams | None = None,
) -> GeometrySearch:
    """Refine a geometry from a run's peaks alone, keeping only what held-out frames and the number indexed speak for.

    Parameters
    ----------
    peaks : PeakTable
    geometry : Geometry
        Where to begin.
    photon_energy_ev : float or (n_frames,) float, eV
    cell : UnitCell
        Held: the distance is as good as it is.
    index : IndexParams
        As the run is indexed.
    params : GeometrySearchParams, optional

    Returns
    -------
    GeometrySearch
        With the geometry as given where too few frames index, or where nothing proves itself; ``told`` says which.

    """
    params = params or GeometrySearchParams()
    used = _frames_to_try(peaks, index.min_peaks, params.max_frames_used)
    few = peaks[peaks["frame"].isin(used)].reset_index(drop=True)
    run = _Run(few, used, photon_energy_ev, cell, index, params)
    lattices = run.lattices(geometry)
    begin = _State(geometry, lattices, _count(lattices))
    state = begin
    if begin.indexed < max(params.min_indexed, params.search_below * len(used)):
        state = _sought(run, begin)
    n_begin = _count(state.lattices)
    if n_begin < params.min_indexed:
        told = f"{n_begin} of {len(used)} frames index; {params.min_indexed} are needed to refine a geometry"
        return _outcome(run, begin, begin, told)
    for _ in range(MAX_PASSES):
        better = _improved(run, state)
        if better is None:
            break
        state = better
    if not state.freed or state.indexed < begin.indexed:
        return _outcome(run, begin, begin, "nothing that was set free predicts held-out frames better")
    told = f"{', '.join(state.freed)} refined: {begin.indexed} frames of {len(used)} index before, {state.indexed} after"
    return _outcome(run, begin, state, told)


def _frames_to_try(peaks: PeakTable, min_peaks: int, most: int) -> IntArray:
    """Return the frames with enough peaks to be indexed; of more than can be used, every other of those with most peaks."""
    counts = peaks["frame"].value_counts().sort_values(ascending=False, kind="stable")
    frames = counts.index[counts >= min_peaks].to_numpy(np.int64)
    return np.sort(frames[: 2 * most : 2] if len(frames) > 2 * most else frames[:most])


@dataclass(frozen=True)
class _State:
    """A geometry with the lattices found with it, how many frames these are, and how it was come by."""

    geometry: Geometry
    lattices: IndexTable
    indexed: int
    freed: tuple[str, ...] = ()
    held_out_px: tuple[float, float] = (float("nan"), float("nan"))


def _count(lattices: IndexTable) -> int:
    return int(lattices["frame"].nunique())


def _outcome(run: _Run, begin: _State, end: _State, told: str) -> GeometrySearch:
    return GeometrySearch(
        geometry=end.geometry,
        freed=end.freed,
        told=told,
        tried=len(run.frames),
        before=begin.indexed,
        after=end.indexed,
        held_out_px=end.held_out_px,
        residuals=run.residuals(end.lattices, begin.geometry, end.geometry) if end.indexed else None,
    )


def _improved(run: _Run, state: _State) -> _State | None:
    """Return what one pass leads to; None where nothing proves itself, or fewer frames index."""
    proved, held_out = _proved_steps(run, state)
    if held_out is None:
        return None
    freed_now = replace(_freed(run.params, proved[-1]), min_spots=6)  # the halves had enough
    refined = run.refined(state.lattices, state.geometry, freed_now).geometry
    lattices = run.lattices(refined)
    if _count(lattices) < state.indexed:
        return None
    first = held_out.before_px if np.isnan(state.held_out_px[0]) else state.held_out_px[0]
    freed = tuple(dict.fromkeys((*state.freed, *proved)))
    return _State(refined, lattices, _count(lattices), freed, (first, held_out.after_px))


def _proved_steps(run: _Run, state: _State) -> tuple[tuple[str, ...], GeometryComparison | None]:
    """Return the steps, each with all before it, that predict frames better that they were not refined from."""
    halves = [state.lattices[state.lattices["frame"].rank(method="dense") % 2 == half] for half in (0, 1)]
    halves = [half.reset_index(drop=True) for half in halves]
    at, proved = [state.geometry] * 2, tuple[str, ...]()
    outcome: GeometryComparison | None = None
    steps = tuple(_steps(run.params, state.geometry))
    for number, name in enumerate(steps):
        freed = _freed(run.params, name)
        freed = replace(freed, min_spots=max(freed.min_spots // 2, 6))
        try:
            tried = [run.refined(half, state.geometry, freed).geometry for half in halves]
        except IndexingError:  # too few spots in a half: nothing can be proved
            break
        # What was refined from one half is asked about the other.
        comparison, whole = (
            run.compared(halves[1], olds[0], tried[0]).joined(run.compared(halves[0], olds[1], tried[1]))
            for olds in (at, [state.geometry] * 2)
        )
        if comparison.gain < MIN_GAIN:
            continue
        at, proved, outcome = tried, steps[: number + 1], whole
    return proved, outcome


STEPS = ("place", "tilt", "panels")
"""What is set free, in this order: shift and distance, then the tilt, then each panel."""


def _steps(params: GeometrySearchParams, geometry: Geometry) -> Iterator[str]:
    yield STEPS[0]
    if params.refine_tilt:
        yield STEPS[1]
    if params.refine_panels and len(geometry.panels) > 1:
        yield STEPS[2]


def _freed(params: GeometrySearchParams, step: str) -> GeometrySearchParams:
    """Return parameters that set a step free, and those before it that are wanted at all."""
    number = STEPS.index(step)
    return replace(
        params,
        refine_tilt=params.refine_tilt and number >= 1,
        refine_panels=params.refine_panels and number >= 2,
    )


def _sought(run: _Run, begin: _State) -> _State:
    """Move the detector in steps until the strongest hits index; where more of all hits do, begin there."""
    wide = _widened(run.index)
    counts = run.peaks["frame"].value_counts()
    strongest = counts.sort_values(ascending=False, kind="stable").index[:N_SOUGHT]
    few = replace(run, peaks=run.peaks[run.peaks["frame"].isin(strongest)].reset_index(drop=True))
    best, most = begin.geometry, 0
    for moved in _places(begin.geometry, run.params):
        explained = int(few.lattices(moved, wide)["n_explained"].sum())
        best, most = (moved, explained) if explained > most else (best, most)
        if most >= CONVINCING * len(few.peaks):
            break
    found = run.lattices(best, wide)
    if _count(found) <= begin.indexed:
        return begin
    return _State(best, found, begin.indexed, ("search",))


def _widened(index: IndexParams) -> IndexParams:
    return replace(index, **{name: max(getattr(index, name), value) for name, value in WIDE.items()})


def _places(geometry: Geometry, params: GeometrySearchParams) -> Iterator[Geometry]:
    """Yield the geometry with its detector at other places and distances, the nearest first."""
    clen = float(np.mean([panel.clen_m for panel in geometry.panels]))
    size = float(np.median([panel.pixel_size_m for panel in geometry.panels]))
    across = _grid(params.search_shift_px, params.search_shift_step_px)
    along = _grid(params.search_distance, params.search_distance_step)
    places = [
        place for place in itertools.product(along, across, across) if np.hypot(*place[1:]) <= across[-1]
    ]
    for further, x, y in sorted(places, key=lambda place: (abs(place[0]), np.hypot(*place[1:]))):
        yield move_detector(geometry, np.array([x * size, y * size, further * clen]), np.zeros(3))


def _grid(reach: float, step: float) -> Float64Array:
    n = int(np.floor(reach / step + 1e-9))
    return np.arange(-n, n + 1, dtype=np.float64) * step
