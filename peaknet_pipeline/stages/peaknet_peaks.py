"""Bragg peaks of a run by the champion network."""

from collections.abc import Mapping
from typing import Any

from peaknet_pipeline.learn.checkpoint import read_checkpoint
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.runs.rings import drop_ring_peaks
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.stages.peak_checks import peak_result
from peaknet_pipeline.steps.find_with_network import InferenceJob, network_name, stream_figures
from peaknet_pipeline.steps.network_params import RunInferenceParams
from peaknet_pipeline.steps.peak_tables import peak_metadata
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.steps.stream_run import RunSource
from peaknet_pipeline.steps.write_peaks import write_found
from peaknet_pipeline.store.asset import INFER, MISSING, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.models import inference_model, model_inputs
from peaknet_pipeline.store.paths import (
    peaknet_path,
    read_bad_pixels,
    read_left_out_rings,
    segmentation_path,
    statistics_path,
)
from peaknet_pipeline.store.run_files import RunContext, more_roots, open_raw, raw_root_of, read_context
from peaknet_pipeline.store.settings import pipeline_parameters, settings_inputs
from peaknet_pipeline.store.stage_result import StageResult


def peaknet_peaks(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Bragg peaks of a run by the champion network, read, found and written as a stream; also as a CXI file for CrystFEL."""
    context = read_context(store, key)
    defaults = {"min_peaks": context.experiment.min_peaks}
    params = pipeline_parameters(store, "inference", RunInferenceParams, overrides, defaults=defaults)
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
                    peaks, run, params=params, out=output, cxi=cxi, metadata=metadata, bad_pixels=bad
                )
            n_frames, geometry = run.n_frames, geometry_of(run)
        if not params.segmentation:  # those of other parameters would be taken for these peaks'
            segmentation_path(store, key).unlink(missing_ok=True)
        result = peak_result(
            output,
            written.peaks,
            geometry,
            n_frames=n_frames,
            seconds=report.seconds,
            title=key,
            min_peaks=context.experiment.min_peaks,
        )
        figures = {
            **result.figures,
            **written.figures,
            **stream_figures(report, n_frames),
            "model": folder.name,
        }
        return StageResult(output, figures, result.tables, result.plots, result.checks)

    inputs = model_inputs(store, folder, named=bool(params.model))
    inputs += [statistics_path(store, key), *context.files]
    inputs += [*context.settings_files, *settings_inputs(store)]
    return make_stage("peaknet_peaks", parameters=params.to_dict(), inputs=inputs, build=build)


PEAKNET_PEAKS_ASSET = Asset(
    peaknet_peaks,
    job=INFER,
    output=peaknet_path,
    deps=("raw_run", "run_statistics", "champion"),
    kinds=("hdf5", "parquet", "pytorch"),
    parameters=RunInferenceParams,
    tables=("peaks",),
    checks=("inside_panels", "finite_intensities", "some_peaks"),
    blocking=("inside_panels", "finite_intensities"),
    pool="gpu",
    automation=MISSING,
)


def _source(context: RunContext, run: Run) -> RunSource:
    return RunSource(
        context.path_to_open,
        run.geometry,
        context.experiment.data_path,
        raw_root_of(context),
        context.calibration,
        more_roots(context),
    )
