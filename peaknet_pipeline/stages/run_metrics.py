"""Rates of every run with every finder."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from peaknet_pipeline.metrics import MetricParams, RunContext, score_peaks, score_run
from peaknet_pipeline.plots.curves import plot_recall
from peaknet_pipeline.provenance import (
    Recipe,
    digest_of,
    network_of,
    origin_of,
    read_recipe,
)
from peaknet_pipeline.schemas import INDEX, PEAKS, SCORES, SPLIT, PeakTable, Scores
from peaknet_pipeline.simulate.truth import Truth
from peaknet_pipeline.steps.truth import read_truth_of
from peaknet_pipeline.store.asset import INFER, MISSING, Asset
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import FINDERS, index_path, peaks_path, read_control, training_set_path
from peaknet_pipeline.store.run_files import read_context
from peaknet_pipeline.store.scores import metrics_path
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import read_table, read_table_metadata, write_table
from peaknet_pipeline.version import code_version


def run_metrics(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Rates of one run with all denominators, classical and PeakNet side by side, truth compared where it is known."""
    context = read_context(store, key)
    params = context.experiment.parameters("metrics", MetricParams, overrides)
    output = metrics_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        truth = read_truth_of(context.files)
        subset = _subset_of(store, key)
        rows = [_score_finder(store, key, finder, params, truth, subset) for finder in FINDERS]
        table = pd.concat(rows, ignore_index=True)
        write_table(
            table,
            output,
            SCORES,
            extra=origin_of(recipe, run=key, **network_of(peaks_path(store, key, "peaknet"))),
        )
        plots = {}
        if truth is not None:
            recalls = {
                f: score_peaks(_peaks(store, key, f), truth.reflections, params).by_snr for f in FINDERS
            }
            plots["recall_by_snr"] = plot_recall(recalls, title=key)
        return StageResult(output, _figures(table), {"run_metrics": output}, plots, (rates_in_range(table),))

    inputs = [f(store, key, finder) for finder in FINDERS for f in (peaks_path, index_path)]
    inputs += [path for path in (training_set_path(store, "all"),) if path.is_file()]
    return make_stage(
        "run_metrics", parameters=params.to_dict(), inputs=[*inputs, *context.settings_files], build=build
    )


RUN_METRICS_ASSET = Asset(
    run_metrics,
    job=INFER,
    output=metrics_path,
    deps=("classical_peaks", "classical_index", "peaknet_peaks", "peaknet_index"),
    kinds=("parquet",),
    parameters=MetricParams,
    tables=("run_metrics",),
    checks=("rates_in_range",),
    blocking=("rates_in_range",),
    automation=MISSING,
)


def _peaks(store: Store, key: str, finder: str) -> PeakTable:
    return read_table(peaks_path(store, key, finder), PEAKS)


def _score_finder(
    store: Store, key: str, finder: str, params: MetricParams, truth: Truth | None, subset: str
) -> pd.DataFrame:
    path = peaks_path(store, key, finder)
    peaks, lattices = read_table(path, PEAKS), read_table(index_path(store, key, finder), INDEX)
    made = {
        name: read_recipe(p) or {} for name, p in (("peaks", path), ("index", index_path(store, key, finder)))
    }
    control = read_control(store, key, finder)
    metadata = read_table_metadata(path)
    context = RunContext(
        experiment=parse_key(key).experiment,
        run=key,
        finder=finder,
        n_frames=int(metadata["n_frames"]),
        subset=subset,
        model=metadata.get("model", ""),
        label_manifest=metadata.get("label_manifest", ""),
        parameters=digest_of([made["peaks"].get("parameters"), made["index"].get("parameters")]),
        code_version=code_version(),
        frames_per_second=float(made["peaks"].get("figures", {}).get("frames_per_second", float("nan"))),
        scrambled=control.n_scrambled,
        false_indexed=control.n_indexed,
    )
    scores = score_peaks(peaks, truth.reflections, params) if truth is not None else None
    return score_run(context, peaks, lattices, min_peaks=params.min_peaks, truth=scores)


def _subset_of(store: Store, key: str) -> str:
    path = training_set_path(store, "all")
    if not path.is_file():
        return "unused"
    rows = read_table(path, SPLIT)
    found = rows.loc[rows["run"] == key, "subset"].unique()
    return str(found[0]) if len(found) else "unused"


def _figures(table: Scores) -> dict[str, Any]:
    figures: dict[str, Any] = {"frames": int(table["frames"].max())}
    for row in table.to_dict("records"):
        for name in (
            "hits",
            "indexed",
            "hit_rate",
            "indexing_rate",
            "indexing_yield",
            "false_index_rate",
            "precision",
            "recall",
        ):
            if row[name] == row[name]:
                figures[f"{row['finder']}_{name}"] = row[name]
    return figures


def rates_in_range(table: Scores) -> Check:
    names = ("hit_rate", "indexing_rate", "indexing_yield", "false_index_rate", "precision", "recall")
    values = table[list(names)].to_numpy(dtype=float)
    outside = int(((values < 0) | (values > 1)).sum())
    return Check("rates_in_range", outside == 0, f"{outside} rates outside [0, 1]")
