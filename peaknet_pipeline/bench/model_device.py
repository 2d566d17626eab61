"""A network on a device, from raw frames to peak lists: frames resident there, and sent there by as many threads as help."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.memory import fit_batch, fit_finders
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.transfer import as_tensor
from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.types import BoolArray, FrameArray

BATCHES = 8
"""Batches per measurement."""


def measure_on_device(
    loaded: LoadedModel, image: FrameArray, good: BoolArray, *, repeats: int, batch_frames: int = 0
) -> dict[str, Any]:
    """Measure frames per second, medians over ``repeats``, on the device that an engine takes by itself.

    ``image`` and ``good`` are (n_panels, ss, fs). The first calls, which compile and record, don't count.
    """
    decode, params = InferenceParams().parts()
    engine = Engine(Network.from_checkpoint(loaded), bad_pixels=~good, decode=decode, params=params)
    batch = batch_frames or fit_batch(image[None], engine.device)
    frames = np.ascontiguousarray(np.broadcast_to(image, (batch, *image.shape)))
    resident = as_tensor(frames).to(engine.device)
    threads = fit_finders(engine.device)
    with ThreadPoolExecutor(threads) as pool:
        ways: dict[str, Callable[[], object]] = {
            "resident": lambda: [engine.find_resident(resident) for _ in range(BATCHES)],
            "sent": lambda: list(pool.map(engine, [frames] * BATCHES)),
        }
        rates = {name: _rate(way, batch * BATCHES, engine.device, repeats) for name, way in ways.items()}
        peaks = len(engine(frames[:1]))
    return {
        "device": _name(engine.device),
        "batch_frames": batch,
        "threads": threads,
        "peaks_per_frame": peaks,
        "frames_per_second_resident": rates["resident"],
        "frames_per_second_sent": rates["sent"],
    }


def _rate(work: Callable[[], object], n_frames: int, device: torch.device, repeats: int) -> float:
    rates = []
    for turn in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            rates.append(n_frames / (time.perf_counter() - started))
    return round(statistics.median(rates), 2)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
