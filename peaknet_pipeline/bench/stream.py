"""How fast the local stream is against its slowest stage alone, and whether its memory stays bounded."""

import os
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.bench.memory import resident_mib
from peaknet_pipeline.bench.stream_bounds import measure_round, summarise
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.infer.chunks import open_parallel
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.memory import fit_batch, fit_finders
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import FrameReader, RunOpener, stream_run
from peaknet_pipeline.learn.checkpoint import LoadedModel, ModelCard
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.types import FrameArray

TARGET_GROWTH_MIB = 16.0
"""Growth of the resident memory that counts as flat over the second half of a soak."""


def run(
    detector: str = "demo",
    n_frames: int = 96,
    repeats: int = 3,
    readers: int = 1,
    finders: int = 0,
    batch_frames: int = 0,
    scale: str = "edge",
    soak_frames: int = 0,
    seed: int = 11,
) -> dict[str, Any]:
    """Measure a simulated, compressed run: each stage alone and the stream, in turn, medians over ``repeats``.

    On a GPU where there is one. ``finders`` and ``batch_frames`` are chosen for the device where they are 0.
    With ``soak_frames``, as many small frames go through the stream instead, and the memory is watched.
    """
    if soak_frames:
        return {"cpus": os.cpu_count(), **soak(soak_frames, scale=scale, seed=seed)}
    with tempfile.TemporaryDirectory() as folder:
        opener = _simulated(Path(folder), detector, n_frames, seed)
        with opener() as opened:
            first = opened.read(0, 1)
        find = _engine(scale, first.shape[1:])
        params = StreamParams(
            batch_frames=batch_frames or fit_batch(first, find.device, n_frames=n_frames),
            readers=readers,
            finders=finders or fit_finders(find.device),
        )
        with opener() as opened:
            find(opened.read(0, min(params.batch_frames, n_frames)), 0)
        rounds = [measure_round(opener, find, params, Path(folder)) for _ in range(repeats)]
    return {
        "detector": detector,
        "device": str(find.device),
        "pixels": first.size,
        "frames": n_frames,
        "network": scale,
        "batch_frames": params.batch_frames,
        "readers": params.readers,
        "finders": params.finders,
        **summarise(rounds),
        "resident_mib": round(resident_mib(), 1),
    }


def soak(n_frames: int, *, scale: str = "edge-small", seed: int = 11) -> dict[str, Any]:
    """Send many small frames, read from disk again and again, through the stream; watch the resident memory."""
    seen: list[tuple[int, float]] = []
    step = max(1, n_frames // 40)

    def watch(done: int, total: int) -> None:
        if done // step > (seen[-1][0] // step if seen else -1):
            seen.append((done, resident_mib()))

    with tempfile.TemporaryDirectory() as folder:
        opener = _simulated(Path(folder), "demo", 32, seed)
        find = _engine(scale, (1, 64, 64))
        small = partial(_SmallFrames, opener, n_frames)
        sink = ParquetSink(Path(folder) / "peaks.parquet")
        params = StreamParams(batch_frames=64, readers=2)
        _, report = stream_run(small, find, params=params, sinks=[sink], progress=watch)
    rest = [rss for done, rss in seen if done >= n_frames // 4]
    half = len(rest) // 2
    growth = statistics.median(rest[half:]) - statistics.median(rest[:half])
    return {
        "soak_frames": n_frames,
        "peaks": report.peaks,
        "frames_per_second": round(report.frames_per_second, 1),
        "resident_mib": [[done, round(rss, 1)] for done, rss in seen],
        "growth_mib": round(growth, 2),
        "target_growth_mib": TARGET_GROWTH_MIB,
        "target_met": growth <= TARGET_GROWTH_MIB,
    }


def _simulated(folder: Path, detector: str, n_frames: int, seed: int) -> RunOpener:
    """Write a compressed run with a geometry; return how to open it."""
    experiment = draw_experiment(seed, detector=detector, sample="lysozyme")
    geometry, _ = write_experiment_files(experiment, folder)
    path = simulate_run(experiment, folder / "run.h5", n_frames=n_frames, seed=seed)
    return lambda: open_parallel(open_run(path, geometry))


def _engine(scale: str, shape: tuple[int, ...]) -> Engine:
    """Return an engine with an untrained network: the same work, whatever it finds."""
    config = named_scale(scale)
    if config is None:
        raise ParameterError("no such scale", found=scale)
    loaded = LoadedModel(
        build_model(config, seed=0).eval(), NormaliseParameters(), ModelCard(scale, threshold=0.02)
    )
    return Engine(Network.from_checkpoint(loaded), bad_pixels=np.zeros(shape, dtype=np.bool_))


class _SmallFrames:
    """A long run of small windows, cut from a short run that is read over and over."""

    def __init__(self, opener: RunOpener, n_frames: int, side: int = 64) -> None:
        self._opened = opener()
        self._inside: FrameReader | None = None
        self.n_frames, self._side = n_frames, side

    def __enter__(self) -> "_SmallFrames":
        self._inside = self._opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def read(self, start: int, stop: int) -> FrameArray:
        if self._inside is None:
            raise ParameterError("the run is not open")
        frames = self._inside.read(0, self._inside.n_frames)
        side = self._side
        windows = frames[:, :, : frames.shape[2] // side * side, : frames.shape[3] // side * side]
        n, panels, height, width = windows.shape
        cells = windows.reshape(n, panels, height // side, side, width // side, side).swapaxes(3, 4)
        flat = cells.reshape(-1, 1, side, side)
        return np.ascontiguousarray(flat[np.arange(start, stop) % len(flat)])
