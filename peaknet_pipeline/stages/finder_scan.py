"""The expert, automated: the peakfinder8 setting that indexes most of a sample of a run's frames."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.peaks.peakfinder8 import PEAKFINDER8, Peakfinder8Params
from peaknet_pipeline.peaks.scan import ScanStageParams
from peaknet_pipeline.plots.scan import plot_scan
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.schemas import SCAN
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.steps.scan_finder import (
    best_figures,
    choose_frames,
    scan_frames,
    scan_table,
)
from peaknet_pipeline.store.asset import Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import read_bad_pixels, read_left_out_rings, scan_path, statistics_path
from peaknet_pipeline.store.run_files import cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import write_table


def finder_scan(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Every peakfinder8 setting of a grid on a sample of a run, scored by indexing yield: the expert-tuned baseline."""
    context = read_context(store, key)
    params = context.experiment.parameters("scan", ScanStageParams, overrides)
    base = Peakfinder8Params.part_of(context.experiment.parameters("finder", PEAKFINDER8.parameters))
    index = context.experiment.parameters("index", IndexParams)
    output, cell_path = scan_path(store, key), cell_file(context)

    def build(recipe: Recipe) -> StageResult:
        cell = read_cell(cell_path)
        with open_raw(context) as run, progress_bar(f"scan {key}", unit="setting") as progress:
            bad_pixels, rings = read_bad_pixels(store, key), read_left_out_rings(store, key)
            chosen = choose_frames(run, bad_pixels, params, base)
            scan = scan_frames(
                run, chosen, cell, params, base=base, index=index, bad_pixels=bad_pixels, rings=rings,
                progress=progress,
            )  # fmt: skip
        table = scan_table(scan, len(chosen))
        write_table(table, output, SCAN, extra=origin_of(recipe, run=key))
        return _result(output, table, scan, key, in_use=base)

    inputs = [statistics_path(store, key), *context.files, cell_path, *context.settings_files]
    parameters = {"scan": params.to_dict(), "finder": base.to_dict(), "index": index.to_dict()}
    return make_stage("finder_scan", parameters=parameters, inputs=inputs, build=build)


FINDER_SCAN_ASSET = Asset(
    finder_scan,
    output=scan_path,
    deps=("raw_run", "run_statistics"),
    kinds=("parquet", "python"),
    parameters=ScanStageParams,
    tables=("finder_scan",),
    checks=("something_indexes",),
)


def _result(
    output: Path, table: pd.DataFrame, scan: pd.DataFrame, key: str, *, in_use: Peakfinder8Params
) -> StageResult:
    figures = best_figures(table, scan, in_use=in_use)
    told = (
        f"the best setting indexes {figures['indexed']} of {figures['frames']} frames and explains "
        f"{figures['explained']} peaks; the one in use {figures['indexed_in_use']} and {figures['explained_in_use']}"
    )
    check = Check("something_indexes", figures["indexed"] > 0, told)
    plots = {"scan": plot_scan(table, title=key, in_use=(in_use.threshold, in_use.min_snr))}
    return StageResult(output, figures, {"finder_scan": output}, plots, (check,))
