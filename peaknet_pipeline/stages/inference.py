"""Inference with the network over a run, as a stream, for the asset and the command line."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.infer.occupancy import StreamReport
from peaknet_pipeline.infer.params import DecodeParams, EngineParams, StreamParams
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.learn.checkpoint import (
    CARD_FILE,
    SHIPPED_FOLDER,
    LoadedModel,
    load_shipped,
    read_checkpoint,
    shipped_models,
)
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.stages.context import RunContext, open_raw, read_context
from peaknet_pipeline.stages.finding import (
    add_resolution,
    geometry_of,
    peak_metadata,
    peak_result,
    peaks_path,
)
from peaknet_pipeline.stages.ingest import read_bad_pixels, statistics_path
from peaknet_pipeline.stages.making import make_stage
from peaknet_pipeline.stages.models import inference_model, model_inputs
from peaknet_pipeline.stages.pipeline import pipeline_parameters, settings_inputs
from peaknet_pipeline.stages.progress import Progress, progress_bar
from peaknet_pipeline.stages.provenance import Recipe, origin_of
from peaknet_pipeline.stages.result import StageResult
from peaknet_pipeline.stages.store import Store
from peaknet_pipeline.stages.streaming import EngineRecipe, RunSource, stream_locally, stream_on_ray
from peaknet_pipeline.tables import write_table
from peaknet_pipeline.types import PEAKS, BoolArray, Geometry, PeakTable


@dataclass(frozen=True)
class InferenceParams(Parameters):
    """How the network runs over a run."""

    threshold: float | None = parameter(
        None, meaning="decision threshold; the model card's without it", ge=0, le=1
    )
    min_pix: int = parameter(1, meaning="smallest peak", unit="px", ge=1)
    max_pix: int = parameter(200, meaning="largest peak", unit="px", ge=1)
    min_snr: float = parameter(1.0, meaning="smallest SNR of a peak; 0 keeps every one", ge=0)
    device: str = parameter("auto", meaning="torch device; auto takes the first GPU, else the CPU")
    precision: str = parameter(
        "auto", meaning="arithmetic of the network", choices=("auto", "float32", "bfloat16")
    )
    batch_frames: int = parameter(8, meaning="frames per batch", ge=1)
    readers: int = parameter(2, meaning="reader threads, or Ray producers", ge=1)
    stream: str = parameter(
        "local", meaning="threads of this process, or Ray actors", choices=("local", "ray")
    )
    ray_address: str = parameter("local", meaning="Ray cluster; local starts one here")
    consumers: int = parameter(1, meaning="Ray actors that find peaks, one per GPU", ge=1)
    writers: int = parameter(1, meaning="Ray actors that write", ge=1)
    gpus_per_consumer: float = parameter(0.0, meaning="GPUs that Ray reserves for each consumer", ge=0)

    def parts(self) -> tuple[DecodeParams, EngineParams, StreamParams]:
        """Return the parameter sets of decoding, engine and stream."""
        return (
            DecodeParams(min_pix=self.min_pix, max_pix=self.max_pix, min_snr=self.min_snr),
            EngineParams(device=self.device, precision=self.precision),
            StreamParams(batch_frames=self.batch_frames, readers=self.readers),
        )

    def ray(self) -> RayParams:
        """Return the parameter set of a stream on Ray."""
        return RayParams(
            address=self.ray_address,
            producers=self.readers,
            consumers=self.consumers,
            writers=self.writers,
            batch_frames=self.batch_frames,
            gpus_per_consumer=self.gpus_per_consumer,
        )


@dataclass(frozen=True)
class RunInferenceParams(InferenceParams):
    """How the network runs over a run of the chain, and which one."""

    model: str = parameter("", meaning="registered model version; the champion without it")


def peaknet_path(store: Store, key: str) -> Path:
    """Return where a run's neural peaks lie."""
    return peaks_path(store, key, "peaknet")


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
            peaks, report = _stream(
                _source(context),
                run,
                model,
                params,
                bad_pixels=bad,
                progress=progress,
                folder=output.parent / f".{key}.stream",
                digest=recipe.digest(),
            )
            metadata = peak_metadata(run, finder="peaknet", parameters=params.to_dict())
            origin = origin_of(recipe, run=key, **network_name(model))
            write_table(peaks, output, PEAKS, extra=metadata | origin)
            write_cxi_peaks(store.file("peaknet_peaks", key, ".cxi"), peaks, run, provenance=origin)
            n_frames = run.n_frames
        result = peak_result(
            output, peaks, context.geometry, n_frames=n_frames, seconds=report.seconds, title=key
        )
        figures = {**result.figures, "model": folder.name, "limiting_stage": report.limiting_stage}
        return StageResult(output, figures, result.tables, result.plots, result.checks)

    inputs = model_inputs(store, folder, named=bool(params.model))
    inputs += [statistics_path(store, key), context.path]
    inputs += [*context.settings_files, *settings_inputs(store)]
    return make_stage("peaknet_peaks", parameters=params.to_dict(), inputs=inputs, build=build)


def infer_in_run(
    run: Run,
    model: LoadedModel,
    *,
    settings: Sequence[str],
    bad_pixels: BoolArray,
    progress: Progress | None = None,
) -> tuple[PeakTable, float, dict[str, Any]]:
    """Find the peaks of an open run with a network; return them, the seconds taken and the parameters used."""
    params = InferenceParams.from_settings(settings)
    geometry = read_geometry(run.info.geometry_path) if run.info.geometry_path else run.geometry

    source = RunSource(run.info.path, geometry, run.info.data_path)
    with tempfile.TemporaryDirectory() as folder:
        peaks, report = _stream(
            source,
            run,
            model,
            params,
            bad_pixels=bad_pixels,
            progress=progress,
            folder=Path(folder),
            digest=params.digest(),
        )
    return peaks, report.seconds, params.to_dict()


def load_model(folder: Path | None) -> LoadedModel:
    """Read a model's folder; without one, the weights that come with the package."""
    return load_shipped() if folder is None else read_checkpoint(folder)


def network_name(model: LoadedModel) -> dict[str, str]:
    """Return a network's version and its training manifest, as outputs name them."""
    return {"model": model.card.name, "manifest": model.card.training_manifest}


def card_of(folder: Path | None) -> Path:
    """Return the card of a model's folder; without one, of the weights that come with the package."""
    return (folder if folder is not None else SHIPPED_FOLDER / shipped_models()[0]) / CARD_FILE


def engine_recipe(
    model: LoadedModel, params: InferenceParams, *, geometry: Geometry, bad_pixels: BoolArray
) -> EngineRecipe:
    """Say how the engine of a model is made for one detector and mask."""
    decode, engine, _ = params.parts()
    return EngineRecipe(model, bad_pixels, geometry, params.threshold, decode, engine)


def _stream(
    source: RunSource,
    run: Run,
    model: LoadedModel,
    params: InferenceParams,
    *,
    bad_pixels: BoolArray,
    progress: Progress | None,
    folder: Path,
    digest: str,
) -> tuple[PeakTable, StreamReport]:
    geometry = geometry_of(run)
    recipe = engine_recipe(model, params, geometry=geometry, bad_pixels=bad_pixels)
    if params.stream == "ray":
        peaks, report = stream_on_ray(
            source, recipe, params.ray(), folder=folder, digest=digest, progress=progress
        )
    else:
        peaks, report = stream_locally(source, recipe, params.parts()[2], progress=progress)
    return add_resolution(peaks, geometry, run.photon_energy_ev), report


def _source(context: RunContext) -> RunSource:
    return RunSource(
        context.path, context.geometry, context.experiment.data_path, Path(context.store.raw_root)
    )
