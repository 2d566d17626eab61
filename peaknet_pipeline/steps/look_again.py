"""The second look at a run: frames without a lattice are searched once more, with all their weak evidence."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.distance import camera_lengths_m
from peaknet_pipeline.geometry.resolve import gains
from peaknet_pipeline.indexing.predict import table_axes
from peaknet_pipeline.indexing.second_look.acceptance import (
    SecondLookControl,
    distinct_orientations,
    make_control,
)
from peaknet_pipeline.indexing.second_look.effort import is_worth_a_search, level_counts, quiet_counts
from peaknet_pipeline.indexing.second_look.flat_detector import (
    flat_positions,
    make_flat_detector,
    scrambled_places,
)
from peaknet_pipeline.indexing.second_look.frame_search import SecondLook
from peaknet_pipeline.indexing.second_look.run_model import (
    LEAST_FRAMES,
    MOST_FRAMES,
    KnownLattice,
    RunModel,
    estimate_run_model,
)
from peaknet_pipeline.indexing.second_look.run_params import RunSecondLookParams
from peaknet_pipeline.indexing.second_look.spot_likelihood import make_rings
from peaknet_pipeline.indexing.second_look.weak_frame import (
    SecondLookParams,
    WeakFrame,
    frame_background,
)
from peaknet_pipeline.peaks.weak_spots import WeakSpotFinder, WeakSpotParams, draw_noise
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.sample import sample_frames
from peaknet_pipeline.schemas import IndexTable
from peaknet_pipeline.steps.progress import Progress
from peaknet_pipeline.steps.second_look_tables import SecondLookOutcome, lattice_rows, make_second_look_table
from peaknet_pipeline.types import HC_EV_ANGSTROM, BoolArray, Float64Array, FrameArray, IntArray, UnitCell

SAMPLE = 60
"""Frames that tell what a quiet one looks like, and which places repeat."""

NOISE_FRAMES = 6
"""Frames of drawn noise that tell how many weak spots noise makes."""

SPOT_SIGMAS = (0.6, 0.8, 1.0, 1.4, 2.0)
"""Spot shapes, px, among which the run's own lattices choose."""

REPEAT_SIGNIFICANCE, REPEAT_FRAMES, REPEAT_SHARE = 4.0, 10, 0.1
"""A place that is that bright in so many frames, and in that share of the sample, is no reflection."""

KEPT_FOR_CONTROL = 64
"""Frames whose weak spots are kept for further scrambled copies."""

WIDE = {"cell_tolerance": 0.01, "cell_sigma": 0.005, "beam_sigma_px": 1.0}
"""Search while hardly a frame of the run has a lattice: cell and distance may be off by 1 %."""


@dataclass(frozen=True)
class _Candidate:
    """The best lattice of a frame before the bar is known: its frame, its score, and its weak spots if it may pass."""

    frame: int
    score: float
    weak: WeakFrame | None


def look_again(
    run: Run,
    lattices: IndexTable,
    *,
    bad_pixels: BoolArray,
    cell: UnitCell,
    params: RunSecondLookParams | None = None,
    frames: IntArray | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SecondLookOutcome:
    """Index the frames of a run that the list indexer left, by the sum of their weak evidence.

    Parameters
    ----------
    run : Run
        With a geometry.
    lattices : IndexTable
        What the list indexer found, by any finder; its frames tell cell, beam, widths and fall-off.
    bad_pixels : (n_panels, ss, fs) bool
    cell : UnitCell
    params : RunSecondLookParams, optional
    frames : (n,) int, optional
        Frames to search; by default those without a lattice.
    seed : int
        Of the scrambled copies.

    Raises
    ------
    RunError
        No frame has both a photon energy and a camera length, or lattices are of frames that the run doesn't have.

    """
    params = params or RunSecondLookParams()
    run.check_range(0, int(lattices["frame"].max()) + 1 if len(lattices) else 0)
    if frames is None:
        frames = np.setdiff1d(np.arange(run.n_frames), lattices["frame"].to_numpy(dtype=np.int64))
    look = _RunLook(run, bad_pixels, cell, params, np.random.default_rng(seed), progress)
    lattices = lattices[lattices["frame"].isin(look.usable)]
    known = {int(f): axes for f, axes in zip(lattices["frame"], table_axes(lattices), strict=True)}
    return look.outcome(lattices, known, frames)


class _RunLook:
    """One walk over a run: first a sample that tells what is normal, then every frame once."""

    def __init__(
        self,
        run: Run,
        bad_pixels: BoolArray,
        cell: UnitCell,
        params: RunSecondLookParams,
        generator: np.random.Generator,
        progress: Progress | None,
    ) -> None:
        self.run, self.cell, self.params, self.generator = run, cell, params, generator
        self.search, self.first_model = params.parts()
        self.geometry = geometry_of(run)
        self.gain = gains(self.geometry)
        self.bad = bad_pixels.copy()
        self.progress = progress or (lambda done, total: None)
        self.search_seconds = float("nan")
        distances = camera_lengths_m(self.geometry, np.arange(run.n_frames))
        usable = np.isfinite(run.photon_energy_ev) & (run.photon_energy_ev > 0) & np.isfinite(distances)
        self.usable = np.flatnonzero(usable)
        if not self.usable.size:
            raise RunError(
                "no frame has both a photon energy and a camera length, so no lattice can be looked for",
                where=run.info.path,
                expected="numbers above 0",
                found=f"{run.n_frames} frames without",
                remedy="Give photon_energy and clen in the geometry.",
            )

    def outcome(
        self, lattices: IndexTable, known: Mapping[int, Float64Array], frames: IntArray
    ) -> SecondLookOutcome:
        """See :func:`look_again`."""
        started = time.process_time()
        left = np.intersect1d(frames, self.usable)
        sigma = self.params.spot_sigma or 0.8
        finder = self._finder(sigma)
        quiet = self._learn_from_sample(finder)
        self.flat = make_flat_detector(self.geometry, self.bad)
        self.rings = make_rings(self.flat, np.random.default_rng(0))
        if not self.params.spot_sigma:
            sigma = self._suitable_sigma(known)
        finder = self._finder(sigma)
        model = self._run_model(finder, known, left, quiet)
        look = self._look(model, self.search)
        candidates, controls = self._search(look, finder, left, quiet)
        listed = lattices[~lattices["frame"].isin(left)]
        if not controls and self.params.more_lattices:
            controls = self._copies_of(look, finder, np.unique(listed["frame"].to_numpy(dtype=np.int64)))
        control = self._control(look, controls)
        rows = [
            lattice_rows(c.frame, look.lattices(c.weak, control.bar), "second look")
            for c in candidates
            if c.weak is not None and c.score >= control.bar
        ]
        rows += self._verify(look, finder, listed, control.bar)
        table = make_second_look_table(rows, look.flat, self.geometry)
        seconds = (self.search_seconds, time.process_time() - started)
        return SecondLookOutcome(table, control, model, len(candidates), len(left), sigma, seconds)

    def _finder(self, sigma: float) -> WeakSpotFinder:
        params = WeakSpotParams(spot_sigma=sigma)
        return WeakSpotFinder(self.bad, self.gain, params, usable=self.run.usable)

    def _frame(self, number: int) -> FrameArray:
        frame: FrameArray = self.run.read(number, number + 1)[0]
        return frame

    def _weak(self, finder: WeakSpotFinder, number: int) -> WeakFrame:
        spots = finder.find(self._frame(number))
        places = flat_positions(self.flat, self.geometry, spots.panel, spots.fs, spots.ss, frame=number)
        return WeakFrame(
            places,
            spots.significance,
            frame_background(places, spots.background, self.rings),
            float(self.run.photon_energy_ev[number]) / HC_EV_ANGSTROM,
        )

    def _learn_from_sample(self, finder: WeakSpotFinder) -> Float64Array:
        """Mark places that repeat from frame to frame as bad, and return what a quiet frame shows at each level."""
        sample = self.usable[sample_frames(len(self.usable), SAMPLE)]
        seen = np.zeros(self.bad.shape, dtype=np.int32)
        counts: list[IntArray] = []
        noise: list[IntArray] = []
        for number in sample:
            frame = self._frame(int(number))
            spots = finder.find(frame)
            if len(noise) < NOISE_FRAMES:
                drawn = finder.find(draw_noise(finder, frame, self.generator))
                noise.append(level_counts(drawn.significance))
            bright = spots.take(spots.significance >= REPEAT_SIGNIFICANCE)
            np.add.at(seen, (bright.panel, np.rint(bright.ss).astype(int), np.rint(bright.fs).astype(int)), 1)
            counts.append(level_counts(spots.significance))
        repeats = seen >= max(REPEAT_FRAMES, REPEAT_SHARE * len(sample))
        self.bad |= _grown(repeats)
        return quiet_counts(np.stack(counts), np.stack(noise))

    def _suitable_sigma(self, known: Mapping[int, Float64Array]) -> float:
        """Return the spot shape under which the run's own lattices score highest in sum; 0.8 px where there are none."""
        frames = list(known)[:: max(1, len(known) // 6)][:6]
        if not frames:
            return 0.8
        scores = []
        for sigma in SPOT_SIGMAS:
            finder = self._finder(sigma)
            look = self._look(RunModel(self.cell, self.first_model, np.zeros(2), 0, 0.0), self.search)
            weak = [self._weak(finder, f) for f in frames]
            scores.append(
                sum(
                    look.score(look.evidence(w), look.deformation(known[f]))
                    for w, f in zip(weak, frames, strict=True)
                )
            )
        return SPOT_SIGMAS[int(np.argmax(scores))]

    def _look(self, model: RunModel, search: SecondLookParams) -> SecondLook:
        return SecondLook(self.flat, model.cell, model.model, search, shift=model.shift, rings=self.rings)

    def _run_model(
        self, finder: WeakSpotFinder, known: Mapping[int, Float64Array], left: IntArray, quiet: Float64Array
    ) -> RunModel:
        """Return the run's model: from its known lattices, or, where there are hardly any, from a wider search's."""
        step = -(-len(known) // MOST_FRAMES) if known else 1
        used = [KnownLattice(self._weak(finder, f), known[f]) for f in list(known)[::step]]
        if len(used) < LEAST_FRAMES:
            used += self._found_widely(finder, left, quiet)
        return estimate_run_model(used, self.flat, cell=self.cell, model=self.first_model, params=self.search)

    def _found_widely(
        self, finder: WeakSpotFinder, left: IntArray, quiet: Float64Array
    ) -> list[KnownLattice]:
        """Search some frames with a cell and a distance that may be off, and return the lattices beyond doubt."""
        wide = replace(self.search, **{n: max(getattr(self.search, n), v) for n, v in WIDE.items()})
        look = self._look(RunModel(self.cell, self.first_model, np.zeros(2), 0, 0.0), wide)
        found, controls = [], []
        for number in left[sample_frames(len(left), SAMPLE)]:
            weak = self._weak(finder, int(number))
            if not is_worth_a_search(level_counts(weak.significance), quiet):
                continue
            score, deformation, _ = look.search(weak)
            controls.append(look.search(self._scrambled(weak))[0])
            found.append((score, KnownLattice(weak, look.axes(deformation))))
        bar = self._control(look, controls).bar
        return [one for score, one in found if score >= bar]

    def _scrambled(self, weak: WeakFrame) -> WeakFrame:
        return replace(weak, places=scrambled_places(self.flat, weak.places, self.generator))

    def _search(
        self, look: SecondLook, finder: WeakSpotFinder, left: IntArray, quiet: Float64Array
    ) -> tuple[list[_Candidate], list[float]]:
        """Return the best lattice of each frame worth a search, and the scores of scrambled copies, spread over them."""
        candidates: list[_Candidate] = []
        controls: list[float] = []
        kept: list[WeakFrame] = []
        floor = self._control(look, []).floor
        spent = 0.0

        def searched(one: WeakFrame) -> float:
            nonlocal spent
            begin = time.process_time()
            score = look.search(one)[0]
            spent += time.process_time() - begin
            return score

        owed, copies = 0.0, max(1.0, self.params.n_controls / max(len(left), 1))
        for done, number in enumerate(left, start=1):
            weak = self._weak(finder, int(number))
            if is_worth_a_search(level_counts(weak.significance), quiet):
                score = searched(weak)
                candidates.append(_Candidate(int(number), score, weak if score >= floor else None))
                kept = [*kept[-KEPT_FOR_CONTROL + 1 :], weak]
                owed += copies
            while owed >= 1.0 and len(controls) < self.params.n_controls:
                controls.append(searched(self._scrambled(weak)))
                owed -= 1.0
            self.progress(done, len(left))
        # Where few frames were worth a search, more copies of them complete the control.
        while kept and len(controls) < self.params.n_controls:
            controls.append(searched(self._scrambled(kept[len(controls) % len(kept)])))
        self.search_seconds = spent / max(len(candidates) + len(controls), 1)
        return candidates, controls

    def _copies_of(self, look: SecondLook, finder: WeakSpotFinder, frames: IntArray) -> list[float]:
        """Return the scores of scrambled copies of frames with a lattice: where no other frame was worth a search, further
        lattices of these still need a control."""
        weak = [self._weak(finder, int(f)) for f in frames[:KEPT_FOR_CONTROL]]
        n = self.params.n_controls if weak else 0
        return [look.search(self._scrambled(weak[i % len(weak)]))[0] for i in range(n)]

    def _control(self, look: SecondLook, scores: Sequence[float]) -> SecondLookControl:
        wave = float(np.median(self.run.photon_energy_ev[self.usable])) / HC_EV_ANGSTROM
        orientations = distinct_orientations(look.target, self.flat, wave)
        return make_control(list(scores), n_orientations=orientations)

    def _verify(
        self, look: SecondLook, finder: WeakSpotFinder, lattices: IndexTable, bar: float
    ) -> list[list[dict[str, Any]]]:
        """Score the list's own lattices, and look for further ones beside them."""
        rows = []
        frames = lattices["frame"].to_numpy(dtype=np.int64)
        for frame in np.intersect1d(frames, self.usable):
            own = lattices[frames == frame]
            weak = self._weak(finder, int(frame))
            listed, rest = look.verify(weak, list(table_axes(own)))
            rows.append(lattice_rows(int(frame), listed, "list"))
            if self.params.more_lattices:
                more = look.lattices(rest, bar, beside=listed)
                rows.append(lattice_rows(int(frame), more, "second look", first=len(listed)))
        return rows


def _grown(marks: BoolArray) -> BoolArray:
    """Return marks (n_panels, ss, fs) with their eight neighbours."""
    from scipy.ndimage import binary_dilation

    if not marks.any():
        return marks
    return np.asarray(binary_dilation(marks, structure=np.ones((1, 3, 3), dtype=np.bool_)))
