"""Peaks of an open run by the network, as a stream that can be taken up again."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.infer.masks import MaskFile
from peaknet_pipeline.infer.occupancy import StreamReport
from peaknet_pipeline.infer.parts import Parts, open_parts
from peaknet_pipeline.infer.sinks import TableCollector
from peaknet_pipeline.learn.checkpoint import (
    CARD_FILE,
    SHIPPED_FOLDER,
    LoadedModel,
    load_shipped,
    read_checkpoint,
    shipped_models,
)
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.steps.network_params import DetectionParams, InferenceParams
from peaknet_pipeline.steps.peak_tables import add_resolution
from peaknet_pipeline.steps.progress import Progress
from peaknet_pipeline.steps.stream_run import (
    EngineRecipe,
    RunSource,
    calibrated_on_device,
    stream_locally,
    stream_on_ray,
)
from peaknet_pipeline.steps.write_peaks import short_metadata
from peaknet_pipeline.types import BoolArray, Geometry
from peaknet_pipeline.version import code_version


def inference_in_run(
    run: Run,
    model: LoadedModel,
    params: InferenceParams,
    *,
    bad_pixels: BoolArray,
    metadata: Mapping[str, str],
    folder: Path,
    segmentation: Path | None = None,
) -> "InferenceJob":
    """Return the work of finding the peaks of an open run with a network.

    ``metadata`` tells the origin, with the ``recipe``'s hash; ``folder`` is where unfinished work is kept, to go on from;
    ``segmentation`` is where the network's masks go.
    """
    source = RunSource(run.path_to_open, run.geometry, run.info.data_path, more_roots=run.roots)
    return InferenceJob(
        source, run, model, params, bad_pixels,
        folder=folder, digest=metadata["recipe"], segmentation=segmentation, metadata=metadata,
    )  # fmt: skip


def network_name(model: LoadedModel) -> dict[str, str]:
    """Return a network's version and its training manifest, as outputs name them."""
    return {"model": model.card.name, "manifest": model.card.training_manifest}


def card_of(folder: Path | None) -> Path:
    """Return the card of a model's folder; without one, of the weights that come with the package."""
    return (folder if folder is not None else SHIPPED_FOLDER / shipped_models()[0]) / CARD_FILE


def engine_recipe(
    model: LoadedModel,
    params: DetectionParams,
    *,
    geometry: Geometry,
    bad_pixels: BoolArray,
    masks: bool = False,
) -> EngineRecipe:
    """Say how the engine of a model is made for one detector and mask."""
    decode, engine = params.parts()
    return EngineRecipe(model, bad_pixels, geometry, params.threshold, decode, engine, masks)


@dataclass(frozen=True)
class InferenceJob:
    """One inference: a run, a network, how, and where segmentation masks and unfinished work go."""

    source: RunSource
    run: Run
    model: LoadedModel
    params: InferenceParams
    bad_pixels: BoolArray
    folder: Path
    digest: str
    segmentation: Path | None
    metadata: Mapping[str, str]

    @contextmanager
    def streamed(self, progress: Progress | None) -> Iterator[tuple[PeakTable, StreamReport]]:
        """Read, find and collect, for the block to write; masks are written.

        What was found stays in ``folder`` until the block has ended well, so that the same inference, whatever had ended
        it, takes up from there.
        """
        geometry = geometry_of(self.run)
        params = self.params.fit(self.run.read(0, 1), self.run.n_frames)
        masks = self._mask_file()
        recipe = engine_recipe(
            self.model, params, geometry=geometry, bad_pixels=self.bad_pixels, masks=masks is not None
        )
        source, recipe = calibrated_on_device(self.source, recipe, on_gpu=params.finds_on_gpu)
        collector = TableCollector()
        with self._parts() as parts:
            before = parts.n_written
            told = _shifted(progress, before, self.run.n_frames) if progress is not None else None
            if params.stream == "ray":
                report = stream_on_ray(source, recipe, params.ray(), parts, progress=told)
            else:
                report = stream_locally(source, recipe, params.local(), parts, progress=told)
            parts.join([collector] if masks is None else [collector, masks])
            yield add_resolution(collector.table(), geometry, self.run.photon_energy_ev), report

    def _parts(self) -> AbstractContextManager[Parts]:
        recipe = f"{self.digest} {code_version()}{' with masks' if self.segmentation else ''}"
        return open_parts(self.folder, recipe=recipe, n_frames=self.run.n_frames)

    def _mask_file(self) -> MaskFile | None:
        if self.segmentation is None:
            return None
        wanted = self.params.min_peaks if self.params.hits_only else 0
        return MaskFile(
            self.segmentation, self.run.stack_shape, min_peaks=wanted, extra=short_metadata(self.metadata)
        )


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """Return what counts the frames of an earlier, interrupted stream as done."""
    return lambda done, _: progress(before + done, total)


def stream_figures(report: StreamReport, n_frames: int) -> dict[str, Any]:
    """Return a stream's figures; ``frames_taken_up`` of the run's were found before an interruption."""
    busy = {f"{stage.name}_busy": round(stage.busy_fraction, 3) for stage in report.stages}
    return {
        "frames_per_second": round(report.frames_per_second, 2),
        "frames_taken_up": n_frames - report.frames,
        "limiting_stage": report.limiting_stage,
        **busy,
    }


def load_model(folder: Path | None) -> LoadedModel:
    """Read a model's folder; without one, the weights that come with the package."""
    return load_shipped() if folder is None else read_checkpoint(folder)
