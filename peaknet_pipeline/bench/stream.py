"""How fast the local stream is against its slowest stage alone, and whether its memory stays bounded."""

import os
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.bench.memory import resident_mib
from peaknet_pipeline.bench.stream_bounds import Workload, measure_round, summarise
from peaknet_pipeline.bench.stream_ray import compare
from peaknet_pipeline.bench.stream_runs import SmallFrames, simulated_run
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.heap import kept_heap
from peaknet_pipeline.infer.memory import fit_batch, fit_finders
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.part_sink import PartSink
from peaknet_pipeline.infer.parts import open_parts
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import stream_run
from peaknet_pipeline.learn.checkpoint import LoadedModel, ModelCard, load_shipped
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.types import FrameArray

TARGET_GROWTH_MIB = 16.0
"""How far the memory of a soak's second half may rise above the median of its first, after a quarter to warm up."""


def run(
    detector: str = "demo",
    n_frames: int = 96,
    seconds: float = 6.0,
    repeats: int = 3,
    readers: int = 1,
    finders: int = 0,
    batch_frames: int = 0,
    scale: str = "shipped",
    soak_frames: int = 0,
    ray: bool = False,
    seed: int = 11,
) -> dict[str, Any]:
    """Measure a simulated, compressed run: each stage alone and the stream, in turn, medians over ``repeats``.

    The run's ``n_frames`` frames are read over and over until the stream lasts ``seconds``: a real run has thousands.
    ``scale`` names an untrained network, or ``shipped`` the one of the package. On a GPU where there is one.
    ``finders`` and ``batch_frames`` are chosen for the device where they are 0.
    With ``soak_frames``, as many small frames go through the stream instead, and the memory is watched.
    With ``ray``, the stream is also measured on Ray.
    """
    if soak_frames:
        return {"cpus": os.cpu_count(), **soak(soak_frames, scale=scale, seed=seed)}
    with tempfile.TemporaryDirectory() as folder, kept_heap():
        opener = simulated_run(Path(folder), detector, n_frames, seed)
        with opener() as opened:
            first = opened.read(0, 1)
        find = _engine(scale, first.shape[1:])
        params = StreamParams(
            batch_frames=batch_frames or fit_batch(first, find.device, n_frames=n_frames),
            readers=readers,
            finders=finders or fit_finders(find.device),
        )
        work = Workload.prepare(opener, find, params, Path(folder), seconds=seconds)
        rounds = [measure_round(work) for _ in range(repeats)]
        stored = (Path(folder) / "run.h5").stat().st_size / n_frames
        on_ray = compare(work, partial(_warm_engine, scale, first), repeats=repeats) if ray else {}
    return {
        "detector": detector,
        "device": str(find.device),
        "pixels": first.size,
        "frame_bytes": first.nbytes,
        "stored_bytes_per_frame": round(stored),
        "frames": work.n_frames,
        "network": scale,
        "batch_frames": params.batch_frames,
        "readers": params.readers,
        "finders": params.finders,
        **summarise(rounds),
        **({"on_ray": on_ray} if ray else {}),
        "resident_mib": round(resident_mib(), 1),
    }


def soak(n_frames: int, *, scale: str = "shipped", seed: int = 11) -> dict[str, Any]:
    """Send many small frames, read from disk again and again, through the stream into parts; watch the resident memory."""
    seen: list[tuple[int, float]] = []
    step = max(1, n_frames // 40)

    def watch(done: int, total: int) -> None:
        if done // step > (seen[-1][0] // step if seen else -1):
            seen.append((done, resident_mib()))

    with tempfile.TemporaryDirectory() as folder:
        opener = simulated_run(Path(folder), "demo", 32, seed)
        find = _engine(scale, (1, 64, 64))
        small = partial(SmallFrames, opener, n_frames)
        params = StreamParams(batch_frames=64, readers=2)
        with open_parts(Path(folder) / "work", recipe="", n_frames=n_frames) as parts:
            _, report = stream_run(small, find, params=params, sinks=[PartSink(parts)], progress=watch)
            parts.join([ParquetSink(Path(folder) / "peaks.parquet")])
    rest = [rss for done, rss in seen if done >= n_frames // 4]
    half = len(rest) // 2
    growth = max(rest[half:]) - statistics.median(rest[:half])
    return {
        "soak_frames": n_frames,
        "peaks": report.peaks,
        "frames_per_second": round(report.frames_per_second, 1),
        "resident_mib": [[done, round(rss, 1)] for done, rss in seen],
        "growth_mib": round(growth, 2),
        "target_growth_mib": TARGET_GROWTH_MIB,
        "target_met": growth <= TARGET_GROWTH_MIB,
    }


def _engine(scale: str, shape: tuple[int, ...]) -> Engine:
    """Return an engine with the package's network, or an untrained one of a size, that decodes as inference does."""
    network = Network.from_checkpoint(load_shipped() if scale == "shipped" else _untrained(scale))
    decode, params = InferenceParams().parts()
    return Engine(network, bad_pixels=np.zeros(shape, dtype=np.bool_), decode=decode, params=params)


def _warm_engine(scale: str, frame: FrameArray) -> Engine:
    """Return an engine that has compiled what it needs for frames like this one (1, n_panels, ss, fs)."""
    engine = _engine(scale, frame.shape[1:])
    engine(frame, 0)
    return engine


def _untrained(scale: str) -> LoadedModel:
    config = named_scale(scale)
    if config is None:
        raise ParameterError("no such scale", found=scale)
    model = build_model(config, seed=0).eval()
    return LoadedModel(model, NormaliseParameters(), ModelCard(scale, threshold=0.02))
