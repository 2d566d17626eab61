"""One inference, on threads of this process or on Ray actors: the same table either way."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.occupancy import StreamReport
from peaknet_pipeline.infer.params import DecodeParams, EngineParams, StreamParams
from peaknet_pipeline.infer.part_sink import PartSink
from peaknet_pipeline.infer.parts import Parts
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.infer.ray_stream import stream_run_on_ray
from peaknet_pipeline.infer.stream import Finder, stream_run
from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.runs.calibrated import CalibrationFile
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.types import BoolArray, Geometry

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RunSource:
    """How a run is opened; small and picklable, so that it can travel to another process."""

    path: Path | tuple[Path, ...]
    geometry: Geometry | None
    data_path: str | None = None
    root: Path | None = None
    calibration: CalibrationFile | None = None
    more_roots: tuple[Path, ...] = ()

    def open(self) -> Run:
        """Open the run."""
        run = open_run(
            self.path, self.geometry, data_path=self.data_path, root=self.root, more_roots=self.more_roots
        )
        return run if self.calibration is None else self.calibration.apply(run)


@dataclass(frozen=True)
class EngineRecipe:
    """How an engine is made, wherever it is to run."""

    model: LoadedModel
    bad_pixels: BoolArray
    geometry: Geometry | None
    threshold: float | None
    decode: DecodeParams
    engine: EngineParams
    with_masks: bool = False
    calibration: CalibrationFile | None = None
    """Frames come raw and are calibrated where the network runs."""

    def make(self) -> Finder:
        """Make the finder: the engine, or its way that also gives the peaks' pixels."""
        engine = self.make_engine()
        return engine.segment if self.with_masks else engine

    def make_engine(self) -> Engine:
        """Make the engine."""
        return Engine(
            Network.from_checkpoint(self.model, threshold=self.threshold),
            bad_pixels=self.bad_pixels,
            decode=self.decode,
            params=self.engine,
            geometry=self.geometry,
            calibration=self.calibration.read() if self.calibration is not None else None,
        )


def calibrated_on_device(
    source: RunSource, recipe: EngineRecipe, *, on_gpu: bool
) -> tuple[RunSource, EngineRecipe]:
    """Move the calibration of raw frames from the readers to a GPU, which then gets 2 bytes a pixel instead of 4.

    Photons need each shot's energy, which only the reader knows: they are calibrated there.
    """
    file = source.calibration
    if file is None or not on_gpu or file.params.photons:
        return source, recipe
    return replace(source, calibration=None), replace(recipe, calibration=file)


def stream_locally(
    source: RunSource,
    recipe: EngineRecipe,
    params: StreamParams,
    parts: Parts,
    *,
    progress: Progress | None = None,
) -> StreamReport:
    """Find the missing parts with the threads of this process."""
    find = recipe.make()
    if parts.missing:
        with source.open() as run:
            find(run.read(0, 1), 0)  # compiles on first use, which is no part of the speed
    sinks = [PartSink(parts)]
    return stream_run(
        source.open, find, params=params, sinks=sinks, stretches=parts.missing, progress=progress
    )[1]


def stream_on_ray(
    source: RunSource,
    recipe: EngineRecipe,
    params: RayParams,
    parts: Parts,
    *,
    progress: Progress | None = None,
) -> StreamReport:
    """Find the missing parts with Ray actors."""
    return stream_run_on_ray(
        functools.partial(RunSource.open, source),
        functools.partial(EngineRecipe.make, recipe),
        parts,
        params=params,
        progress=progress,
    )
