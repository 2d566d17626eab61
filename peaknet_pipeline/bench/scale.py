"""What a stream's measured costs predict for more GPUs and faster detectors: which stage saturates first.

A stage's capacity is the number of its units divided by its seconds per frame. Readers and writers share the cores
that a GPU brings along; transfer and network belong to the GPU; the shared storage is one for all.

Where finding was measured on a CPU, a GPU's time is assumed: the shipped network's operations and bytes at a GPU's
published peaks, of which a share is reached.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.bench.model import SHAPE, measure_work
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.learn.checkpoint import load_shipped

GPUS = (1, 8, 100)
RATES_HZ = (120.0, 2_000.0, 35_000.0, 1_000_000.0)


@dataclass(frozen=True)
class StageCosts:
    """Seconds a frame costs one unit of each stage, and its bytes as stored and in memory."""

    read_s: float
    transfer_s: float
    find_s: float
    write_s: float
    stored_bytes: float
    raw_bytes: float


@dataclass(frozen=True)
class Site:
    """What a GPU brings along, and what all share."""

    readers_per_gpu: int = 8
    writers_per_gpu: int = 1
    storage_gb_s: float = 100.0


def capacities(costs: StageCosts, site: Site, n_gpus: int) -> dict[str, float]:
    """Return the frames per second that each stage sustains with ``n_gpus`` GPUs."""
    units = {
        "read": (site.readers_per_gpu * n_gpus, costs.read_s),
        "transfer": (n_gpus, costs.transfer_s),
        "find": (n_gpus, costs.find_s),
        "write": (site.writers_per_gpu * n_gpus, costs.write_s),
        "storage": (1, costs.stored_bytes / (site.storage_gb_s * 1e9)),
    }
    return {name: n / seconds if seconds > 0 else math.inf for name, (n, seconds) in units.items()}


def predict(costs: StageCosts, site: Site, n_gpus: int, rate_hz: float) -> dict[str, Any]:
    """Return what a detector of ``rate_hz`` meets: the first stage to saturate, what is kept up with, GPUs needed."""
    stages = capacities(costs, site, n_gpus)
    limiting = min(stages, key=lambda stage: stages[stage])
    sustained = min(rate_hz, stages[limiting])
    per_gpu = min(value for name, value in capacities(costs, site, 1).items() if name != "storage")
    return {
        "gpus": n_gpus,
        "rate_hz": rate_hz,
        "sustained_hz": round(sustained, 1),
        "kept_up": sustained >= rate_hz,
        "first_to_saturate": limiting,
        "capacity_hz": {name: round(value, 1) for name, value in stages.items()},
        "gpus_needed": math.ceil(rate_hz / per_gpu) if stages["storage"] >= rate_hz else None,
    }


def run(
    figures: str = "",
    read_ms: float = 0.0,
    find_ms: float = 0.0,
    write_ms: float = 0.0,
    megapixels: float = 4.2,
    bytes_per_pixel: float = 2.0,
    compression: float = 0.0,
    transfer_gb_s: float = 50.0,
    readers_per_gpu: int = 8,
    storage_gb_s: float = 100.0,
    gpu_tflop_s: float = 990.0,
    gpu_tb_s: float = 4.8,
    gpu_share: float = 0.25,
) -> dict[str, Any]:
    """Predict from the record of ``bench stream`` (a JSON file), single costs overridden where they are given.

    Costs of the record are scaled to ``megapixels``. ``transfer_gb_s`` is the bandwidth between host and GPU;
    ``gpu_tflop_s`` (bfloat16) and ``gpu_tb_s`` are an H200's, of which ``gpu_share`` is reached, the other steps on
    the GPU included.

    Raises
    ------
    ParameterError
        Neither a record nor costs of reading and writing, or a record of something else.

    """
    raw_bytes = megapixels * 1e6 * bytes_per_pixel
    measured = _measured(Path(figures), megapixels) if figures else {}
    given = {"read": read_ms, "find": find_ms, "write": write_ms}
    seconds = {name: given[name] / 1e3 or measured.get(name, 0.0) for name in given}
    assumed = seconds["find"] <= 0
    if assumed:
        seconds["find"] = network_bound_s(megapixels, tflop_s=gpu_tflop_s, tb_s=gpu_tb_s) / gpu_share
    missing = [f"{name}_ms" for name, value in seconds.items() if value <= 0]
    if missing:
        raise ParameterError("costs are missing", expected="figures=RECORD.json, or each cost", found=missing)
    ratio = compression or measured.get("compression", 1.0)
    costs = StageCosts(
        seconds["read"],
        raw_bytes / (transfer_gb_s * 1e9),
        seconds["find"],
        seconds["write"],
        raw_bytes / ratio,
        raw_bytes,
    )
    site = Site(readers_per_gpu, 1, storage_gb_s)
    return {
        "costs": asdict(costs),
        "finding_is": "assumed" if assumed else "measured or given",
        "compression": round(ratio, 2),
        "site": asdict(site),
        "predictions": [predict(costs, site, n, rate) for n in GPUS for rate in RATES_HZ],
    }


def network_bound_s(megapixels: float, *, tflop_s: float, tb_s: float) -> float:
    """Return the least seconds that the shipped network takes for a frame: its operations, or its bytes to and from memory."""
    work = measure_work(load_shipped().model.config)
    per_pixel = max(work.flop / (tflop_s * 1e12), work.activation_bytes / (tb_s * 1e12)) / math.prod(SHAPE)
    return megapixels * 1e6 * per_pixel


def _measured(path: Path, megapixels: float) -> dict[str, float]:
    """Return seconds per frame of each stage of a record, scaled to the frame's size, and how far frames are compressed.

    Reading and writing cost the CPU time that they took, whatever else ran on the machine; finding, the time on its
    GPU, and is left out where that was a CPU.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        scale = megapixels * 1e6 / record["pixels"]
        cpu_ms = record["cpu_ms_per_frame"]
        costs = {"read": scale * cpu_ms["read"] / 1e3, "write": cpu_ms["write"] / 1e3}
        if record["device"].startswith("cuda"):
            costs["find"] = scale / record["frames_per_second_alone"]["find"]
        return costs | {"compression": record["frame_bytes"] / record["stored_bytes_per_frame"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ParameterError(
            f"not a record of the stream benchmark ({error})",
            where=path,
            remedy="Write one with: peaknet bench stream --json",
        ) from error
