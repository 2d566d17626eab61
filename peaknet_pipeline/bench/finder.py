"""Benchmark of peakfinder8 against ondamonitor's compiled one: same frames, same mask, same run.

The reference is optional: the ``bench`` extra, for Python 3.11. Without it only our
own figures are given. Ratios on one core are ratios of processor time, which other load on the machine
disturbs least; whatever runs on all cores is timed by the clock.
"""

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.peaks.rings import RingPlan
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray

SHAPES = {"4M": (8, 512, 1024), "1M": (1, 1024, 1024)}
PARAMS = Peakfinder8Params(threshold=15.0, min_snr=5.0)
Finder = Callable[[FrameArray], npt.NDArray[np.float64]]


def run(
    *, repeats: int = 7, seed: int = 0, dtypes: str = "float32,uint16", sizes: str = "4M,1M"
) -> dict[str, Any]:
    """Measure exact and sampled statistics, ours and ondamonitor's, on dense and blank frames.

    Parameters
    ----------
    repeats : int
        Rounds over all finders; times are medians over rounds, in ms per frame.
    seed : int
    dtypes, sizes : str
        Comma-separated pixel types, and sizes out of ``4M`` and ``1M``.

    Returns
    -------
    dict
        ``memory``: the measured bandwidth of one core; per scene: times, ratios, agreement, bytes moved.

    """
    om = load_reference()
    figures: dict[str, Any] = {
        "reference": "ondamonitor" if om else "not installed",
        "processors": os.cpu_count(),
        "memory_gb_per_s": _memory_bandwidth_gb_s(),
        "scenes": {},
    }
    for size in sizes.split(","):
        radius = panel_radius(SHAPES[size])
        bad = np.random.default_rng(seed).random(radius.shape) < 0.002
        for kind, n_spots in (("blank", 0), ("dense", 500)):
            counts = draw_counts(radius, n_spots, seed)
            for dtype in dtypes.split(","):
                scene = _measure(om, counts.astype(dtype), radius, bad, repeats, figures["memory_gb_per_s"])
                figures["scenes"][f"{size} {kind} {dtype}"] = scene
    return figures


def _measure(
    om: ModuleType | None,
    frame: FrameArray,
    radius: Float32Array,
    bad: BoolArray,
    repeats: int,
    bandwidth: float,
) -> dict[str, Any]:
    exact = Peakfinder8(radius, bad, PARAMS)
    sampled = Peakfinder8(radius, bad, replace(PARAMS, statistics="sampled"))
    n_cores = os.cpu_count() or 1
    batch = np.stack([frame] * (2 * n_cores))
    finders: dict[str, Callable[[], Any]] = {
        "exact": lambda: exact.find(frame[None], n_threads=1),
        "sampled": lambda: sampled.find(frame[None], n_threads=1),
        "exact_one_frame_all_cores": lambda: exact.find(frame[None]),
        "exact_batch_all_cores": lambda: exact.find(batch),
        "sampled_batch_all_cores": lambda: sampled.find(batch),
    }
    if om is not None:
        single = frame.astype(np.float32)
        finders["reference_normal"] = lambda: find_reference(om, single, radius, bad, None)
        plan = _reference_sample(radius, bad)
        finders["reference_fast"] = lambda: find_reference(om, single, radius, bad, plan)
    clock, processor, results = _time_in_turn(finders, repeats)
    for name in ("exact_batch_all_cores", "sampled_batch_all_cores"):
        clock[name] /= len(batch)
    times = {name: clock[name] if "all_cores" in name else processor[name] for name in finders}
    moved = _bytes_moved(exact.plan, frame)
    scene: dict[str, Any] = {
        "ms": {name: round(1e3 * t, 3) for name, t in times.items()},
        "clock_ms": {name: round(1e3 * t, 3) for name, t in clock.items()},
        "peaks": len(results["exact"]),
        "bytes_moved": moved,
        "times_the_bandwidth_limit": round(times["exact"] / (moved / bandwidth / 1e9), 2),
        "bytes_moved_sampled": frame.nbytes,
        "times_the_bandwidth_limit_sampled": round(times["sampled"] / (frame.nbytes / bandwidth / 1e9), 2),
    }
    return scene | (_compare(times, clock, results, frame.shape[1], n_cores) if om is not None else {})


def _compare(
    times: dict[str, float], clock: dict[str, float], results: dict[str, Any], n_ss: int, n_cores: int
) -> dict[str, Any]:
    """Ratios of the times, and how far the peak lists agree (the smaller of precision and recall)."""
    slab = {
        name: np.column_stack([results[name].fs, results[name].ss + results[name].panel * n_ss])
        for name in ("exact", "sampled")
    }
    normal, fast = results["reference_normal"], results["reference_fast"]
    return {
        "speedup_exact": round(times["reference_normal"] / times["exact"], 2),
        "speedup_sampled": round(times["reference_fast"] / times["sampled"], 2),
        # As if the reference, which runs one frame at a time, scaled perfectly over the processors.
        "speedup_exact_all_cores": round(
            clock["reference_normal"] / n_cores / clock["exact_batch_all_cores"], 2
        ),
        "speedup_sampled_all_cores": round(
            clock["reference_fast"] / n_cores / clock["sampled_batch_all_cores"], 2
        ),
        "agreement_exact": _agreement(slab["exact"], normal),
        "agreement_sampled": _agreement(slab["sampled"], slab["exact"]),
        "agreement_reference_fast": _agreement(fast, normal),
    }


def _agreement(found: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> float:
    if not len(found) or not len(reference):
        return float(len(found) == len(reference))
    distance, _ = cKDTree(reference).query(found)
    n = int(np.count_nonzero(distance < 0.5))
    return round(min(n / len(found), n / len(reference)), 4)


def _time_in_turn(
    finders: dict[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, float], dict[str, float], dict[str, Any]]:
    """Run all finders in turn, so that a busy machine slows all alike.

    Returns median seconds by the clock, median processor seconds of this thread, and the last results.
    """
    results = {name: find() for name, find in finders.items()}
    clock: dict[str, list[float]] = {name: [] for name in finders}
    processor: dict[str, list[float]] = {name: [] for name in finders}
    for _ in range(repeats):
        for name, find in finders.items():
            begin, begin_processor = time.perf_counter(), time.thread_time()
            find()
            clock[name].append(time.perf_counter() - begin)
            processor[name].append(time.thread_time() - begin_processor)
    return _medians(clock), _medians(processor), results


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: float(np.median(values)) for name, values in times.items()}


def _bytes_moved(plan: RingPlan, frame: FrameArray) -> int:
    """Bytes that the one pass streams from memory: the frame, the sorted pixel numbers and the segments."""
    tiles = plan.tiles
    return int(frame.nbytes + tiles.pixel.nbytes + tiles.segment_ring.nbytes + tiles.segment_end.nbytes)


def _memory_bandwidth_gb_s() -> float:
    """Return what one core reads from memory: the best of some passes over a large array."""
    values = np.ones(64 * 2**20, np.float32)
    best = np.inf
    for _ in range(6):
        begin = time.thread_time()
        values.max()
        best = min(best, time.thread_time() - begin)
    return round(values.nbytes / best / 1e9, 2)


def panel_radius(shape: tuple[int, int, int]) -> Float32Array:
    """Radius of panels in two columns (or one panel) about the beam, truncated as peakfinder8 has it."""
    panel, ss, fs = np.indices(shape)
    n_panels, n_ss, n_fs = shape
    rows = (n_panels + 1) // 2
    x = fs - n_fs / 2 if n_panels == 1 else (panel % 2) * (n_fs + 44) - n_fs - 10 + fs
    y = (panel // 2) * (n_ss + 38) - rows * (n_ss + 38) / 2 + ss
    radius: Float32Array = np.hypot(np.trunc(x), np.trunc(y)).astype(np.float32)
    return radius


def draw_counts(radius: Float32Array, n_spots: int, seed: int) -> Float32Array:
    """Poisson counts of a falling background with a water ring, Gaussian read noise, and spots."""
    rng = np.random.default_rng(seed)
    rate = 10 * np.exp(-radius / 800) + 10 * np.exp(-(((radius - 400) / 60) ** 2) / 2)
    y, x = np.mgrid[-3:4, -3:4]
    spot = np.exp(-(y**2 + x**2) / 2) / (2 * np.pi)
    n_panels, n_ss, n_fs = radius.shape
    for _ in range(n_spots):
        panel, ss, fs = rng.integers(n_panels), rng.integers(4, n_ss - 4), rng.integers(4, n_fs - 4)
        rate[panel, ss - 3 : ss + 4, fs - 3 : fs + 4] += 10 ** rng.uniform(1.5, 3.5) * spot
    noisy = rng.poisson(rate) + rng.normal(0, 0.5, rate.shape)
    counts: Float32Array = np.maximum(noisy, 0).astype(np.float32)
    return counts


def load_reference() -> ModuleType | None:
    """Return ondamonitor's compiled module; None where it isn't installed."""
    try:
        return importlib.import_module("om.algorithms._crystallography")
    except ImportError:
        return None


def find_reference(
    om: ModuleType,
    frame: Float32Array,
    radius: Float32Array,
    bad: BoolArray,
    sample: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None,
) -> npt.NDArray[np.float64]:
    """Return ondamonitor's peaks (n, 2): fs and ss in the slab."""
    n_panels, n_ss, n_fs = frame.shape
    slab = (n_panels * n_ss, n_fs)
    pixels, rings = sample or (np.zeros(1, np.int32), np.zeros(1, np.int32))
    fs, ss, *_ = om.peakfinder_8(
        PARAMS.max_peaks,
        frame.reshape(slab),
        (~bad).view(np.int8).reshape(slab),
        radius.reshape(slab),
        *(len(pixels) if sample else 0, pixels, rings, int(sample is not None)),
        *(n_fs, n_ss, 1, n_panels),
        *(PARAMS.threshold, PARAMS.min_snr, PARAMS.min_pix, PARAMS.max_pix, PARAMS.local_bg_radius),
    )
    return np.column_stack([fs, ss])


def _reference_sample(
    radius: Float32Array, bad: BoolArray
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Draw at most 100 random usable pixels a ring, as ondamonitor's fast mode does."""
    rng = np.random.default_rng(0)
    good = rng.permutation(np.flatnonzero(~bad))
    ring = np.rint(radius.ravel()[good]).astype(np.int32)
    order = np.argsort(ring, kind="stable")
    good, ring = good[order], ring[order]
    rank = np.arange(ring.size) - np.searchsorted(ring, ring)
    return good[rank < 100].astype(np.int32), ring[rank < 100]
