"""The parts of `peaknet bench gpu`: each measures one thing on the device, at full size or at one that a CPU bears."""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peaknet_pipeline.bench.finder import PARAMS, draw_counts, panel_radius
from peaknet_pipeline.bench.fit import draw_patches
from peaknet_pipeline.bench.gpu_meter import Meter
from peaknet_pipeline.bench.gpu_parity import measure_parity
from peaknet_pipeline.bench.index import LYSOZYME, simulate_spots
from peaknet_pipeline.bench.model import draw_frame, measure_work
from peaknet_pipeline.bench.stream_bounds import Workload, measure_round, summarise
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.indexing.lattice import index_vectors
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.second_look.candidates import SearchEffort, find_candidates
from peaknet_pipeline.indexing.second_look.weak_frame import SecondLookParams
from peaknet_pipeline.indexing.target import make_target
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.memory import fit_batch, fit_finders
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.transfer import as_tensor
from peaknet_pipeline.learn.checkpoint import LoadedModel, ModelCard, load_shipped
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.peaks.fit import fit_patches
from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.peakfinder8_kernels import device_peakfinder8
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.types import BoolArray, FrameArray

BATCHES = 8
"""Batches that are sent from the host at once, by as many threads as help."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    shape: tuple[int, int, int] = (8, 512, 1024)
    n_spots: int = 60
    batches: tuple[int, ...] = (1, 4, 16, 64)
    repeats: int = 15
    n_fits: int = 50_000
    n_indexed: int = 1_000
    n_stored: int = 64
    stream_s: float = 5.0
    parity_frames: int = 4


SMALL = Size((2, 96, 128), 12, (2,), 1, 60, 8, 8, 0.1, 1)
"""For a test on a CPU."""


def _images(size: Size) -> tuple[FrameArray, BoolArray]:
    return draw_frame(n_spots=size.n_spots, seed=0, shape=size.shape)


def measure_peakfinder8(meter: Meter, size: Size) -> dict[str, Any]:
    """peakfinder8 by Triton's kernels, and in plain torch, for frames on the device by batch size, and from the host."""
    radius = panel_radius(size.shape)
    bad = np.random.default_rng(0).random(size.shape) < 0.002
    frame = draw_counts(radius, 8 * size.n_spots, 0).astype(np.uint16)
    with_triton = meter.device.type == "cuda" and find_spec("triton")
    figures: dict[str, Any] = {}
    for kernels in ("triton", "torch") if with_triton else ("torch",):
        finder = device_peakfinder8(radius, bad, PARAMS, device=meter.device, kernels=kernels)
        for n in size.batches if kernels == "triton" else size.batches[:3]:
            frames = np.stack([frame] * n)
            on_device = torch.from_numpy(frames).to(meter.device)
            moved = finder.bytes_moved(n, frame.itemsize) or 2 * frame.nbytes
            figures[f"{kernels}, batch {n}"] = meter.measure(
                partial(finder.find, on_device), n, flop=0.0, least_bytes=moved
            )
        figures[f"{kernels}, from the host, batch {n}"] = meter.measure(
            partial(finder.find_table, frames), n, flop=0.0, least_bytes=moved
        )
    return figures


def measure_network(name: str, meter: Meter, size: Size) -> dict[str, Any]:
    """A network from 16-bit frames to peak lists: frames on the device, and sent there by as many threads as help."""
    images, good = _images(size)
    loaded = _network(name)
    work = measure_work(loaded.model.config, size.shape)
    engine = _engine(loaded, good, meter.device)
    batch = fit_batch(images[None], meter.device) if size is not SMALL else 2
    frames = np.ascontiguousarray(np.broadcast_to(images, (batch, *images.shape)))
    resident = as_tensor(frames).to(meter.device)
    least = images.nbytes + 4.0 * images.size + work.activation_bytes
    figures = {
        f"on the device, batch {batch}": meter.measure(
            partial(engine.find_resident, resident), batch, flop=work.flop, least_bytes=least
        )
    }
    threads = fit_finders(meter.device)
    with ThreadPoolExecutor(threads) as pool:
        figures[f"from the host, batch {batch}, {threads} threads"] = meter.measure(
            lambda: list(pool.map(engine, [frames] * BATCHES)),
            batch * BATCHES,
            flop=work.flop,
            least_bytes=least,
        )
    return figures


def measure_fit(meter: Meter, size: Size) -> dict[str, Any]:
    """The batched profile fit, in fits."""
    few = draw_patches(min(size.n_fits, 500), seed=1)
    patches = few.take(np.arange(size.n_fits) % len(few))
    params = FitParams(device=str(meter.device))
    moved = 8.0 * patches.data[0].size * 2
    return {
        f"{len(patches)} fits": meter.measure(
            lambda: fit_patches(patches, params), len(patches), least_bytes=moved
        )
    }


def measure_index(meter: Meter, size: Size) -> dict[str, Any]:
    """Known-cell indexing of lysozyme frames with 55 spots and 20 false ones."""
    batch, _ = simulate_spots(size.n_indexed, 55, 20, np.random.default_rng(0))
    params = IndexParams(max_lattices=1, device=str(meter.device))
    n_bytes = batch.q[0].nbytes
    return {
        f"{size.n_indexed} frames": meter.measure(
            lambda: index_vectors(batch, cell=LYSOZYME, params=params), size.n_indexed, least_bytes=n_bytes
        )
    }


def measure_second_look(meter: Meter, size: Size) -> dict[str, Any]:
    """The second look's search for orientations among weak spots, which runs on the CPU of this machine only."""
    batch, _ = simulate_spots(2, 60, 1400, np.random.default_rng(3))
    odds = np.random.default_rng(4).random(len(batch.q[0]))
    target, params = make_target(LYSOZYME), SecondLookParams()
    effort = SearchEffort(params.n_spots, params.max_pairs, params.n_turns, params.n_refined)

    def search() -> None:
        find_candidates(
            batch.q[0][batch.used[0]], odds[batch.used[0]], target,
            length_tolerance=(0.0015, 0.004), effort=effort,
        )  # fmt: skip

    host = Meter(torch.device("cpu"), min(size.repeats, 5), meter.flop_per_second, meter.bytes_per_second)
    figures = host.measure(search, 1, flop=0.0)
    return {"search of one frame, on the CPU: no GPU code": {k: figures[k] for k in ("ms", "per_second")}}


def measure_stream(meter: Meter, size: Size) -> dict[str, Any]:
    """From an HDF5 file to a peak table with the shipped network, beside each stage alone."""
    images, good = _images(size)
    engine = _engine(load_shipped(), good, meter.device)
    batch = min(fit_batch(images[None], meter.device), size.n_stored // 4)
    readers = 8 if meter.device.type == "cuda" else 1
    params = StreamParams(batch_frames=batch, readers=readers, finders=fit_finders(meter.device))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        stored = _write_frames(path, images, size.n_stored)
        opener = partial(open_run, path)
        work = Workload.prepare(opener, engine, params, Path(folder), seconds=size.stream_s)
        figures = summarise([measure_round(work)])
    wanted = ("frames_per_second", "frames_per_second_alone", "limiting_stage", "share_of_slowest_stage_alone",
              "share_of_shared_cores", "cpu_ms_per_frame", "busy_fraction")  # fmt: skip
    told = {"per_second": figures["frames_per_second"], "stored_as": stored}
    return {
        f"{work.n_frames} frames, batch {batch}, {readers} readers": told | {n: figures[n] for n in wanted}
    }


def _write_frames(path: Path, images: FrameArray, n: int) -> str:
    """Write the frame ``n`` times, shifted each time; bitshuffle with LZ4 where hdf5plugin is there."""
    options: dict[str, Any] = {}
    with suppress(ImportError):
        import hdf5plugin

        options = dict(hdf5plugin.Bitshuffle(cname="lz4"))
    with new_hdf5(path) as file:
        shape = images.shape
        data = file.create_dataset(
            "entry/data/data", (n, *shape), images.dtype, chunks=(1, *shape), **options
        )
        for i in range(n):
            data[i] = np.roll(images, 7 * i, axis=2)
    return "bitshuffle-LZ4" if options else "uncompressed"


def _network(name: str) -> LoadedModel:
    if name == "shipped":
        return load_shipped()
    model = build_model(named_scale(name), seed=0).eval()
    return LoadedModel(model, NormaliseParameters(), ModelCard(name, threshold=0.6))


def _engine(loaded: LoadedModel, good: BoolArray, device: torch.device) -> Engine:
    decode, params = InferenceParams(device=str(device)).parts()
    return Engine(Network.from_checkpoint(loaded), bad_pixels=~good, decode=decode, params=params)


def _parity(meter: Meter, size: Size) -> dict[str, Any]:
    images, good = _images(size)
    frames = np.stack([np.roll(images, 5 * i, axis=2) for i in range(size.parity_frames)])
    n_patches, n_spots = min(size.n_fits, 400), min(size.n_indexed, 64)
    return measure_parity(meter.device, frames, ~good, n_patches=n_patches, n_frames=n_spots)


MEASURES: dict[str, Callable[[Meter, Size], dict[str, Any]]] = {
    "parity": _parity,
    "peakfinder8": measure_peakfinder8,
    "network": partial(measure_network, "shipped"),
    "atto": partial(measure_network, "atto"),
    "teacher": partial(measure_network, "local-teacher"),
    "fit": measure_fit,
    "index": measure_index,
    "second_look": measure_second_look,
    "stream": measure_stream,
}
"""What measures each part of `gpu.PARTS`."""
