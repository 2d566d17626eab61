"""Statistics and mask of a run."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.assemble import assemble
from peaknet_pipeline.plots.images import plot_image
from peaknet_pipeline.provenance import Recipe
from peaknet_pipeline.runs.bad_pixels import RUN_LAYER, BadPixelParams, BadPixelReport
from peaknet_pipeline.runs.make_mask import MaskParams, left_out_rings, make_mask, run_rings
from peaknet_pipeline.runs.rings import ring_summary
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.runs.statistics import compute_statistics
from peaknet_pipeline.steps.mask_of_run import StatisticsParams, mask_figures, plot_report, write_statistics
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.store.asset import INGEST, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import manifest_path, statistics_path
from peaknet_pipeline.store.run_files import RunContext, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.types import BoolArray, Geometry, RunStatistics

MAX_BAD_FRACTION = 0.5
"""Share of bad pixels from which on a detector counts as unusable."""


def run_statistics(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Mean, standard deviation and maximum of a run's frames, and its mask: what every finder and the network leave out."""
    context = read_context(store, key)
    given = overrides or {}
    params = context.experiment.parameters("bad_pixels", BadPixelParams, BadPixelParams.own(given))
    mask_params = mask_parameters(context, MaskParams.own(given))
    output = statistics_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        with open_raw(context) as run, progress_bar(f"statistics {key}") as progress:
            statistics = compute_statistics(run, progress=progress)
            report = make_mask(run, statistics, mask_params, params)
            rings = run_rings(run, statistics, report.layers[RUN_LAYER])
            left_out = left_out_rings(run, statistics, report.layers[RUN_LAYER], mask_params)
            geometry = geometry_of(run)
        write_statistics(output, statistics, report, left_out)
        figures = mask_figures(report) | {
            "frames": statistics.n_frames,
            "mean_intensity": _mean_of_good(statistics, report.bad_pixels),
            "rings": ring_summary(rings),
        }
        plots = _plots(geometry, statistics, report, key)
        return StageResult(output, figures, plots=plots, checks=(_mask_fraction(report),))

    files = [Path(name) for name in (*mask_params.mask_files, *mask_params.dark_files)]
    inputs = [manifest_path(store, key), *context.files, *context.settings_files, *files]
    parameters = {"bad_pixels": params.to_dict(), "mask": mask_params.to_dict()}
    return make_stage("run_statistics", parameters=parameters, inputs=inputs, build=build)


RUN_STATISTICS_ASSET = Asset(
    run_statistics,
    job=INGEST,
    output=statistics_path,
    deps=("raw_run",),
    kinds=("hdf5", "numpy"),
    parameters=StatisticsParams,
    checks=("mask_fraction",),
    blocking=("mask_fraction",),
)


def mask_parameters(context: RunContext, overrides: Mapping[str, Any] | None = None) -> MaskParams:
    """Return what an experiment masks; its mask and dark files are found in its own folder and may not lie elsewhere.

    Raises
    ------
    ParameterError
        A name leads out of the experiment's folder.
    RunError
        There is no such file.

    """
    params = context.experiment.parameters("mask", MaskParams, overrides)
    return dataclasses.replace(
        params,
        mask_files=tuple(str(_own_file(context, name)) for name in params.mask_files),
        dark_files=tuple(str(_own_file(context, name)) for name in params.dark_files),
    )


def _own_file(context: RunContext, name: str) -> Path:
    path = context.store.confine(Path(name), context.experiment.folder)
    if not path.is_file():
        raise RunError(
            "no such mask or dark run", where=path, remedy="Mend the section mask of experiment.yaml."
        )
    return path


def _mean_of_good(statistics: RunStatistics, bad: BoolArray) -> float:
    return float(np.nanmean(statistics.mean[~bad])) if not bad.all() else 0.0


def _mask_fraction(report: BadPixelReport) -> Check:
    fraction = float(report.bad_pixels.mean())
    text = f"{fraction:.2%} of the pixels are bad; at most {MAX_BAD_FRACTION:.0%}"
    return Check("mask_fraction", fraction <= MAX_BAD_FRACTION, text)


def _plots(
    geometry: Geometry, statistics: RunStatistics, report: BadPixelReport, key: str
) -> dict[str, bytes]:
    masked = np.where(report.bad_pixels, np.nan, statistics.maximum).astype(np.float32)
    virtual = np.asarray(assemble(masked, geometry), dtype=np.float32)
    return {
        "virtual_powder": plot_image(virtual, title=f"{key}: maximum over {statistics.n_frames} frames"),
        "bad_pixel_mask": plot_report(report, geometry, title=f"{key}: bad pixels"),
    }
