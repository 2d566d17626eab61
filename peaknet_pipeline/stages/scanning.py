"""The expert, automated: the peakfinder8 setting that indexes most of a sample of a run's frames."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.params import parameter
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.peaks.scan import (
    ScanParams,
    background_thresholds,
    best_setting,
    parameter_grid,
    scan_parameters,
)
from peaknet_pipeline.plots.scan import plot_scan
from peaknet_pipeline.runs.rings import drop_ring_peaks
from peaknet_pipeline.stages.context import cell_file, open_raw, read_context
from peaknet_pipeline.stages.finding import add_resolution, geometry_of, valid_range
from peaknet_pipeline.stages.ingest import read_bad_pixels, read_left_out_rings, statistics_path
from peaknet_pipeline.stages.making import make_stage
from peaknet_pipeline.stages.progress import progress_bar
from peaknet_pipeline.stages.provenance import Recipe, origin_of
from peaknet_pipeline.stages.result import Check, StageResult
from peaknet_pipeline.stages.store import Store
from peaknet_pipeline.tables import make_table, write_table
from peaknet_pipeline.types import SCAN, BoolArray, FrameArray, PeakTable

CROWDED = 600
"""Mean peaks per frame from which on a setting is hopeless and isn't indexed."""


@dataclass(frozen=True)
class ScanStageParams(ScanParams):
    """The grid, and how many frames are tried."""

    threshold_sigma: tuple[float, ...] = parameter(
        (0.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0),
        meaning="thresholds above the run's background, where none are given",
        unit="σ",
    )
    frames: int = parameter(24, meaning="frames tried, spread over the run", ge=1)


def scan_path(store: Store, key: str) -> Path:
    """Return where a run's scan lies."""
    return store.table("finder_scan", key)


def finder_scan(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Every peakfinder8 setting of a grid on a sample of a run, scored by indexing yield: the expert-tuned baseline."""
    context = read_context(store, key)
    params = context.experiment.parameters("scan", ScanStageParams, overrides)
    base = context.experiment.parameters("finder", Peakfinder8Params)
    index = context.experiment.parameters("index", IndexParams)
    output, cell_path = scan_path(store, key), cell_file(context)

    def build(recipe: Recipe) -> StageResult:
        cell = read_cell(cell_path)
        with open_raw(context) as run, progress_bar(f"scan {key}", unit="setting") as progress:
            geometry, chosen = geometry_of(run), spread_frames(run.n_frames, params.frames)
            rings = read_left_out_rings(store, key)
            frames: FrameArray = np.concatenate([run.read(int(i), int(i) + 1) for i in chosen])
            bad_pixels, energy, tried = read_bad_pixels(store, key), run.photon_energy_ev[chosen], 0
            grid = parameter_grid(_grid_of(params, frames, bad_pixels), base)

            def score(peaks: PeakTable, setting: Peakfinder8Params) -> dict[str, float]:
                nonlocal tried
                tried += 1
                progress(tried, len(grid))
                peaks = drop_ring_peaks(add_resolution(peaks, geometry, energy), rings)
                if len(peaks) > CROWDED * len(chosen):
                    return {"indexed": 0, "explained": 0}
                table = index_peaks(
                    peaks, geometry=geometry, photon_energy_ev=energy, cell=cell, params=index
                )
                return {"indexed": table["frame"].nunique(), "explained": int(table["n_explained"].sum())}

            scan = scan_parameters(
                frames,
                radius=pixel_radius(geometry),
                bad_pixels=bad_pixels,
                grid=grid,
                score=score,
                valid_range=valid_range(geometry),
            )
        table = scan_table(scan, len(chosen))
        write_table(table, output, SCAN, extra=origin_of(recipe, run=key))
        return _result(output, table, scan, key)

    inputs = [statistics_path(store, key), context.path, cell_path, *context.settings_files]
    parameters = {"scan": params.to_dict(), "finder": base.to_dict(), "index": index.to_dict()}
    return make_stage("finder_scan", parameters=parameters, inputs=inputs, build=build)


def spread_frames(n_frames: int, wanted: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return at most ``wanted`` frame numbers, evenly over the run."""
    return np.unique(np.linspace(0, n_frames - 1, min(wanted, n_frames)).astype(np.int64))


def scan_table(scan: pd.DataFrame, n_frames: int) -> pd.DataFrame:
    """Return a scan's rows as the ``SCAN`` table, best setting first."""
    scan["frames"] = n_frames
    scan["indexing_yield"] = scan["indexed"] / n_frames
    scan["merit"] = scan["indexing_yield"] + 1e-3 * scan["explained"] / max(scan["explained"].max(), 1)
    ordered = scan.sort_values(["merit", "n_peaks"], ascending=[False, True], kind="stable")
    return make_table(SCAN, {name: ordered[name].to_numpy() for name in SCAN.column_names()})


def _grid_of(params: ScanStageParams, frames: FrameArray, bad_pixels: BoolArray) -> ScanParams:
    """Return the grid, with thresholds from the frames' background unless some are given."""
    grid = ScanParams(**ScanParams.own(params.to_dict()))
    if grid.threshold:
        return grid
    return replace(grid, threshold=background_thresholds(frames, bad_pixels, params.threshold_sigma))


def _result(output: Path, table: pd.DataFrame, scan: pd.DataFrame, key: str) -> StageResult:
    best = best_setting(scan, "merit")
    names = ("threshold", "min_snr", "min_pix", "max_pix", "local_bg_radius")
    figures: dict[str, Any] = {
        "settings": len(table),
        "frames": int(table["frames"].iloc[0]),
        "best_indexing_yield": float(table["indexing_yield"].iloc[0]),
        "indexed": int(table["indexed"].iloc[0]),
        **{f"best_{name}": getattr(best, name) for name in names},
        "line_for_experiment_yaml": "finder: {"
        + ", ".join(f"{n}: {getattr(best, n):g}" for n in names)
        + "}",
    }
    check = Check(
        "something_indexes", figures["indexed"] > 0, f"the best setting indexes {figures['indexed']} frames"
    )
    plots = {"scan": plot_scan(table, title=f"{key}: best yield per threshold and SNR")}
    return StageResult(output, figures, {"finder_scan": output}, plots, (check,))
