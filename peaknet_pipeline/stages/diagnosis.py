"""Why a run's hits don't index: the run's evidence gathered, its causes written down."""

from collections.abc import Mapping
from typing import Any

from peaknet_pipeline.diagnosis_params import DiagnosisParams
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.examine import CellCheckParams
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.sample import read_frames, sample_frames
from peaknet_pipeline.schemas import DIAGNOSIS, INDEX, PEAKS
from peaknet_pipeline.stages.classical_peaks import classical_parameters
from peaknet_pipeline.steps.find_causes import describe, find_causes, tabulate
from peaknet_pipeline.steps.peak_causes import Evidence
from peaknet_pipeline.store.asset import INGEST, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import (
    diagnosis_path,
    diagnosis_text_path,
    index_path,
    peaks_path,
    read_bad_pixels,
    statistics_path,
)
from peaknet_pipeline.store.run_files import RunContext, cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import read_table, write_json, write_table


def diagnosis(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Why a run's hits don't index, in words: too few peaks, wrong cell, geometry off, rings, hot pixels, blank, saturated."""
    context = read_context(store, key)
    min_peaks = context.experiment.min_peaks
    params = context.experiment.parameters(
        "diagnosis", DiagnosisParams, overrides, defaults={"min_peaks": min_peaks}
    )
    output = diagnosis_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        with open_raw(context) as run:
            evidence = gather_evidence(context, run, params)
        findings = find_causes(evidence)
        text = describe(evidence, findings)
        write_table(tabulate(findings), output, DIAGNOSIS, extra=origin_of(recipe, run=key))
        record = [
            {"cause": f.cause, "share": f.share, "told": f.told, "remedy": f.remedy, **f.figures}
            for f in findings
        ]
        write_json(diagnosis_text_path(store, key), {"run": key, "text": text, "findings": record})
        figures: dict[str, Any] = {"diagnosis": text, "causes": len(findings)}
        return StageResult(
            output, figures, {"diagnosis": output}, checks=(Check("nothing_wrong", not findings, text),)
        )

    inputs = [
        peaks_path(store, key, "classical"),
        index_path(store, key, "classical"),
        statistics_path(store, key),
        *context.files,
        cell_file(context),
        *context.settings_files,
    ]
    return make_stage("diagnosis", parameters=params.to_dict(), inputs=inputs, build=build)


DIAGNOSIS_ASSET = Asset(
    diagnosis,
    job=INGEST,
    output=diagnosis_path,
    deps=("run_statistics", "classical_peaks", "classical_index"),
    kinds=("parquet", "python"),
    parameters=DiagnosisParams,
    tables=("diagnosis",),
    checks=("nothing_wrong",),
)


def gather_evidence(context: RunContext, run: Run, params: DiagnosisParams) -> Evidence:
    """Read a run's tables, and a sample of frames spread evenly over it."""
    store, key = context.store, str(context.key)
    finder = classical_parameters(context.experiment)
    return Evidence(
        n_frames=run.n_frames,
        peaks=read_table(peaks_path(store, key, "classical"), PEAKS),
        lattices=read_table(index_path(store, key, "classical"), INDEX),
        geometry=geometry_of(run),
        photon_energy_ev=run.photon_energy_ev,
        cell=read_cell(cell_file(context)),
        finder=finder if isinstance(finder, Peakfinder8Params) else None,
        index=context.experiment.parameters("index", IndexParams),
        sample=read_frames(run, sample_frames(run.n_frames, params.sample_frames)),
        bad_pixels=read_bad_pixels(store, key),
        params=params,
        cell_check=context.experiment.parameters("cell_check", CellCheckParams),
    )
