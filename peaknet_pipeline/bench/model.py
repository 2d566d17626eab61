"""Benchmark of the networks: a 4.2 Mpix frame beside compiled peakfinder8s, and the machine's limits."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from peaknet_pipeline.bench.finder import find_reference, load_reference
from peaknet_pipeline.infer.engine import Engine, has_bfloat16
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.learn.checkpoint import LoadedModel, ModelCard, load_shipped, shipped_models
from peaknet_pipeline.learn.config import ModelConfig, named_scale
from peaknet_pipeline.learn.host.significance import normalise_cells
from peaknet_pipeline.learn.host.sparse import SparseOnCpu
from peaknet_pipeline.learn.model import PeakNet, build_model, count_parameters
from peaknet_pipeline.learn.normalise import NormaliseParameters, normalise
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.types import BoolArray, Float32Array

SHAPE = (8, 512, 1024)
"""A JUNGFRAU 4M frame: 4.2 Mpix."""


@dataclass(frozen=True)
class Work:
    """What one frame costs in principle."""

    flop: float
    weight_bytes: float
    activation_bytes: float
    """Output of every convolution and linear layer, written and read once, in bfloat16."""


def run(
    *,
    scale: str = "local",
    shipped: bool = True,
    n_spots: int = 60,
    seed: int = 0,
    repeats: int = 9,
    threads: int = 1,
) -> dict[str, Any]:
    """Measure a network and peakfinder8s on the same frame and cores, alternating; medians.

    ``peaks`` is raw panels to a peak table with inference's settings, ``logits`` raw panels to logits in the same way,
    ``everywhere`` the same with every cell computed, ``float32`` the network as torch runs it; ``ondamonitor`` is its
    compiled peakfinder8 (normal mode, float32), where that is installed.

    Parameters
    ----------
    scale : str
        Named scale, used with untrained weights unless ``shipped`` weights are there.
    shipped : bool
        Measure the network that comes with the package.
    n_spots, seed : int
        Spots per panel of the frame, and the seed of frame and weights.
    repeats : int
        Rounds over all candidates.
    threads : int
        Torch threads; peakfinder8 and the compiled normalisation use one core per frame.

    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = (
            load_shipped().model
            if shipped and shipped_models()
            else build_model(named_scale(scale), seed=seed)
        )
        images, good = draw_frame(n_spots=n_spots, seed=seed)
        # On one core, processor time is what other load on the machine disturbs least.
        clock = time.thread_time if threads == 1 else time.perf_counter
        candidates = {**_finders(images, good), **_ways(model, images, good)}
        times = _alternate(candidates, repeats, clock)
        figures: dict[str, Any] = {"mpix": images.size / 1e6, "threads": threads, "repeats": repeats}
        figures |= {f"{name}_ms": round(value, 2) for name, value in times.items()}
        for reference in ("ondamonitor", "peakfinder8"):
            if reference in times:
                figures[f"peaks_over_{reference}"] = round(times["peaks"] / times[reference], 2)
        figures |= _describe(model, images, good, times)
        return figures
    finally:
        torch.set_num_threads(before)


def draw_frame(
    *, n_spots: int, seed: int, shape: tuple[int, int, int] = SHAPE
) -> tuple["np.typing.NDArray[np.uint16]", BoolArray]:
    """Draw a frame (n_panels, ss, fs), Poisson 8 photons per pixel, with spots; one pixel in a hundred is bad."""
    rng = np.random.default_rng(seed)
    images = rng.poisson(8.0, shape).astype(np.uint16)
    for panel in images:
        for ss, fs in rng.integers(2, (shape[1] - 2, shape[2] - 2), size=(n_spots, 2)):
            panel[ss - 1 : ss + 2, fs - 1 : fs + 2] += rng.poisson(40.0, (3, 3)).astype(np.uint16)
    return images, rng.random(shape) > 0.01


def measure_work(config: ModelConfig, shape: tuple[int, int, int] = SHAPE) -> Work:
    """Count operations and bytes of one frame (n_panels, ss, fs) without computing anything."""
    with torch.device("meta"):
        model = PeakNet(config).eval()
        moved = 0

        def note(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            nonlocal moved
            moved += output.numel()

        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(note)
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            model(torch.zeros(shape[0], 1, *shape[1:]))
    weights = sum(p.numel() for p in model.parameters())
    return Work(float(counter.get_total_flops()), 2.0 * weights, 4.0 * moved)


def _finders(images: "np.typing.NDArray[np.uint16]", good: BoolArray) -> dict[str, Callable[[], object]]:
    """Return what the network is compared with."""
    radius = _radius()
    finders = {
        mode: Peakfinder8(radius, ~good, Peakfinder8Params(threshold=20.0, statistics=mode))
        for mode in ("exact", "sampled")
    }
    reference, single = load_reference(), images.astype(np.float32)
    theirs = (
        {"ondamonitor": lambda: find_reference(reference, single, radius, ~good, None)} if reference else {}
    )
    return {
        **theirs,
        "peakfinder8": lambda: finders["exact"].find(images[None], n_threads=1),
        "peakfinder8_sampled": lambda: finders["sampled"].find(images[None], n_threads=1),
    }


def _ways(
    model: PeakNet, images: "np.typing.NDArray[np.uint16]", good: BoolArray
) -> dict[str, Callable[[], object]]:
    """Return the ways through the network."""
    loaded = LoadedModel(model, NormaliseParameters(), ModelCard("bench", threshold=0.6))
    network = Network.from_checkpoint(loaded)
    decode, params = InferenceParams(device="cpu").parts()
    engine = Engine(network, bad_pixels=~good, decode=decode, params=params)
    eager = model.float().eval()
    pixels, mask = torch.from_numpy(images), torch.from_numpy(good)
    ways: dict[str, Callable[[], object]] = {
        "peaks": lambda: engine(images[None]),
        "float32": lambda: _inferred(lambda z: eager(z), normalise(pixels, mask)),
    }
    if network.on_host is None:
        return ways
    logits, everywhere = (network.on_host(_host_dtype(), pair) for pair in (decode.min_neighbour, 0.0))
    return {
        **ways,
        "logits": lambda: logits(images, good),
        "everywhere": lambda: everywhere(images, good),
        "normalise": lambda: normalise_cells(images, good, stem=model.config.stem, dtype=_host_dtype()),
    }


def _host_dtype() -> torch.dtype:
    return torch.bfloat16 if has_bfloat16() else torch.float32


def _inferred(function: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return function(value)


def _radius() -> Float32Array:
    ss, fs = np.mgrid[: SHAPE[1], : SHAPE[2]]
    corners = [((n // 2) * 550.0 - 1100.0, (n % 2) * 1060.0 - 1060.0) for n in range(SHAPE[0])]
    return np.stack([np.hypot(ss + y, fs + x) for y, x in corners]).astype(np.float32)


def _alternate(
    candidates: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return each candidate's median milliseconds, all tried in turn in every round, one round untimed."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):
        for name, once in candidates.items():
            start = clock()
            once()
            if turn:
                times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def _describe(
    model: PeakNet,
    images: "np.typing.NDArray[np.uint16]",
    good: BoolArray,
    times: dict[str, float],
) -> dict[str, Any]:
    """Return the network's size, its work on this frame, and which share of the machine's measured limits it reaches.

    The limit: all operations at the rate of a large matrix product, after the frame was read twice and its logits written.
    """
    work = measure_work(model.config)
    flop = work.flop
    if model.config.family == "local":
        pair = InferenceParams().min_neighbour
        flop = SparseOnCpu(model, pair=pair, dtype=_host_dtype()).count_flop(images, good)
    flop_per_second, bytes_per_second = machine_limits(dtype=_host_dtype())
    moved = 2.0 * (images.nbytes + good.nbytes) + 4.0 * images.size
    bound_ms = 1e3 * (flop / flop_per_second + moved / bytes_per_second)
    return {
        "parameters": count_parameters(model.config)["total"],
        "dtype": str(_host_dtype()).removeprefix("torch."),
        "gflop": round(flop / 1e9, 2),
        "gflop_everywhere": round(work.flop / 1e9, 2),
        "weight_mbytes": round(work.weight_bytes / 1e6, 3),
        "activation_mbytes_everywhere": round(work.activation_bytes / 1e6, 1),
        "machine_gflop_per_second": round(flop_per_second / 1e9, 1),
        "machine_gbytes_per_second": round(bytes_per_second / 1e9, 1),
        "roofline_ms": round(bound_ms, 2),
        "roofline_fraction": round(bound_ms / times.get("logits", times["float32"]), 2),
    }


def machine_limits(side: int = 1024, *, dtype: torch.dtype = torch.bfloat16) -> tuple[float, float]:
    """Measure matrix products, operations per second, and copying, bytes per second."""
    a = torch.randn(side, side).to(dtype)
    source = torch.zeros(32_000_000, dtype=torch.uint8)
    target: torch.Tensor = torch.empty_like(source)
    best = _alternate({"product": lambda: a @ a, "copy": lambda: target.copy_(source)}, 7)
    return 2.0 * side**3 / best["product"] * 1e3, 2.0 * source.numel() / best["copy"] * 1e3
