"""Benchmark of the device finder on a GPU, against what the GPU's memory bandwidth allows."""

import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.peaks.peakfinder8_device import DevicePeakfinder8
from peaknet_pipeline.peaks.peakfinder8_kernels import device_peakfinder8
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray

BATCHES = (1, 4, 16, 64)
GPU_TYPES = ("float32", "uint16", "int16", "int32")
GOAL_MS = 0.3
"""Goal per frame of 4.2 million pixels on an H200."""

SWEEP_FLOATS = 256 * 2**20


def measure_gpu(
    frame: FrameArray, radius: Float32Array, bad: BoolArray, params: Peakfinder8Params, repeats: int
) -> dict[str, Any]:
    """Time batches of one frame that already lie on the GPU; says so where there is none.

    Returns, for Triton's kernels and plain torch, ms per frame by batch size; for Triton's also the bytes that a frame must
    move, the share of the bandwidth limit that was reached, and whether the peaks are the CPU's.
    """
    if not torch.cuda.is_available():
        return {"note": "no GPU: not measured"}
    bandwidth = _bandwidth_gb_s()
    expected = len(Peakfinder8(radius, bad, params).find(frame[None]))
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name(), "bandwidth_gb_per_s": round(bandwidth), "peaks_cpu": expected,
    }  # fmt: skip
    for kernels in ("triton", "torch") if find_spec("triton") else ("torch",):
        finder = device_peakfinder8(radius, bad, params, device="cuda", kernels=kernels)
        figures[kernels] = _by_batch(finder, frame, repeats, bandwidth)
    figures["goal_ms"] = GOAL_MS
    return figures


def _by_batch(finder: DevicePeakfinder8, frame: FrameArray, repeats: int, bandwidth: float) -> dict[str, Any]:
    times: dict[str, Any] = {}
    for n in BATCHES:
        batch = torch.from_numpy(np.stack([frame] * n)).cuda()
        seconds, peaks = _time(finder, batch, repeats)
        row: dict[str, Any] = {"ms_per_frame": round(1e3 * seconds / n, 4), "peaks": peaks // n}
        moved = finder.bytes_moved(n, frame.dtype.itemsize)
        if moved:
            row["bytes_moved"] = moved
            row["share_of_bandwidth_limit"] = round(moved / (bandwidth * 1e9) / (seconds / n), 3)
        times[f"batch {n}"] = row
    return times


def _time(finder: DevicePeakfinder8, batch: torch.Tensor, repeats: int) -> tuple[float, int]:
    """Median seconds of a batch, after warming up, and its number of peaks."""
    seconds, peaks = [], 0
    for _ in range(repeats + 3):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        peaks = len(finder.find(batch).rows)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds[3:])), peaks


def _bandwidth_gb_s() -> float:
    """Return what the GPU reads from its memory: the best of some sums over a large array."""
    values = torch.ones(SWEEP_FLOATS, device="cuda")
    best = np.inf
    for _ in range(6):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        values.sum()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return float(values.numel() * 4 / best / 1e9)
