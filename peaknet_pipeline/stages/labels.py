"""Peak-matching labels of one run: the asset's composition."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.labels.rasterize import RasterParams
from peaknet_pipeline.labels.split import CLASSICAL, PEAKNET
from peaknet_pipeline.metrics import MetricParams, hit_frames
from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.match import MatchParams
from peaknet_pipeline.plots.fits import plot_labels
from peaknet_pipeline.stages.context import RunContext, frame_reader, open_raw, read_context
from peaknet_pipeline.stages.curation import curation_path
from peaknet_pipeline.stages.finding import peaks_path
from peaknet_pipeline.stages.ingest import read_bad_pixels, statistics_path
from peaknet_pipeline.stages.label_quality import judge_label_run
from peaknet_pipeline.stages.labelling import LabelRun, label_frames
from peaknet_pipeline.stages.lattices import (
    MAX_FALSE_RATE,
    ControlRecord,
    index_path,
    read_control,
    reflections_path,
)
from peaknet_pipeline.stages.making import make_stage
from peaknet_pipeline.stages.progress import counting_bar
from peaknet_pipeline.stages.provenance import Recipe, network_of, origin_of, read_recipe
from peaknet_pipeline.stages.result import Check, StageResult
from peaknet_pipeline.stages.store import Store
from peaknet_pipeline.tables import read_table, write_table
from peaknet_pipeline.types import (
    CURATION,
    FITS,
    FRAME_MATCHES,
    MATCHES,
    PEAKS,
    REFLECTIONS,
    Geometry,
    PeakTable,
    ReflectionTable,
)

GATES = ("agrees_with_lmfit", "hits_have_lattices", "lattices_hold")
"""Checks of label files; a file that failed one teaches nothing, now or later."""

LEAST_AGREEMENT = 0.9
"""Share of sampled fits that must agree with lmfit."""


def labels_path(store: Store, key: str) -> Path:
    """Return where a run's label maps lie."""
    return store.file("peak_labels", key, ".h5")


def curated_labels_path(store: Store, key: str) -> Path:
    """Return where the label maps of a run's curated frames lie."""
    return store.file("curated_labels", key, ".h5")


def peak_labels(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Pixel labels without a person: found and predicted peaks matched, fitted, and stamped where both agree."""
    context = read_context(store, key)
    params = _parameters(context, overrides)
    output = labels_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        peaks = read_table(peaks_path(store, key, "classical"), PEAKS)
        reflections = read_table(reflections_path(store, key, "classical"), REFLECTIONS)
        origin = origin_of(recipe, run=key) | {"labels": CLASSICAL}
        labelled = _label(context, peaks, reflections, output, params, origin)
        min_peaks = context.experiment.parameters("metrics", MetricParams).min_peaks
        n_hits = len(hit_frames(peaks, min_peaks=min_peaks))
        verdict = judge_label_run(labelled.frame_matches, n_hits=n_hits)
        check = Check("hits_have_lattices", verdict.passed, verdict.message)
        return _result(store, output, labelled, check, origin)

    inputs = _inputs(context, "classical")
    return make_stage("peak_labels", parameters=_plain(params), inputs=inputs, build=build)


def curated_labels(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Labels of the candidates whose neural peaks index: the same matching, fits and limits, from the network's lattices."""
    context = read_context(store, key)
    params = _parameters(context, overrides)
    output = curated_labels_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        frames = read_table(curation_path(store, key), CURATION)["frame"]
        path = peaks_path(store, key, "peaknet")
        peaks, reflections = (
            _of_frames(read_table(source, schema), frames)
            for source, schema in ((path, PEAKS), (reflections_path(store, key, "peaknet"), REFLECTIONS))
        )
        origin = origin_of(recipe, run=key, **network_of(path)) | {"labels": PEAKNET}
        labelled = _label(context, peaks, reflections, output, params, origin)
        check = _lattices_hold(read_control(store, key, "peaknet"))
        return _result(store, output, labelled, check, origin)

    inputs = [*_inputs(context, "peaknet"), curation_path(store, key)]
    return make_stage("curated_labels", parameters=_plain(params), inputs=inputs, build=build)


def label_problems(path: Path) -> str:
    """Return why a label file may not teach: the gates that it failed when it was made; empty if it may."""
    checks: list[dict[str, Any]] = (read_recipe(path) or {}).get("checks", [])
    failed = [check for check in checks if check["name"] in GATES and not check["passed"]]
    return "; ".join(f"{check['name']}: {check['description']}" for check in failed)


def _parameters(
    context: RunContext, overrides: Mapping[str, Any] | None
) -> tuple[MatchParams, FitParams, RasterParams]:
    experiment = context.experiment
    return (
        experiment.parameters("match", MatchParams, overrides),
        experiment.parameters("fit", FitParams),
        experiment.parameters("labels", RasterParams),
    )


def _plain(params: tuple[MatchParams, FitParams, RasterParams]) -> dict[str, Any]:
    return dict(zip(("match", "fit", "labels"), (part.to_dict() for part in params), strict=True))


def _inputs(context: RunContext, finder: str) -> list[Path]:
    store, key = context.store, str(context.key)
    made = [peaks_path(store, key, finder), index_path(store, key, finder), statistics_path(store, key)]
    return [*made, context.path, *context.settings_files]


def _of_frames(table: pd.DataFrame, frames: "pd.Series[int]") -> pd.DataFrame:
    return table[table["frame"].isin(frames)].reset_index(drop=True)


def _label(
    context: RunContext,
    peaks: PeakTable,
    reflections: ReflectionTable,
    output: Path,
    params: tuple[MatchParams, FitParams, RasterParams],
    origin: Mapping[str, str],
) -> LabelRun:
    match, fit, raster = params
    key = str(context.key)
    with open_raw(context) as run, counting_bar(f"labels {key}", peaks["frame"].nunique()) as advance:
        return label_frames(
            frame_reader(run),
            peaks,
            reflections,
            output,
            bad_pixels=read_bad_pixels(context.store, key),
            adu_per_photon=gains(context.geometry),
            saturation_adu=context.geometry.flag_more_than,
            match=match,
            fit=fit,
            raster=raster,
            provenance=origin,
            progress=advance,
        )


def _lattices_hold(control: ControlRecord) -> Check:
    """Check that the lattices behind neural labels are real: the run's scrambled hits do not index."""
    rate = control.n_indexed / max(control.n_scrambled, 1)
    told = (
        f"{control.n_indexed} of {control.n_scrambled} scrambled hits index; at most {MAX_FALSE_RATE:.1%} may"
    )
    return Check("lattices_hold", rate <= MAX_FALSE_RATE, told)


def gains(geometry: Geometry) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return adu per photon of each panel, (n_panels,)."""
    return np.array([panel.adu_per_photon for panel in geometry.panels], dtype=np.float64)


def _result(
    store: Store, output: Path, labelled: LabelRun, check: Check, origin: Mapping[str, str]
) -> StageResult:
    stage, key = output.parent.name, output.stem
    tables = {name: store.table(f"{stage}/{name}", key) for name in ("fits", "matches", "frame_matches")}
    for name, schema in (("fits", FITS), ("matches", MATCHES), ("frame_matches", FRAME_MATCHES)):
        write_table(getattr(labelled, name), tables[name], schema, extra=origin)
    figures: dict[str, Any] = {
        "labelled_frames": labelled.n_frames,
        "labelled_reflections": labelled.n_peaks,
        "ignored_reflections": labelled.n_ignored,
    }
    agreement = labelled.audit.agreement if labelled.audit is not None else None
    if agreement is not None:
        figures["agreement_with_lmfit"] = agreement
    passed = agreement is None or agreement >= LEAST_AGREEMENT
    told = (
        "nothing was fitted" if agreement is None else f"{agreement:.1%} of the sampled fits agree with lmfit"
    )
    plots = plot_labels(labelled.fits, title=key)
    checks = (Check("agrees_with_lmfit", passed, told), check)
    return StageResult(output, figures, tables, {"fits": plots}, checks)
