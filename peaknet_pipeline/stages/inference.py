"""Inference with the network over a run, as a stream, for the asset and the command line."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from peaknet_pipeline.infer.engine import choose_device
from peaknet_pipeline.infer.masks import MaskFile
from peaknet_pipeline.infer.memory import fit_batch, fit_finders
from peaknet_pipeline.infer.occupancy import StreamReport
from peaknet_pipeline.infer.params import DecodeParams, EngineParams, OutputParams, StreamParams
from peaknet_pipeline.infer.parts import Parts, open_parts
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.infer.sinks import TableCollector
from peaknet_pipeline.learn.checkpoint import (
    CARD_FILE,
    SHIPPED_FOLDER,
    LoadedModel,
    load_shipped,
    read_checkpoint,
    shipped_models,
)
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.runs.rings import drop_ring_peaks
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.stages.finding import (
    add_resolution,
    peak_metadata,
    peak_result,
    peaks_path,
)
from peaknet_pipeline.stages.ingest import read_bad_pixels, read_left_out_rings, statistics_path
from peaknet_pipeline.steps.progress import Progress, progress_bar
from peaknet_pipeline.steps.stream_run import EngineRecipe, RunSource, stream_locally, stream_on_ray
from peaknet_pipeline.steps.write_peaks import short_metadata, write_found
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.models import inference_model, model_inputs
from peaknet_pipeline.store.provenance import Recipe, origin_of
from peaknet_pipeline.store.run_files import RunContext, open_raw, raw_root_of, read_context
from peaknet_pipeline.store.settings import pipeline_parameters, settings_inputs
from peaknet_pipeline.store.stage_result import StageResult
from peaknet_pipeline.types import BoolArray, FrameArray, Geometry
from peaknet_pipeline.version import code_version


@dataclass(frozen=True)
class DetectionParams(Parameters):
    """What the network counts as a peak, and where it runs."""

    threshold: float | None = parameter(
        None, meaning="decision threshold; the model card's without it", ge=0, le=1
    )
    min_pix: int = parameter(1, meaning="smallest peak", unit="px", ge=1)
    max_pix: int = parameter(200, meaning="largest peak", unit="px", ge=1)
    min_snr: float = parameter(1.0, meaning="smallest SNR of a peak; 0 keeps every one", ge=0)
    min_neighbour: float = parameter(
        3.0,
        meaning="least height of a peak's highest pixel and of the highest next to it, which a hot pixel lacks; 0 keeps all",
        unit="sigma",
        ge=0,
    )
    device: str = parameter("auto", meaning="torch device; auto takes the first GPU, else the CPU")
    precision: str = parameter(
        "auto", meaning="arithmetic of the network", choices=("auto", "float32", "bfloat16")
    )

    def parts(self) -> tuple[DecodeParams, EngineParams]:
        """Return the parameter sets of decoding and engine."""
        return (
            DecodeParams(
                min_pix=self.min_pix,
                max_pix=self.max_pix,
                min_snr=self.min_snr,
                min_neighbour=self.min_neighbour,
            ),
            EngineParams(device=self.device, precision=self.precision),
        )


@dataclass(frozen=True)
class InferenceParams(DetectionParams):
    """How the network runs over a run."""

    batch_frames: int = parameter(0, meaning="frames per batch; 0 fits them to the memory", ge=0)
    readers: int = parameter(2, meaning="reader threads, or Ray producers", ge=1)
    stream: str = parameter(
        "local", meaning="threads of this process, or Ray actors", choices=("local", "ray")
    )
    ray_address: str = parameter("local", meaning="Ray cluster; local starts one here")
    consumers: int = parameter(1, meaning="Ray actors that find peaks, one per GPU", ge=1)
    writers: int = parameter(1, meaning="Ray actors that write", ge=1)
    gpus_per_consumer: float = parameter(0.0, meaning="GPUs that Ray reserves for each consumer", ge=0)
    hits_only: bool = parameter(False, meaning="write hits only (data reduction)")
    min_peaks: int = parameter(15, meaning="least peaks of a hit", ge=1)
    images: str = parameter(
        "link",
        meaning="images of the CXI file: a link to the raw run, or a copy that needs it no more",
        choices=("link", "copy"),
    )
    segmentation: bool = parameter(False, meaning="also write the network's segmentation masks")

    def fit(self, frame: FrameArray, n_frames: int) -> Self:
        """Return the parameters with the batch size chosen for a raw frame (1, n_panels, ss, fs) and ``n_frames``."""
        if self.batch_frames:
            return self
        in_flight = self.ray().in_flight if self.stream == "ray" else self.local().in_flight
        fitted = fit_batch(frame, self._device(), in_flight=in_flight, n_frames=n_frames)
        return dataclasses.replace(self, batch_frames=fitted)

    def local(self) -> StreamParams:
        """Return the parameter set of a stream in this process."""
        finders = fit_finders(self._device())
        return StreamParams(batch_frames=max(self.batch_frames, 1), readers=self.readers, finders=finders)

    def output(self) -> OutputParams:
        """Return the parameter set of what is written."""
        return OutputParams(
            hits_only=self.hits_only,
            min_peaks=self.min_peaks,
            images=self.images,
            segmentation=self.segmentation,
        )

    def ray(self) -> RayParams:
        """Return the parameter set of a stream on Ray."""
        threads = fit_finders(self._device())
        return RayParams(
            address=self.ray_address,
            producers=self.readers,
            consumers=self.consumers,
            threads_per_consumer=threads,
            writers=self.writers,
            batch_frames=max(self.batch_frames, 1),
            in_flight=2 * (self.readers + self.consumers * threads + self.writers) + 2,
            gpus_per_consumer=self.gpus_per_consumer,
        )

    def _device(self) -> torch.device:
        """Return the kind of device where peaks are found; on Ray it may be another machine's."""
        on_ray_gpu = self.stream == "ray" and self.gpus_per_consumer > 0
        return torch.device("cuda") if on_ray_gpu else choose_device(self.device)


@dataclass(frozen=True)
class RunInferenceParams(InferenceParams):
    """How the network runs over a run of the chain, and which one."""

    model: str = parameter("", meaning="registered model version; the champion without it")


def peaknet_path(store: Store, key: str) -> Path:
    """Return where a run's neural peaks lie."""
    return peaks_path(store, key, "peaknet")


def segmentation_path(store: Store, key: str) -> Path:
    """Return where a run's segmentation masks lie, if they were asked for."""
    return store.file("peaknet_peaks", key, ".segmentation.h5")


def peaknet_peaks(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Bragg peaks of a run by the champion network, read, found and written as a stream; also as a CXI file for CrystFEL."""
    context = read_context(store, key)
    params = pipeline_parameters(store, "inference", RunInferenceParams, overrides)
    folder = inference_model(store, params.model)
    output = peaknet_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        model = read_checkpoint(folder)
        bad = read_bad_pixels(store, key)
        with open_raw(context) as run, progress_bar(f"PeakNet {key}") as progress:
            metadata = peak_metadata(run, finder="peaknet", parameters=params.to_dict())
            metadata |= origin_of(recipe, run=key, **network_name(model))
            job = InferenceJob(
                _source(context, run),
                run,
                model,
                params,
                bad,
                folder=output.parent / f".{key}.stream",
                digest=recipe.digest(),
                segmentation=segmentation_path(store, key) if params.segmentation else None,
                metadata=metadata,
            )
            cxi = store.file("peaknet_peaks", key, ".cxi")
            with job.streamed(progress) as (found, report):
                peaks = drop_ring_peaks(found, read_left_out_rings(store, key))
                written = write_found(
                    peaks, run, params=params.output(), out=output, cxi=cxi, metadata=metadata
                )
            n_frames, geometry = run.n_frames, geometry_of(run)
        if not params.segmentation:  # those of other parameters would be taken for these peaks'
            segmentation_path(store, key).unlink(missing_ok=True)
        result = peak_result(
            output, written.peaks, geometry, n_frames=n_frames, seconds=report.seconds, title=key
        )
        figures = {
            **result.figures,
            **written.figures,
            **stream_figures(report, n_frames),
            "model": folder.name,
        }
        return StageResult(output, figures, result.tables, result.plots, result.checks)

    inputs = model_inputs(store, folder, named=bool(params.model))
    inputs += [statistics_path(store, key), context.path]
    inputs += [*context.settings_files, *settings_inputs(store)]
    return make_stage("peaknet_peaks", parameters=params.to_dict(), inputs=inputs, build=build)


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
    source = RunSource(run.info.path, run.geometry, run.info.data_path)
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
        collector = TableCollector()
        with self._parts() as parts:
            before = parts.n_written
            told = _shifted(progress, before, self.run.n_frames) if progress is not None else None
            if params.stream == "ray":
                report = stream_on_ray(self.source, recipe, params.ray(), parts, progress=told)
            else:
                report = stream_locally(self.source, recipe, params.local(), parts, progress=told)
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


def _source(context: RunContext, run: Run) -> RunSource:
    return RunSource(
        context.path,
        run.geometry,
        context.experiment.data_path,
        raw_root_of(context),
        context.calibration,
    )
