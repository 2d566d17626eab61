"""peakfinder8 on one frame: the compiled kernels in their order, and what goes in and comes out of them."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.peaks import background
from peaknet_pipeline.peaks import peakfinder8_search as search
from peaknet_pipeline.peaks.rings import Int32Array, Pixels, RingPlan, Rules
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, FrameArray, UInt8Array

IN_PLACE = ("float32", "uint16", "int16", "int32", "uint32")
"""Pixel types that are read as they are; others are copied to single precision first."""


@dataclass(frozen=True)
class Workspace:
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
    def allocate(cls, plan: RingPlan, max_peaks: int) -> "Workspace":
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


def find_seeds(
    flat: Pixels,
    plan: RingPlan,
    rules: Rules,
    space: Workspace,
    *,
    sampled: bool,
    parts: Sequence[tuple[int, int]] = (),
    pool: Executor | None = None,
) -> Int32Array:
    """Fill ``space.limits`` and return the seed pixels in raster order.

    ``parts`` (ranges of tiles) are worked on at once in a ``pool``, if there is one.
    """
    limits, failed = space.limits, space.failed
    background.clip_listed(flat, plan.sample_start, plan.sample, space.every, rules, limits)
    if sampled:
        return space.seeds[: search.scan_seeds(flat, plan, rules, limits, space.seeds)]
    background.choose_core(plan, rules, limits, space.core)
    sums, outside, candidates, values = _pass_once(flat, plan, rules, space, parts, pool)
    n_failed = background.clip_candidates(
        plan, rules, space.core, sums, outside, candidates, values, limits, failed
    )
    if n_failed:
        background.clip_listed(flat, plan.start, plan.pixels, failed, rules, limits)
    n = search.select_seeds(flat, plan, rules, limits, failed, candidates, values, space.seeds)
    return space.seeds[:n]


def _pass_once(
    flat: Pixels,
    plan: RingPlan,
    rules: Rules,
    space: Workspace,
    parts: Sequence[tuple[int, int]],
    pool: Executor | None,
) -> tuple[Float64Array, Int32Array, Int32Array, Float32Array]:
    """Sum the core and list the candidates, over all tiles at once or over parts of them in a pool."""

    def work(part: tuple[int, int]) -> tuple[Float64Array, Int32Array, Int32Array, Float32Array]:
        sums, outside = np.zeros((2, plan.n_rings)), np.zeros(plan.n_rings, np.int32)
        begin = plan.tiles.pixel_start[part[0]]
        room, values = space.candidates[begin:], space.values[begin:]
        n = background.sum_core(flat, plan, *part, space.core, rules, sums, outside, room, values)
        return sums, outside, room[:n], values[:n]

    if pool is None:
        return work((0, len(plan.tiles.origin)))
    sums, outside, candidates, values = zip(*pool.map(work, parts), strict=True)
    n_outside: Int32Array = np.stack(outside).sum(axis=0, dtype=np.int32)
    return np.stack(sums).sum(axis=0), n_outside, np.concatenate(candidates), np.concatenate(values)


def grow_peaks(
    flat: Pixels, plan: RingPlan, rules: Rules, space: Workspace, seeds: Int32Array
) -> Float64Array:
    """Return the rows (n_peaks, 9) of the peaks that grow from the seeds, columns as in `search.NAMES`."""
    n = search.grow_peaks(flat, plan, rules, space.limits, seeds, space.used, space.visited, space.peaks)
    return space.peaks[:n].copy()


def split_tiles(plan: RingPlan, n_parts: int) -> list[tuple[int, int]]:
    """Cut the tiles into nearly equal ranges."""
    edges = [i * len(plan.tiles.origin) // n_parts for i in range(n_parts + 1)]
    return list(pairwise(edges))


def check_frames(frames: FrameArray, shape: tuple[int, int, int]) -> None:
    """Raise RunError unless ``frames`` is (n, *shape) and holds numbers."""
    if frames.ndim != 4 or frames.shape[1:] != shape:
        raise RunError("frames do not fit the radius map", expected=("n", *shape), found=frames.shape)
    if frames.dtype.kind not in "iuf":
        raise RunError("pixels are not numbers", expected="integers or floats", found=frames.dtype)


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
