"""How many panels go through the network at once, and how many frames make a batch."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from peaknet_pipeline.infer.params import EngineParams
from peaknet_pipeline.types import FrameArray

if TYPE_CHECKING:
    import torch

CPU_CHUNK_PIXELS = 1 << 18
"""On a CPU a pass that stays near the caches beats a large one."""

CPU_BATCH_PIXELS = 1 << 21
"""Measured: from 0.7 to 8 million pixels a frame costs the same within 2 %, single small frames 10 % more, 16 million 4 % more.

The lower end keeps batches quick, so that stages overlap and little is lost to an interruption.
"""

GPU_BATCH_PIXELS = 1 << 26
"""Large batches keep a GPU busy between two lists."""

DEVICE_BYTES_PER_PIXEL = 32
"""Raw pixel, mask, float32 pixel, logit, and what decoding needs of each, with room to spare."""

MAX_BATCH_FRAMES = 256
MIN_BATCHES = 8
DEVICE_SHARE = 0.25
"""Share of a GPU's free memory that one batch may fill: two threads have one each."""

HOST_SHARE = 0.25
"""Share of the host's free memory that all batches under way may fill."""

MEMINFO, CGROUP_MAX, CGROUP_NOW = (
    Path(name) for name in ("/proc/meminfo", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")
)


def fit_batch(
    frame: FrameArray, device: "torch.device", *, in_flight: int = 16, n_frames: int | None = None
) -> int:
    """Return the frames per batch with which all batches under way fit the memory of host and device.

    Parameters
    ----------
    frame : (1, n_panels, ss, fs)
        One raw frame.
    device : torch.device
        Where peaks are found.
    in_flight : int
        Batches under way at most.
    n_frames : int, optional
        Frames of the run: a short one still goes through in several batches, so that the stages overlap.

    """
    wanted = (GPU_BATCH_PIXELS if device.type == "cuda" else CPU_BATCH_PIXELS) // frame.size
    limits = [MAX_BATCH_FRAMES, wanted, int(HOST_SHARE * free_host_bytes() / (in_flight * frame.nbytes))]
    if n_frames is not None:
        limits.append(n_frames // MIN_BATCHES)
    if device.type == "cuda":
        import torch

        if not torch.cuda.is_available():
            return max(1, min(limits))
        free, _ = torch.cuda.mem_get_info(device)
        limits.append(int(DEVICE_SHARE * free / (DEVICE_BYTES_PER_PIXEL * frame.size)))
    return max(1, min(limits))


def fit_finders(device: "torch.device") -> int:
    """Return the finder threads: two overlap transfer and computation on a GPU, one has the CPU to itself."""
    return 2 if device.type == "cuda" else 1


def free_host_bytes() -> int:
    """Return the memory that this process may still take: the machine's, or its control group's where that is less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        free = 1024 * int(lines.get("MemAvailable", f"{free // 1024} kB").split()[0])
    if CGROUP_MAX.is_file() and CGROUP_NOW.is_file() and (limit := CGROUP_MAX.read_text().strip()) != "max":
        free = min(free, max(int(limit) - int(CGROUP_NOW.read_text()), 0))
    return free


def fit_chunk(
    run_one: Callable[[], object], panel_pixels: int, device: "torch.device", params: EngineParams
) -> int:
    """Return the panels per forward pass: as told, for the caches of a CPU, or measured for a GPU's memory.

    ``run_one`` sends one panel through the network.
    """
    if params.chunk_pixels:
        return max(1, params.chunk_pixels // panel_pixels)
    if device.type != "cuda":
        return max(1, CPU_CHUNK_PIXELS // panel_pixels)
    import torch

    run_one()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run_one()
    torch.cuda.synchronize(device)
    per_panel = max(torch.cuda.max_memory_allocated(device) - before, 1)
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(params.memory_share * free / per_panel))
