"""The second look: a frame that the list indexer left is indexed by all its weak evidence together.

A list indexer asks for spots that are certain one by one. A lattice of known cell puts 60–150 reflections on the
detector, whose evidence can be overwhelming in sum where hardly one of them is certain. Candidates come from weak spots
(``weak_search``), are scored with every reflection that they predict (``lattice_likelihood``), climbed, and accepted
above a bar
that scrambled copies of the run's own frames set (``second_look_control``).
"""

from collections.abc import Sequence

import numpy as np

from peaknet_pipeline.indexing.second_look.candidates import SearchEffort, find_candidates
from peaknet_pipeline.indexing.second_look.diffraction_model import (
    REFERENCE_INV_D,
    DiffractionModel,
    ModelTable,
    make_model_table,
    make_rows,
)
from peaknet_pipeline.indexing.second_look.flat_detector import FlatDetector, flat_vectors
from peaknet_pipeline.indexing.second_look.lattice_kernels import WIDTHS
from peaknet_pipeline.indexing.second_look.lattice_likelihood import (
    FrameEvidence,
    climb,
    near_points,
    predicted_places,
    score_points,
)
from peaknet_pipeline.indexing.second_look.spot_likelihood import (
    LEAST_MEAN,
    REACH,
    Rings,
    draw_map,
    likelihood_tables,
    make_rings,
    significance_bins,
)
from peaknet_pipeline.indexing.second_look.weak_frame import FoundLattice, SecondLookParams, WeakFrame
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.indexing.target import Target, make_target
from peaknet_pipeline.types import Float64Array, UnitCell

LEAST_SEED_INV_D, LARGEST_SEED_INV_D = 0.02, 0.45
"""Resolutions, Å⁻¹, between which weak spots lead to candidates."""

N_FINISHED = 4
"""Candidates whose cell and shift are climbed too, with all reflections."""

COARSE_POINTS = 40_000
"""Reciprocal-lattice points, from low resolution up, that candidates are ranked with before all of them are used."""

MOST_POINTS = 4_000_000
"""Reciprocal-lattice points that are counted at most, from low resolution up: all of them to 0.5 Å⁻¹ for primitive cells of
up to 8·10⁶ Å³. Larger cells are counted to a lower resolution, so that any cell fits into memory."""

EXPECTED_REAL = 0.01
"""Share of the weak spots (2σ and more) that are expected to be real before their significance is known."""


class SecondLook:
    """Searches frames of one run; what is the same for all of them is prepared once.

    Parameters
    ----------
    flat : FlatDetector
    cell : UnitCell
        The run's own, refined on its indexed frames: an error of 0.3 % is two pixels at 2 Å.
    model : DiffractionModel
    params : SecondLookParams, optional
    shift : (2,), optional
        By how much the run's detector is displaced from its geometry, cells in x and y.
    rings : Rings, optional
        Of an earlier look at the same detector.

    """

    def __init__(
        self,
        flat: FlatDetector,
        cell: UnitCell,
        model: DiffractionModel,
        params: SecondLookParams | None = None,
        *,
        shift: Float64Array | None = None,
        rings: Rings | None = None,
    ) -> None:
        self.flat, self.cell, self.model = flat, cell, model
        self.params = params or SecondLookParams()
        self.shift = np.zeros(2) if shift is None else shift
        self.target: Target = make_target(cell)
        self.rings = rings or make_rings(flat, np.random.default_rng(0))
        self.rows, self.coarse_rows = (
            make_rows(self.target.primitive, min(model.max_inv_d, _radius_of(n, self.target.volume)))
            for n in (MOST_POINTS, COARSE_POINTS)
        )
        self._tables: dict[float, ModelTable] = {}

    def model_table(self, wave: float) -> ModelTable:
        """Return the diffraction model at 1/λ = ``wave``, Å⁻¹."""
        key = round(wave, 5)
        if key not in self._tables:
            self._tables[key] = make_model_table(
                self.model, self.rings, wave=wave, distance=self.flat.distance
            )
        return self._tables[key]

    def evidence(self, frame: WeakFrame) -> FrameEvidence:
        """Return the frame's evidence, ready to score lattices with."""
        seen = draw_map(self.flat, frame.places, frame.significance)
        tables = likelihood_tables(seen, self.rings, frame.background)
        table = self.model_table(frame.wave)
        cell = min(int(REFERENCE_INV_D**2 * table.per_step), len(table.ring) - 1)
        noise = np.sqrt(max(float(frame.background[table.ring[cell]]), 0.3))
        faintest = round(float(np.log2(noise / 32.0)))
        return FrameEvidence(seen, tables, faintest, frame.wave, self.flat.distance, self.flat.half)

    def score(
        self,
        evidence: FrameEvidence,
        deformation: Float64Array,
        shift: Float64Array | None = None,
        *,
        coarse: bool = False,
    ) -> float:
        """Return the score, nats, of a lattice given as a deformation (3, 3) of the cell; ``coarse``: of low resolutions
        only."""
        points = self.near(evidence, deformation, 0.0, coarse=coarse)
        where = self.shift if shift is None else shift
        return score_points(evidence, self.model_table(evidence.wave), points, deformation, where)

    def climb(
        self,
        evidence: FrameEvidence,
        deformation: Float64Array,
        *,
        free: bool = False,
        turn_deg: float = 0.2,
        coarse: bool = False,
        shift: Float64Array | None = None,
    ) -> tuple[float, Float64Array, Float64Array]:
        """Climb from a lattice; with ``free`` also in the cell's strains and the beam's shift. See
        :func:`lattice_likelihood.climb`."""
        points = self.near(evidence, deformation, float(np.deg2rad(2.0 * turn_deg)), coarse=coarse)
        strains = self.target.strains
        sigmas = np.zeros(len(strains) + 2)
        if free:
            sigmas[: len(strains)] = self.params.cell_sigma
            sigmas[len(strains) :] = self.params.beam_sigma_px
        steps = np.concatenate([np.full(3, np.deg2rad(turn_deg)), np.maximum(0.7 * sigmas, 1e-9)])
        table = self.model_table(evidence.wave)
        return climb(
            evidence, table, points, deformation,
            generators=strains, sigmas=sigmas, steps=steps, shift=self.shift if shift is None else shift,
        )  # fmt: skip

    def deformation(self, axes: Float64Array) -> Float64Array:
        """Return the deformation (3, 3) of the cell that makes a lattice with these conventional axes (3, 3), Å⁻¹."""
        primitive = axes @ np.linalg.inv(self.target.to_conventional)
        return np.asarray(primitive @ np.linalg.inv(self.target.primitive), dtype=np.float64)

    def axes(self, deformation: Float64Array) -> Float64Array:
        """Return the conventional axes (3, 3), Å⁻¹, of a deformation; the inverse of :meth:`deformation`."""
        return np.asarray(deformation @ self.target.primitive @ self.target.to_conventional, dtype=np.float64)

    def near(
        self, evidence: FrameEvidence, deformation: Float64Array, turn: float, *, coarse: bool = False
    ) -> Float64Array:
        """Return the reciprocal points (n, 3), crystal frame, that count when the lattice is turned by up to ``turn`` rad."""
        table = self.model_table(evidence.wave)
        rows = self.coarse_rows if coarse else self.rows
        last = min(int(rows.max_inv_d**2 * table.per_step), len(table.width) - 1)
        return near_points(rows, deformation, evidence.wave, float(table.width[last]) * WIDTHS, turn)

    def search(
        self, frame: WeakFrame, evidence: FrameEvidence | None = None
    ) -> tuple[float, Float64Array, Float64Array]:
        """Return score, deformation and shift of the frame's best lattice; −inf nats where there is no candidate."""
        evidence = evidence or self.evidence(frame)
        nothing = (-np.inf, np.eye(3), np.zeros(2))
        q = flat_vectors(self.flat, frame.places - self.shift, frame.wave)
        inv_d = np.linalg.norm(q, axis=1)
        useful = np.flatnonzero(
            (inv_d > LEAST_SEED_INV_D) & (inv_d < min(LARGEST_SEED_INV_D, self.model.max_inv_d))
        )
        if useful.size < 2:
            return nothing
        odds = self._odds(frame, evidence, inv_d)
        effort = SearchEffort(
            self.params.n_spots, self.params.max_pairs, self.params.n_turns, self.params.n_refined
        )
        candidates = find_candidates(
            q[useful],
            odds[useful],
            self.target,
            length_tolerance=(self.params.length_tolerance, self.params.cell_tolerance),
            effort=effort,
        )
        if not len(candidates):
            return nothing
        return self._best_of(evidence, candidates)

    def _best_of(
        self, evidence: FrameEvidence, candidates: Float64Array
    ) -> tuple[float, Float64Array, Float64Array]:
        scores = np.array([self.score(evidence, one, coarse=True) for one in candidates])
        ranked = [candidates[i] for i in _distinct(candidates, scores, self.params.n_climbed)]
        climbed = [self.climb(evidence, one, coarse=True) for one in ranked]
        whole = [(self.score(evidence, one[1]), one[1]) for one in climbed]
        whole.sort(key=lambda one: -one[0])
        last = [self.climb(evidence, one[1], free=True, turn_deg=0.1) for one in whole[:N_FINISHED]]
        return max(last, key=lambda one: one[0])

    def _odds(self, frame: WeakFrame, evidence: FrameEvidence, inv_d: Float64Array) -> Float64Array:
        """Return each weak spot's probability to be real, (n,), from the frame's own tables at a middling brightness."""
        table = self.model_table(frame.wave)
        cell = np.minimum((inv_d**2 * table.per_step).astype(np.int64), len(table.ring) - 1)
        ring = table.ring[cell]
        bins = significance_bins(frame.significance)
        middle = round(
            float(np.log2(3.0 * np.sqrt(max(float(np.median(frame.background)), 0.3)) / LEAST_MEAN))
        )
        gain = evidence.tables[ring, bins, middle].astype(np.float64)
        gain += 0.05 * np.minimum(frame.significance, 30.0)  # an order among those in the last, open bin
        odds = EXPECTED_REAL * np.exp(gain)
        return np.asarray(odds / (1.0 + odds), dtype=np.float64)

    def lattices(
        self, frame: WeakFrame, bar: float, *, beside: Sequence[FoundLattice] = ()
    ) -> list[FoundLattice]:
        """Return the frame's lattices whose score reaches ``bar`` nats, the strongest first.

        What is the same as one of ``beside``, lattices that are known already, is left out.
        """
        found: list[FoundLattice] = []
        rest = frame
        for _ in range(self.params.max_lattices - len(beside)):
            evidence = self.evidence(rest)
            score, deformation, shift = self.search(rest, evidence)
            if score < bar:
                break
            lattice, rest = self._take(rest, evidence, score, deformation, shift)
            if self._is_new(lattice, (*beside, *found)):
                found.append(lattice)
        return found

    def verify(self, frame: WeakFrame, axes: Sequence[Float64Array]) -> tuple[list[FoundLattice], WeakFrame]:
        """Score lattices found otherwise, (3, 3) Å⁻¹ each, and return them, and the frame without what they explain."""
        listed: list[FoundLattice] = []
        rest = frame
        for one in axes:
            evidence = self.evidence(rest)
            score, deformation, shift = self.climb(evidence, self.deformation(one), free=True, turn_deg=0.1)
            lattice, rest = self._take(rest, evidence, score, deformation, shift)
            listed.append(lattice)
        return listed, rest

    def _is_new(self, lattice: FoundLattice, others: Sequence[FoundLattice]) -> bool:
        return all(
            misorientation_deg(lattice.axes, one.axes, self.cell) >= self.params.min_misorientation_deg
            for one in others
        )

    def _take(
        self,
        frame: WeakFrame,
        evidence: FrameEvidence,
        score: float,
        deformation: Float64Array,
        shift: Float64Array,
    ) -> tuple[FoundLattice, WeakFrame]:
        """Return a lattice, and the frame without the weak spots that it explains."""
        table = self.model_table(frame.wave)
        points = self.near(evidence, deformation, 0.0, coarse=False)
        places, gain = predicted_places(evidence, table, points, deformation, shift)
        explained = _within(frame.places, places[gain > 0.0], REACH + 0.5)
        rest = WeakFrame(
            frame.places[~explained], frame.significance[~explained], frame.background, frame.wave
        )
        return FoundLattice(self.axes(deformation), score, shift, len(places)), rest


def _radius_of(n_points: int, volume: float) -> float:
    """Return the radius, Å⁻¹, that holds so many reciprocal-lattice points of a primitive cell of ``volume`` Å³."""
    return float((n_points * 0.75 / (np.pi * volume)) ** (1.0 / 3.0))


def _distinct(rotations: Float64Array, scores: Float64Array, n: int, *, angle: float = 0.003) -> list[int]:
    """Return the numbers of the best rotations that differ from each other by at least ``angle``, rad."""
    chosen: list[int] = []
    least = 1.0 + 2.0 * np.cos(angle)
    for i in np.argsort(-scores, kind="stable"):
        if all(np.sum(rotations[i] * rotations[j]) < least for j in chosen):
            chosen.append(int(i))
        if len(chosen) >= n:
            break
    return chosen


def _within(places: Float64Array, others: Float64Array, distance: float) -> np.ndarray:
    """Return which places (n, 2) have one of the others (m, 2) within ``distance``."""
    from scipy.spatial import cKDTree

    if not len(others):
        return np.zeros(len(places), dtype=np.bool_)
    nearest, _ = cKDTree(others).query(places, distance_upper_bound=distance)
    return np.asarray(np.isfinite(nearest))
