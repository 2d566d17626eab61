"""What one run gives to its experiment's merged set: its crystals scaled by themselves, and sums per unique reflection."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.merging.parameters import RunMergeParams
from peaknet_pipeline.merging.run_sums import merge_run, sums_table
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.schemas import MERGE_CRYSTALS, MERGE_SUMS, REFLECTIONS
from peaknet_pipeline.store.asset import UPDATED, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import merge_crystals_path, merge_sums_path, reflections_path
from peaknet_pipeline.store.run_files import cell_file, read_context
from peaknet_pipeline.store.stage_result import StageResult
from peaknet_pipeline.tables import empty_table, read_table, write_table


def run_merge(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """A run's crystals scaled against each other, put into one setting, and summed per unique reflection for the merged set."""
    context = read_context(store, key)
    params = context.experiment.parameters("merge", RunMergeParams, overrides)
    reflections, cell_path = reflections_path(store, key, params.merged_finder), cell_file(context)
    output = merge_sums_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        table, cell = read_table(reflections, REFLECTIONS), read_cell(cell_path)
        sums, crystals, left_out = empty_table(MERGE_SUMS), empty_table(MERGE_CRYSTALS), 0
        if table["intensity"].notna().any():
            made = merge_run(table, run=key, cell=cell, symmetry=params.symmetry_of(cell), params=params)
            sums, crystals, left_out = sums_table(made.sums), made.sums.crystals, made.scaling.n_left_out
        origin = origin_of(recipe, run=key)
        write_table(sums, output, MERGE_SUMS, extra=origin)
        write_table(crystals, merge_crystals_path(store, key), MERGE_CRYSTALS, extra=origin)
        accepted = crystals["accepted"].to_numpy(dtype=bool)
        figures: dict[str, Any] = {
            "crystals": int(accepted.sum()),
            "rejected": int((~accepted).sum()),
            "observations": int(sums["n"].sum()),
            "left_out": left_out,
            "other_settings": int((crystals["setting"] > 0).sum()),
            "median_correlation": float(np.median(crystals["correlation"])) if len(crystals) else 0.0,
        }
        tables = {"merge_sums": output, "merge_crystals": merge_crystals_path(store, key)}
        return StageResult(output, figures, tables)

    inputs = [reflections, cell_path, *context.settings_files]
    return make_stage("run_merge", parameters=params.to_dict(), inputs=inputs, build=build)


RUN_MERGE_ASSET = Asset(
    run_merge,
    output=merge_sums_path,
    deps=("classical_index",),
    kinds=("parquet",),
    parameters=RunMergeParams,
    tables=("merge_sums", "merge_crystals"),
    automation=UPDATED,
)
