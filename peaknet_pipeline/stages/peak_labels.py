"""Peak-matching labels of one run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from peaknet_pipeline.geometry.resolve import gains
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.indexing.examine import CellCheckParams
from peaknet_pipeline.labels.rasterize import RasterParams
from peaknet_pipeline.metrics import TruthScores
from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.match import MatchParams
from peaknet_pipeline.plots.fits import plot_label_quality, plot_labels
from peaknet_pipeline.provenance import Recipe, origin_of, read_recipe
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import (
    CRYSTALS,
    FITS,
    FRAME_MATCHES,
    LABEL_QUALITY,
    MATCHES,
    PEAKS,
    REFLECTIONS,
    LabelQualityTable,
    PeakTable,
    ReflectionTable,
)
from peaknet_pipeline.simulate.truth import Truth
from peaknet_pipeline.stages.cell_check import cell_holds
from peaknet_pipeline.steps.label_frames import LabelRun, label_frames
from peaknet_pipeline.steps.label_quality import (
    judge_label_run,
    judge_quality,
    quality_table,
    score_labels,
)
from peaknet_pipeline.steps.progress import counting_bar
from peaknet_pipeline.steps.truth import read_truth_of
from peaknet_pipeline.store.asset import INGEST, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import (
    crystals_path,
    fits_path,
    index_path,
    labels_path,
    peaks_path,
    read_bad_pixels,
    reflections_path,
    statistics_path,
)
from peaknet_pipeline.store.run_files import RunContext, cell_file, frame_reader, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import empty_table, read_table, write_table

GATES = ("agrees_with_lmfit", "hits_have_lattices", "cell_holds", "lattices_hold")
"""Checks of label files; a file that failed one teaches nothing, now or later."""

LABEL_MARGIN = 1.15
"""How much further than its lattice's peaks, in 1/d, a reflection is labelled."""

LEAST_AGREEMENT = 0.9
"""Share of sampled fits that must agree with lmfit."""


@dataclass(frozen=True)
class LabelParams:
    """Everything that decides how peaks and reflections become label maps."""

    match: MatchParams
    fit: FitParams
    labels: RasterParams
    cell_check: CellCheckParams

    def to_dict(self) -> dict[str, Any]:
        """Return names and values, ready for JSON."""
        return {name: getattr(self, name).to_dict() for name in ("match", "fit", "labels", "cell_check")}


def label_parameters(context: RunContext, overrides: Mapping[str, Any] | None) -> LabelParams:
    """Return an experiment's settings of labels."""
    experiment = context.experiment
    return LabelParams(
        experiment.parameters("match", MatchParams, overrides),
        experiment.parameters("fit", FitParams),
        experiment.parameters("labels", RasterParams),
        experiment.parameters("cell_check", CellCheckParams),
    )


def peak_labels(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Pixel labels without a person: found and predicted peaks matched, fitted, and stamped where both agree."""
    context = read_context(store, key)
    params = label_parameters(context, overrides)
    output = labels_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        peaks = read_table(peaks_path(store, key, "classical"), PEAKS)
        reflections = label_reflections(store, key, "classical")
        labelled = label_run(
            context, peaks, reflections, output, params, {"run": key, "recipe": recipe.digest()}
        )
        min_peaks = context.experiment.min_peaks
        n_hits = len(hit_frames(peaks, min_peaks=min_peaks))
        truth, origin = read_truth_of(context.files), origin_of(recipe, run=key)
        cell = cell_holds(context, "classical", params.cell_check)
        return _result(store, key, labelled, cell, n_hits=n_hits, truth=truth, origin=origin)

    inputs = label_inputs(context, "classical")
    return make_stage("peak_labels", parameters=params.to_dict(), inputs=inputs, build=build)


PEAK_LABELS_ASSET = Asset(
    peak_labels,
    job=INGEST,
    output=labels_path,
    deps=("run_statistics", "classical_peaks", "classical_index"),
    kinds=("hdf5", "parquet"),
    parameters=MatchParams,
    tables=("fits", "matches", "frame_matches", "label_quality"),
    checks=("agrees_with_lmfit", "hits_have_lattices", "cell_holds", "labels_are_true"),
    blocking=("agrees_with_lmfit", "hits_have_lattices", "cell_holds"),
)


def label_inputs(context: RunContext, finder: str) -> list[Path]:
    """Return the files that labels from one finder's peaks are made from."""
    store, key = context.store, str(context.key)
    made = [peaks_path(store, key, finder), index_path(store, key, finder), statistics_path(store, key)]
    return [*made, *context.files, cell_file(context), *context.settings_files]


def label_run(
    context: RunContext,
    peaks: PeakTable,
    reflections: ReflectionTable,
    output: Path,
    params: LabelParams,
    provenance: Mapping[str, str],
) -> LabelRun:
    """Label a run's frames from peaks and reflections, and write the label file."""
    key = str(context.key)
    with open_raw(context) as run, counting_bar(f"labels {key}", peaks["frame"].nunique()) as advance:
        geometry = geometry_of(run)
        return label_frames(
            frame_reader(run),
            peaks,
            reflections,
            output,
            bad_pixels=read_bad_pixels(context.store, key),
            adu_per_photon=gains(geometry),
            saturation_adu=geometry.saturation_adu,
            usable=run.usable,
            match=params.match,
            fit=params.fit,
            raster=params.labels,
            provenance=provenance,
            progress=advance,
        )


def label_reflections(store: Store, key: str, finder: str) -> ReflectionTable:
    """Return a run's reflections that may be seen: those that lie little further out than the peaks of their lattice."""
    reflections = read_table(reflections_path(store, key, finder), REFLECTIONS)
    crystals = read_table(crystals_path(store, key, finder), CRYSTALS)
    reach = crystals.set_index(["frame", "lattice"])["peak_inv_d"]
    own = reach.reindex(pd.MultiIndex.from_frame(reflections[["frame", "lattice"]])).to_numpy()
    return reflections[reflections["inv_d"].to_numpy() <= LABEL_MARGIN * own].reset_index(drop=True)


def label_problems(path: Path) -> str:
    """Return why a label file may not teach: the gates that it failed when it was made; empty if it may."""
    checks: list[dict[str, Any]] = (read_recipe(path) or {}).get("checks", [])
    failed = [check for check in checks if check["name"] in GATES and not check["passed"]]
    return "; ".join(f"{check['name']}: {check['description']}" for check in failed)


def _result(
    store: Store,
    key: str,
    labelled: LabelRun,
    cell: Check,
    *,
    n_hits: int,
    truth: Truth | None,
    origin: Mapping[str, str],
) -> StageResult:
    scores = None
    if truth is not None:
        scores = score_labels(labelled.fits, labelled.frame_matches, truth.reflections)
    quality = empty_table(LABEL_QUALITY) if scores is None else quality_table(labelled.fits, scores)
    plots = {"fits": plot_labels(labelled.fits, title=key)}
    if scores is not None:
        plots["label_quality"] = plot_label_quality(quality, title=key)
    return StageResult(
        labels_path(store, key),
        label_figures(labelled, scores),
        _write_tables(store, key, labelled, quality, origin),
        plots,
        _checks(labelled, scores, cell, n_hits=n_hits),
    )


def _write_tables(
    store: Store, key: str, labelled: LabelRun, quality: LabelQualityTable, origin: Mapping[str, str]
) -> dict[str, Path]:
    made = {
        "fits": (labelled.fits, FITS, fits_path(store, key)),
        "matches": (labelled.matches, MATCHES, store.table("peak_labels/matches", key)),
        "frame_matches": (
            labelled.frame_matches,
            FRAME_MATCHES,
            store.table("peak_labels/frame_matches", key),
        ),
        "label_quality": (quality, LABEL_QUALITY, store.table("peak_labels/label_quality", key)),
    }
    for table, schema, path in made.values():
        write_table(table, path, schema, extra=origin)
    return {name: path for name, (_, _, path) in made.items()}


def label_figures(labelled: LabelRun, scores: TruthScores | None = None) -> dict[str, Any]:
    """Return what labelling a run made, and how true it is where the truth is known."""
    frames = labelled.frame_matches
    figures: dict[str, Any] = {
        "labelled_frames": labelled.n_frames,
        "labelled_reflections": labelled.n_peaks,
        "ignored_reflections": labelled.n_ignored,
    }
    if len(frames):
        figures["median_match_precision"] = float(frames["precision"].median())
        figures["median_match_recall"] = float(frames["recall"].median())
    if labelled.audit is not None:
        figures["agreement_with_lmfit"] = labelled.audit.agreement
    if scores is not None:
        figures["label_precision"] = scores.precision.value
        figures["label_recall"] = scores.recall.value
        figures["label_centre_error_px"] = scores.centre_error_px
    return figures


def audit_check(labelled: LabelRun) -> Check:
    """Check that a sample of the fits agrees with lmfit."""
    audit = labelled.audit
    agrees = audit is None or not audit.n_accepted or audit.agreement >= LEAST_AGREEMENT
    told = "nothing was fitted"
    if audit is not None:
        told = f"{audit.agreement:.1%} of {audit.n_accepted} accepted fits in a sample of {audit.n_patches} agree with lmfit"
    return Check("agrees_with_lmfit", agrees, told, audit.to_dict() if audit is not None else {})


def _checks(labelled: LabelRun, scores: TruthScores | None, cell: Check, *, n_hits: int) -> tuple[Check, ...]:
    lattices, quality = judge_label_run(labelled.frame_matches, n_hits=n_hits), judge_quality(scores)
    return (
        audit_check(labelled),
        Check("hits_have_lattices", lattices.passed, lattices.message),
        cell,
        Check("labels_are_true", quality.passed, quality.message),
    )
