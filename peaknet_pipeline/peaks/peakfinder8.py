"""peakfinder8 (Barty et al. 2014, J. Appl. Cryst. 47, 1118) on detector stacks, in one pass per frame."""

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.peaks import background
from peaknet_pipeline.peaks import peakfinder8_search as search
from peaknet_pipeline.peaks.rings import Int32Array, Pixels, RingPlan, Rules, plan_rings
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import (
    MAX_CXI_PEAKS,
    PEAKS,
    BoolArray,
    Float32Array,
    Float64Array,
    FrameArray,
    PeakTable,
    UInt8Array,
)

EXACT_SAMPLE = 64
"""Pixels per ring that guide the exact statistics; the peaks don't depend on it."""


IN_PLACE = ("float32", "uint16", "int16", "int32", "uint32")
"""Pixel types that are read as they are; others are copied to single precision first."""


@dataclass(frozen=True)
class Peakfinder8Params(Parameters):
    """What an expert tunes; the names and defaults are CrystFEL's."""

    threshold: float = parameter(
        800.0, meaning="floor of the pixel limit, on the raw value", unit="adu", gt=0
    )
    min_snr: float = parameter(
        5.0, meaning="limit above the ring's mean, and lowest peak SNR", unit="σ", ge=0
    )
    min_pix: int = parameter(2, meaning="fewest pixels of a peak", unit="px", ge=1)
    max_pix: int = parameter(200, meaning="most pixels of a peak", unit="px", ge=1)
    local_bg_radius: int = parameter(
        3, meaning="half the radius of the local background's disc", unit="px", ge=1
    )
    min_res: float = parameter(0.0, meaning="pixels lie farther from the beam; 0 = no limit", unit="px", ge=0)
    max_res: float = parameter(0.0, meaning="pixels lie nearer to the beam; 0 = no limit", unit="px", ge=0)
    max_peaks: int = parameter(
        MAX_CXI_PEAKS, meaning="most peaks of a frame, the first in raster order", ge=1
    )
    statistics: str = parameter(
        "exact", meaning="ring statistics from all pixels or from a sample", choices=("exact", "sampled")
    )
    sample_size: int = parameter(100, meaning="pixels per ring when sampled", unit="px", ge=2)


class Peakfinder8:
    """peakfinder8 prepared for one detector, mask and parameter set; reuse it for every frame of a run.

    Parameters
    ----------
    radius : (n_panels, ss, fs), px
        peakfinder8's distance of each pixel from the beam (`geometry.pixel_radius`).
    bad_pixels : (n_panels, ss, fs)
        True where a pixel must not be used.
    params : Peakfinder8Params
    valid_range : (low, high)
        Values outside, like NaN and infinities, make a pixel unusable in that frame (a geometry's
        flag_lessthan and flag_morethan).

    """

    def __init__(
        self,
        radius: Float32Array,
        bad_pixels: BoolArray,
        params: Peakfinder8Params,
        *,
        valid_range: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        self.params = params
        self._rules = Rules(
            *single_range(*valid_range), params.min_snr, params.threshold, params.min_pix, params.max_pix,
            params.local_bg_radius,
        )  # fmt: skip
        self.plan = plan_rings(
            radius,
            bad_pixels,
            min_radius=params.min_res,
            max_radius=params.max_res,
            sample_size=EXACT_SAMPLE if params.statistics == "exact" else params.sample_size,
        )
        self._workspaces: list[_Workspace] = []

    def find(self, frames: FrameArray, *, first_frame: int = 0, n_threads: int | None = None) -> PeakTable:
        """Find the peaks of each frame; see `find_peaks`."""
        if frames.ndim != 4 or frames.shape[1:] != self.plan.shape:
            raise RunError(
                "frames do not fit the radius map", expected=("n", *self.plan.shape), found=frames.shape
            )
        if frames.dtype.kind not in "iuf":
            raise RunError("pixels are not numbers", expected="integers or floats", found=frames.dtype)
        n_threads = n_threads or os.cpu_count() or 1
        if n_threads == 1 or not len(frames):
            rows = [self._find_one(frame, ()) for frame in frames]
        elif len(frames) == 1:
            with ThreadPoolExecutor(n_threads) as pool:
                rows = [self._find_one(frames[0], _split(len(self.plan.tiles.origin), n_threads), pool)]
        else:
            with ThreadPoolExecutor(min(n_threads, len(frames))) as pool:
                rows = list(pool.map(self._find_one, frames))
        return peak_table(rows, first_frame)

    def _find_one(
        self, frame: FrameArray, parts: Sequence[tuple[int, int]] = (), pool: Executor | None = None
    ) -> Float64Array:
        """Return the rows (n_peaks, 9) of one frame, columns as in `peakfinder8_search`."""
        flat = as_kernel_input(frame).ravel()
        try:
            space = self._workspaces.pop()
        except IndexError:
            space = _Workspace.allocate(self.plan, self.params.max_peaks)
        try:
            seeds = self._find_seeds(flat, space, parts, pool)
            n_peaks = search.grow_peaks(
                flat, self.plan, self._rules, space.limits, seeds, space.used, space.visited, space.peaks
            )
            return space.peaks[:n_peaks].copy()
        finally:
            self._workspaces.append(space)

    def _find_seeds(
        self, flat: Pixels, space: "_Workspace", parts: Sequence[tuple[int, int]], pool: Executor | None
    ) -> Int32Array:
        """Fill ``space.limits`` and return the seed pixels in raster order."""
        plan, rules, limits, failed = self.plan, self._rules, space.limits, space.failed
        background.clip_listed(flat, plan.sample_start, plan.sample, space.every, rules, limits)
        if self.params.statistics == "sampled":
            return space.seeds[: search.scan_seeds(flat, plan, rules, limits, space.seeds)]
        background.choose_core(plan, rules, limits, space.core)
        sums, outside, candidates, values = self._pass_once(flat, space, parts, pool)
        n_failed = background.clip_candidates(
            plan, rules, space.core, sums, outside, candidates, values, limits, failed
        )
        if n_failed:
            background.clip_listed(flat, plan.start, plan.pixels, failed, rules, limits)
        n = search.select_seeds(flat, plan, rules, limits, failed, candidates, values, space.seeds)
        return space.seeds[:n]

    def _pass_once(
        self, flat: Pixels, space: "_Workspace", parts: Sequence[tuple[int, int]], pool: Executor | None
    ) -> tuple[Float64Array, Int32Array, Int32Array, Float32Array]:
        """Sum the core and list the candidates, over all tiles at once or over parts of them in a pool."""
        plan = self.plan

        def work(part: tuple[int, int]) -> tuple[Float64Array, Int32Array, Int32Array, Float32Array]:
            sums, outside = np.zeros((2, plan.n_rings)), np.zeros(plan.n_rings, np.int32)
            begin = plan.tiles.pixel_start[part[0]]
            room, values = space.candidates[begin:], space.values[begin:]
            n = background.sum_core(flat, plan, *part, space.core, self._rules, sums, outside, room, values)
            return sums, outside, room[:n], values[:n]

        if pool is None:
            return work((0, len(plan.tiles.origin)))
        sums, outside, candidates, values = zip(*pool.map(work, parts), strict=True)
        return (
            np.sum(sums, axis=0),
            np.sum(outside, axis=0, dtype=np.int32),
            np.concatenate(candidates),
            np.concatenate(values),
        )


@dataclass(frozen=True)
class _Workspace:
    """Scratch of one thread; pages that a frame doesn't touch are never committed."""

    limits: Float64Array
    core: Float32Array
    every: BoolArray
    failed: BoolArray
    candidates: Int32Array
    values: Float32Array
    seeds: Int32Array
    visited: Int32Array
    used: UInt8Array
    peaks: Float64Array

    @classmethod
    def allocate(cls, plan: RingPlan, max_peaks: int) -> "_Workspace":
        n, rings = plan.ring.size, plan.n_rings
        return cls(
            limits=np.zeros((3, rings)),
            core=np.zeros((3, rings), np.float32),
            every=np.ones(rings, np.bool_),
            failed=np.zeros(rings, np.bool_),
            candidates=np.empty(n, np.int32),
            values=np.empty(n, np.float32),
            seeds=np.empty(n, np.int32),
            visited=np.empty(n, np.int32),
            used=np.zeros(n, np.uint8),
            peaks=np.empty((max_peaks, search.N_COLUMNS)),
        )


def _split(n: int, n_parts: int) -> list[tuple[int, int]]:
    """Cut range(n) into nearly equal pieces."""
    edges = [i * n // n_parts for i in range(n_parts + 1)]
    return list(pairwise(edges))


def single_range(low: float, high: float) -> tuple[float, float]:
    """Return the lowest and highest finite single-precision values of a range."""
    largest = np.finfo(np.float32).max
    first, last = np.float32(max(low, -float(largest))), np.float32(min(high, float(largest)))
    if first < low:
        first = np.nextafter(first, largest)
    if last > high:
        last = np.nextafter(last, -largest)
    return float(first), float(last)


def find_peaks(
    frames: FrameArray,
    *,
    radius: Float32Array,
    bad_pixels: BoolArray,
    params: Peakfinder8Params,
    first_frame: int = 0,
    n_threads: int | None = None,
    valid_range: tuple[float, float] = (-np.inf, np.inf),
) -> PeakTable:
    """Find Bragg peaks with peakfinder8.

    Parameters
    ----------
    frames : (n, n_panels, ss, fs), adu
        Any integer or floating dtype, read in place.
    radius : (n_panels, ss, fs), px
        peakfinder8's distance of each pixel from the beam (`geometry.pixel_radius`).
    bad_pixels : (n_panels, ss, fs) or (n, n_panels, ss, fs)
        True where a pixel must not be used, for all frames or for each.
    params : Peakfinder8Params
    first_frame : int
        Number of the first frame in the run.
    n_threads : int, optional
        Frames worked on at once; all processors by default.
    valid_range : (low, high), adu
        Values outside, like NaN and infinities, make a pixel unusable in that frame.

    Returns
    -------
    PeakTable
        Sorted by frame, then panel and raster order; ``inv_d`` and ``score`` are NaN.

    Raises
    ------
    RunError
        The frames do not fit the radius map or are not numbers.
    ParameterError
        Radius map and mask differ in shape.

    """
    if bad_pixels.ndim != 4:
        finder = Peakfinder8(radius, bad_pixels, params, valid_range=valid_range)
        return finder.find(frames, first_frame=first_frame, n_threads=n_threads)
    if len(bad_pixels) != len(frames):
        raise ParameterError("not one mask per frame", expected=len(frames), found=len(bad_pixels))
    tables = [
        Peakfinder8(radius, bad, params, valid_range=valid_range).find(
            frames[i : i + 1], first_frame=first_frame + i
        )
        for i, bad in enumerate(bad_pixels)
    ]
    return pd.concat(tables, ignore_index=True) if tables else empty_table(PEAKS)


def as_kernel_input(frame: FrameArray) -> FrameArray:
    """Return the frame contiguous, in a type that the kernels are compiled for; not a copy where it is so."""
    dtype = frame.dtype.newbyteorder("=") if frame.dtype.name in IN_PLACE else np.dtype(np.float32)
    return np.ascontiguousarray(frame, dtype=dtype)


def peak_table(rows: Sequence[Float64Array], first_frame: int) -> PeakTable:
    """Stack each frame's rows (n_peaks, 9), columns as in `peakfinder8_search`, into one table."""
    if not rows:
        return empty_table(PEAKS)
    values = np.concatenate(rows)
    columns: dict[str, object] = dict(zip(search.NAMES, values.T, strict=True))
    columns["frame"] = np.repeat(np.arange(first_frame, first_frame + len(rows)), [len(r) for r in rows])
    columns["inv_d"] = columns["score"] = np.full(len(values), np.nan)
    return pd.DataFrame({c.name: np.asarray(columns[c.name], c.dtype) for c in PEAKS.columns})
