"""Bragg peaks of a run by the experiment's classical finder."""

from collections.abc import Mapping
from typing import Any

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.peaks.classical import CLASSICAL, ClassicalParams
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.runs.rings import drop_ring_peaks
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.stages.peak_checks import peak_result
from peaknet_pipeline.steps.find_in_run import find_in_run
from peaknet_pipeline.steps.noise_budget import within_budget
from peaknet_pipeline.steps.peak_tables import peak_metadata
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.store.asset import INGEST, Asset
from peaknet_pipeline.store.experiment import Experiment
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import (
    classical_path,
    peaks_path,
    read_bad_pixels,
    read_left_out_rings,
    statistics_path,
)
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline.store.stage_result import StageResult
from peaknet_pipeline.tables import write_table


def classical_parameters(experiment: Experiment, overrides: Mapping[str, Any] | None = None) -> Parameters:
    """Return the parameters of the experiment's classical finder.

    Raises
    ------
    ParameterError
        An override belongs to another finder.

    """
    finder = CLASSICAL[experiment.classical_finder]
    cls, given = finder.parameters, {k: v for k, v in (overrides or {}).items() if v is not None}
    if set(given) - set(cls.own(given)):
        raise ParameterError(
            f"parameters that {finder.name} doesn't have", where=experiment.folder / "experiment.yaml",
            found=sorted(set(given) - set(cls.own(given))), remedy="See classical_finder there.",
        )  # fmt: skip
    return experiment.parameters(finder.section, cls, given)


def classical_peaks(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Bragg peaks of a run by the experiment's classical finder: peakfinder8, or the LCLS droplet finder."""
    context = read_context(store, key)
    finder = context.experiment.classical_finder
    params = classical_parameters(context.experiment, overrides)
    output = peaks_path(store, key, "classical")

    def build(recipe: Recipe) -> StageResult:
        bad = read_bad_pixels(store, key)
        with open_raw(context) as run, progress_bar(f"{finder} {key}") as progress:
            geometry = geometry_of(run)
            settled = within_budget(run, params, bad)
            find = CLASSICAL[finder].make(settled, geometry, bad)
            peaks, seconds = find_in_run(run, find, progress=progress)
            peaks = drop_ring_peaks(peaks, read_left_out_rings(store, key))
            metadata = peak_metadata(run, finder=finder, parameters=settled.to_dict())
            n_frames = run.n_frames
        write_table(peaks, output, PEAKS, extra=metadata | origin_of(recipe, run=key))
        return peak_result(
            output,
            peaks,
            geometry,
            n_frames=n_frames,
            seconds=seconds,
            title=key,
            min_peaks=context.experiment.min_peaks,
        )

    inputs = [statistics_path(store, key), *context.files, *context.settings_files]
    parameters = {"classical_finder": finder, **params.to_dict()}
    return make_stage("classical_peaks", parameters=parameters, inputs=inputs, build=build)


CLASSICAL_PEAKS_ASSET = Asset(
    classical_peaks,
    job=INGEST,
    output=classical_path,
    deps=("raw_run", "run_statistics"),
    kinds=("parquet", "python"),
    parameters=ClassicalParams,
    tables=("peaks",),
    checks=("inside_panels", "finite_intensities", "some_peaks"),
    blocking=("inside_panels", "finite_intensities"),
)
