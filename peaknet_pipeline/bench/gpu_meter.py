"""What a piece of work costs on a device: time, kernel launches, memory, and the share of the device's own limits."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from peaknet_pipeline.devices import choose_device

Work = Callable[[], object]

SIDE, SWEEP_FLOATS = 8192, 256 * 2**20
"""Matrix product and array that a GPU's limits are measured with; a CPU gets a hundredth."""


@dataclass(frozen=True)
class Meter:
    """Measures on one device, whose limits are known."""

    device: torch.device
    repeats: int
    flop_per_second: float
    bytes_per_second: float

    @classmethod
    def on(cls, name: str, repeats: int) -> "Meter":
        """Measure the limits of a device: a large bfloat16 matrix product, and a sum over a large array."""
        device = choose_device(name)
        shrink = 1 if device.type == "cuda" else 16
        a = torch.randn(SIDE // shrink, SIDE // shrink, device=device).to(torch.bfloat16)
        sweep = torch.ones(SWEEP_FLOATS // shrink**2, device=device)
        product = min(_times(lambda: a @ a, device, 5))
        total = min(_times(sweep.sum, device, 5))
        return cls(device, repeats, 2.0 * len(a) ** 3 / product, 4.0 * sweep.numel() / total)

    @property
    def name(self) -> str:
        """The device in words."""
        is_gpu = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if is_gpu else str(self.device)

    def measure(
        self, work: Work, n: int, *, flop: float | None = None, least_bytes: float = 0.0
    ) -> dict[str, Any]:
        """Return what ``work`` on ``n`` things costs for each, medians after a first, untimed call.

        Parameters
        ----------
        work : callable
            Ends with its results at hand or only queued; the device is waited for.
        n : int
            Frames, or fits.
        flop : float, optional
            Operations of one; counted without it: matrix products and convolutions.
        least_bytes : float
            Bytes that one takes from the device's memory, or leaves there, at least.

        """
        if flop is None:
            with FlopCounterMode(display=False) as counter:
                work()
            flop = counter.get_total_flops() / n
        work()
        is_gpu = self.device.type == "cuda"
        if is_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        each = statistics.median(_times(work, self.device, self.repeats)) / n
        bound = max(flop / self.flop_per_second, least_bytes / self.bytes_per_second)
        figures: dict[str, Any] = {
            "ms": _short(1e3 * each),
            "per_second": _short(1.0 / each),
            "gflop": _short(flop / 1e9),
            "least_mbytes": _short(least_bytes / 1e6),
            "share_of_roofline": _short(bound / each),
        }
        if is_gpu:
            figures["peak_memory_mib"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20)
            figures["kernel_launches"] = _launches(work) / n
        return figures


def _times(work: Work, device: torch.device, repeats: int) -> list[float]:
    seconds = []
    for turn in range(repeats + 1):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        if turn:
            seconds.append(time.perf_counter() - started)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _launches(work: Work) -> int:
    """Count the kernels of one call, those of a replayed CUDA graph too; copies are none."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    on_gpu = [e.name for e in profile.events() if str(e.device_type).endswith("CUDA")]
    return sum(not name.startswith(("Memcpy", "Memset")) for name in on_gpu)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
