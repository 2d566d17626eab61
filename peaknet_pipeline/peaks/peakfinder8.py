"""peakfinder8 (Barty et al. 2014, J. Appl. Cryst. 47, 1118) on detector stacks, in one pass per frame."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.peaks import background
from peaknet_pipeline.peaks import peakfinder8_search as search
from peaknet_pipeline.peaks.background import RingPlan, plan_rings
from peaknet_pipeline.tables import empty_table, make_table
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
        largest = float(np.finfo(np.float64).max)
        self._low, self._high = max(valid_range[0], -largest), min(valid_range[1], largest)
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
        n_threads = min(n_threads or os.cpu_count() or 1, len(frames))
        if n_threads <= 1:
            rows = [self._find_one(frame) for frame in frames]
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                rows = list(pool.map(self._find_one, frames))
        return _peak_table(rows, first_frame)

    def _find_one(self, frame: FrameArray) -> Float64Array:
        """Return the rows (n_peaks, 9) of one frame, columns as in `peakfinder8_search`."""
        flat = _native(frame).ravel()
        try:
            space = self._workspaces.pop()
        except IndexError:
            space = _Workspace.allocate(self.plan, self.params.max_peaks)
        try:
            seeds = self._find_seeds(flat, space)
            plan, p = self.plan, self.params
            n_peaks = search.grow_peaks(
                flat, plan.ring, plan.shape, space.limits, seeds, self._low, self._high, p.min_snr, p.min_pix,
                p.max_pix, p.local_bg_radius, space.used, space.visited, space.peaks,
            )  # fmt: skip
            return space.peaks[:n_peaks].copy()
        finally:
            self._workspaces.append(space)

    def _find_seeds(self, flat: FrameArray, space: "_Workspace") -> "background.Int32Array":
        """Fill ``space.limits`` and return the seed pixels in raster order."""
        plan, p, span = self.plan, self.params, (self._low, self._high)
        clip = (p.min_snr, p.threshold)
        background.clip_sampled(flat, plan.sample_start, plan.sample, *span, *clip, space.limits)
        if p.statistics == "sampled":
            n = search.scan_seeds(flat, plan.ring, 0, flat.size, plan.shape, space.limits, *span, space.seeds)
            return space.seeds[:n]
        background.choose_core(space.limits, plan.start, plan.sample_start, *span, p.threshold, space.core)
        space.sums[:] = 0
        space.outside[:] = 0
        n = background.sum_core(
            flat, plan.ring, 0, flat.size, space.core, *span, space.sums, space.outside, space.candidates
        )
        candidates = space.candidates[:n]
        background.clip_candidates(
            flat, plan.ring, plan.start, plan.sample_start, space.core, space.sums, space.outside, candidates,
            *clip, space.limits, space.failed,
        )  # fmt: skip
        n_failed = background.clip_failed(
            flat, plan.start, plan.pixels, *span, *clip, space.failed, space.limits
        )
        n = search.select_seeds(
            flat, plan.ring, plan.shape, space.limits, space.failed, candidates, space.seeds
        )
        if n_failed:
            n = search.append_failed_seeds(
                flat, plan.start, plan.pixels, plan.shape, space.limits, space.failed, *span, space.seeds, n
            )
        return space.seeds[:n]


@dataclass(frozen=True)
class _Workspace:
    """Scratch of one thread; pages that a frame doesn't touch are never committed."""

    limits: Float64Array
    core: Float64Array
    sums: Float64Array
    outside: "background.Int32Array"
    failed: BoolArray
    candidates: "background.Int32Array"
    seeds: "background.Int32Array"
    visited: "background.Int32Array"
    used: UInt8Array
    peaks: Float64Array

    @classmethod
    def allocate(cls, plan: RingPlan, max_peaks: int) -> "_Workspace":
        n, rings = plan.ring.size, plan.n_rings
        return cls(
            limits=np.zeros((rings, 3)),
            core=np.zeros((rings + 1, 2)),
            sums=np.zeros((rings + 1, 2)),
            outside=np.zeros(rings, np.int32),
            failed=np.zeros(rings, np.bool_),
            candidates=np.empty(n, np.int32),
            seeds=np.empty(n, np.int32),
            visited=np.empty(n, np.int32),
            used=np.zeros(n, np.uint8),
            peaks=np.empty((max_peaks, search.N_COLUMNS)),
        )


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


def _native(frame: FrameArray) -> FrameArray:
    """Return the frame as a contiguous array of the machine's byte order, without a copy where it is one."""
    dtype = np.dtype(np.float32) if frame.dtype == np.float16 else frame.dtype.newbyteorder("=")
    return np.ascontiguousarray(frame, dtype=dtype)


def _peak_table(rows: list[Float64Array], first_frame: int) -> PeakTable:
    """Stack each frame's rows into one table."""
    if not rows:
        return empty_table(PEAKS)
    frame = np.repeat(np.arange(first_frame, first_frame + len(rows)), [len(r) for r in rows])
    values = np.concatenate(rows)
    names = ("panel", "fs", "ss", "intensity", "max_intensity", "background", "sigma", "snr", "n_pixels")
    return make_table(PEAKS, {"frame": frame, **{name: values[:, j] for j, name in enumerate(names)}})
