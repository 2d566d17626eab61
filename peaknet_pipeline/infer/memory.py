"""How many panels go through the network at once."""

from collections.abc import Callable

import torch

from peaknet_pipeline.infer.params import EngineParams

CPU_CHUNK_PIXELS = 1 << 18
"""On a CPU a pass that stays near the caches beats a large one."""


def fit_chunk(
    run_one: Callable[[], object], panel_pixels: int, device: torch.device, params: EngineParams
) -> int:
    """Return the panels per forward pass: as told, for the caches of a CPU, or measured for a GPU's memory.

    ``run_one`` sends one panel through the network.
    """
    if params.chunk_pixels:
        return max(1, params.chunk_pixels // panel_pixels)
    if device.type != "cuda":
        return max(1, CPU_CHUNK_PIXELS // panel_pixels)
    run_one()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run_one()
    torch.cuda.synchronize(device)
    per_panel = max(torch.cuda.max_memory_allocated(device) - before, 1)
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(params.memory_share * free / per_panel))
