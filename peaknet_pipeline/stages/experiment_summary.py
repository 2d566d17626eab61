"""The summary over all runs: their rates, the table of runs, the plot over runs and the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from peaknet_pipeline.plots.curves import plot_rates, plot_rates_over_runs
from peaknet_pipeline.provenance import Recipe, origin_of, write_recipe
from peaknet_pipeline.schemas import RUNS, SCORES
from peaknet_pipeline.stages.reporting import report_path, write_experiment_report
from peaknet_pipeline.stages.run_metrics import rates_in_range
from peaknet_pipeline.stages.run_table import run_table
from peaknet_pipeline.store.asset import SUMMARIZE, UPDATED, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import runs_path, summary_path
from peaknet_pipeline.store.scores import is_of_this_version, metrics_path, read_all_scores
from peaknet_pipeline.store.stage_result import StageResult
from peaknet_pipeline.tables import write_table


def experiment_summary(
    store: Store, keys: Sequence[str], *, overrides: Mapping[str, Any] | None = None
) -> StageResult:
    """All runs' rates in one table, with a plot over runs and a self-contained HTML report."""
    output = summary_path(store, "all")
    scored = [key for key in keys if is_of_this_version(metrics_path(store, key))]

    def build(recipe: Recipe) -> StageResult:
        scores = read_all_scores(store)
        table = scores[scores["run"].isin(scored)].reset_index(drop=True)
        write_table(table, output, SCORES, extra=origin_of(recipe, run="all"))
        runs = run_table(store, keys, scores=scores)
        write_table(runs, runs_path(store, "all"), RUNS, extra=origin_of(recipe, run="all"))
        figures: dict[str, Any] = {"runs": len(scored), "runs_without_metrics": len(keys) - len(scored)}
        figures |= {f"runs_{name}": int(n) for name, n in runs["status"].value_counts().items()}
        for finder, rows in table.groupby("finder"):
            frames, hits, indexed = (int(rows[name].sum()) for name in ("frames", "hits", "indexed"))
            figures |= {f"{finder}_frames": frames, f"{finder}_hits": hits, f"{finder}_indexed": indexed}
            figures[f"{finder}_indexing_yield"] = indexed / max(frames, 1)
        plots = {}
        if len(table):
            plots = {"rates": plot_rates(table), "over_runs": plot_rates_over_runs(table, title="Over runs")}
        report = report_path(store)
        write_experiment_report(store, runs, table, report)
        write_recipe(report, recipe, seconds=0.0)
        figures["report"] = str(report)
        return StageResult(
            output,
            figures,
            {"run_metrics": output, "runs": runs_path(store, "all")},
            plots,
            (rates_in_range(table),),
        )

    inputs = [metrics_path(store, key) for key in scored]
    return make_stage("experiment_summary", parameters={}, inputs=inputs, build=build)


EXPERIMENT_SUMMARY_ASSET = Asset(
    experiment_summary,
    job=SUMMARIZE,
    output=summary_path,
    deps=("run_metrics",),
    per_run=False,
    kinds=("parquet",),
    tables=("run_metrics", "runs"),
    checks=("rates_in_range",),
    automation=UPDATED,
)
