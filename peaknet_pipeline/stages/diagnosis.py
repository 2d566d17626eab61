"""Why is nothing indexed? A run's causes in words, the most likely first, each with the number that says so."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.examine import CellCheckParams
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.metrics import MetricParams
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import DIAGNOSIS, INDEX, PEAKS, DiagnosisTable
from peaknet_pipeline.stages.causes_lattice import find_lattice_causes
from peaknet_pipeline.stages.finding import classical_parameters, peaks_path
from peaknet_pipeline.stages.ingest import read_bad_pixels, statistics_path
from peaknet_pipeline.stages.lattices import index_path
from peaknet_pipeline.steps.peak_causes import (
    DiagnosisParams,
    Evidence,
    Finding,
    find_hot_pixels,
    find_rings_of_peaks,
    find_saturation,
    find_too_few,
)
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.provenance import Recipe, origin_of
from peaknet_pipeline.store.run_files import RunContext, cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import make_table, read_table, write_json, write_table

CAUSES = (find_too_few, find_hot_pixels, find_saturation, find_rings_of_peaks, find_lattice_causes)


def diagnosis_path(store: Store, key: str) -> Path:
    """Return where a run's causes lie, as a table; empty when nothing is wrong."""
    return store.table("diagnosis", key)


def diagnosis_text_path(store: Store, key: str) -> Path:
    """Return where the diagnosis lies in words: JSON with ``run``, ``text`` and ``findings``."""
    return store.file("diagnosis", key, ".json")


def diagnosis(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Why a run's hits don't index, in words: too few peaks, wrong cell, geometry off, rings, hot pixels, blank, saturated."""
    context = read_context(store, key)
    min_peaks = context.experiment.parameters("metrics", MetricParams).min_peaks
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
        context.path,
        cell_file(context),
        *context.settings_files,
    ]
    return make_stage("diagnosis", parameters=params.to_dict(), inputs=inputs, build=build)


def gather_evidence(context: RunContext, run: Run, params: DiagnosisParams) -> Evidence:
    """Read a run's tables, and a sample of frames spread evenly over it."""
    store, key = context.store, str(context.key)
    finder = classical_parameters(context.experiment)
    chosen = np.unique(np.linspace(0, run.n_frames - 1, min(params.sample_frames, run.n_frames)).astype(int))
    return Evidence(
        n_frames=run.n_frames,
        peaks=read_table(peaks_path(store, key, "classical"), PEAKS),
        lattices=read_table(index_path(store, key, "classical"), INDEX),
        geometry=geometry_of(run),
        photon_energy_ev=run.photon_energy_ev,
        cell=read_cell(cell_file(context)),
        finder=finder if isinstance(finder, Peakfinder8Params) else None,
        index=context.experiment.parameters("index", IndexParams),
        sample=np.concatenate([run.read(int(i), int(i) + 1) for i in chosen]),
        bad_pixels=read_bad_pixels(store, key),
        params=params,
        cell_check=context.experiment.parameters("cell_check", CellCheckParams),
    )


def find_causes(evidence: Evidence) -> list[Finding]:
    """Return the causes found, those that concern the largest share first."""
    return sorted((f for cause in CAUSES for f in cause(evidence)), key=lambda f: -f.share)


def tabulate(findings: Sequence[Finding]) -> DiagnosisTable:
    """Return causes as a DIAGNOSIS table."""
    return make_table(
        DIAGNOSIS,
        {
            "rank": np.arange(1, len(findings) + 1),
            "cause": [f.cause for f in findings],
            "share": [f.share for f in findings],
            "told": [f.told for f in findings],
            "remedy": [f.remedy for f in findings],
        },
    )


def describe(evidence: Evidence, findings: Sequence[Finding]) -> str:
    """Return the diagnosis in words, a line per cause."""
    hits, indexed = len(evidence.hits()), len(evidence.indexed_hits())
    rates = f"{hits} of {evidence.n_frames} frames are hits, {indexed} of them index"
    if not findings:
        return f"Nothing wrong: {rates}."
    lines = [f"{i}. {f.cause}: {f.told}. {f.remedy}" for i, f in enumerate(findings, start=1)]
    return "\n".join([f"{rates}.", *lines])
