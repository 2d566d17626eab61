"""Peak-matching labels of one run: the asset's composition."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.labels.rasterize import RasterParams
from peaknet_pipeline.metrics import MetricParams, hit_frames
from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.match import MatchParams
from peaknet_pipeline.plots.fits import plot_labels
from peaknet_pipeline.stages.context import frame_reader, open_raw, read_context
from peaknet_pipeline.stages.finding import peaks_path
from peaknet_pipeline.stages.ingest import read_bad_pixels, statistics_path
from peaknet_pipeline.stages.label_quality import judge_label_run
from peaknet_pipeline.stages.labelling import LabelRun, label_frames
from peaknet_pipeline.stages.lattices import index_path, reflections_path
from peaknet_pipeline.stages.making import make_stage
from peaknet_pipeline.stages.progress import counting_bar
from peaknet_pipeline.stages.provenance import Recipe, origin_of
from peaknet_pipeline.stages.result import Check, StageResult
from peaknet_pipeline.stages.store import Store
from peaknet_pipeline.tables import read_table, write_table
from peaknet_pipeline.types import FITS, FRAME_MATCHES, MATCHES, PEAKS, REFLECTIONS, Geometry

LEAST_AGREEMENT = 0.9
"""Share of sampled fits that must agree with lmfit."""


def labels_path(store: Store, key: str) -> Path:
    """Return where a run's label maps lie."""
    return store.file("peak_labels", key, ".h5")


def peak_labels(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Pixel labels without a person: found and predicted peaks matched, fitted, and stamped where both agree."""
    context = read_context(store, key)
    match = context.experiment.parameters("match", MatchParams, overrides)
    fit = context.experiment.parameters("fit", FitParams)
    raster = context.experiment.parameters("labels", RasterParams)
    output = labels_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        peaks = read_table(peaks_path(store, key, "classical"), PEAKS)
        reflections = read_table(reflections_path(store, key, "classical"), REFLECTIONS)
        selected = peaks["frame"].nunique()
        with open_raw(context) as run, counting_bar(f"labels {key}", selected) as advance:
            labelled = label_frames(
                frame_reader(run),
                peaks,
                reflections,
                output,
                bad_pixels=read_bad_pixels(store, key),
                adu_per_photon=gains(context.geometry),
                saturation_adu=context.geometry.flag_more_than,
                match=match,
                fit=fit,
                raster=raster,
                provenance={"run": key, "recipe": recipe.digest()},
                progress=advance,
            )
        min_peaks = context.experiment.parameters("metrics", MetricParams).min_peaks
        n_hits = len(hit_frames(peaks, min_peaks=min_peaks))
        return _result(store, key, labelled, n_hits=n_hits, origin=origin_of(recipe, run=key))

    inputs = [
        peaks_path(store, key, "classical"),
        index_path(store, key, "classical"),
        statistics_path(store, key),
        context.path,
        *context.settings_files,
    ]
    parameters = {"match": match.to_dict(), "fit": fit.to_dict(), "labels": raster.to_dict()}
    return make_stage("peak_labels", parameters=parameters, inputs=inputs, build=build)


def gains(geometry: Geometry) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return adu per photon of each panel, (n_panels,)."""
    return np.array([panel.adu_per_photon for panel in geometry.panels], dtype=np.float64)


def _result(
    store: Store, key: str, labelled: LabelRun, *, n_hits: int, origin: Mapping[str, str]
) -> StageResult:
    tables = {
        "fits": store.table("peak_labels/fits", key),
        "matches": store.table("peak_labels/matches", key),
        "frame_matches": store.table("peak_labels/frame_matches", key),
    }
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
    verdict = judge_label_run(labelled.frame_matches, n_hits=n_hits)
    passed = agreement is None or agreement >= LEAST_AGREEMENT
    told = (
        "nothing was fitted" if agreement is None else f"{agreement:.1%} of the sampled fits agree with lmfit"
    )
    plots = plot_labels(labelled.fits, title=key)
    checks = (
        Check("agrees_with_lmfit", passed, told),
        Check("hits_have_lattices", verdict.passed, verdict.message),
    )
    return StageResult(labels_path(store, key), figures, tables, {"fits": plots}, checks)
