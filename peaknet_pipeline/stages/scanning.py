"""The expert, automated: the peakfinder8 setting that indexes most of a sample of a run's frames."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.distance import select_frames
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.repeats import find_repeats
from peaknet_pipeline.metrics import hit_frames
from peaknet_pipeline.params import parameter
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.peaks.scan import (
    ScanParams,
    background_thresholds,
    best_setting,
    parameter_grid,
    scan_parameters,
)
from peaknet_pipeline.plots.scan import plot_scan
from peaknet_pipeline.runs.rings import drop_ring_peaks
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import SCAN, IndexTable, PeakTable
from peaknet_pipeline.stages.finding import add_resolution, valid_range
from peaknet_pipeline.stages.ingest import read_bad_pixels, read_left_out_rings, statistics_path
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.provenance import Recipe, origin_of
from peaknet_pipeline.store.run_files import cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import make_table, write_table
from peaknet_pipeline.types import BoolArray, FrameArray

CROWDED = 1500
"""Mean peaks per frame from which on a setting is hopeless and isn't indexed; strong crystals reach a thousand."""

HIT_SIGMA, HIT_SNR, HIT_PEAKS = 8.0, 4.0, 10
"""Threshold above the background, SNR and least peaks by which likely hits are picked: a sensitive setting, so that weak
hits, which tuning is about, are among them."""

OTHER_SHARE = 4
"""One frame in so many that are tried is none of the likely hits: blank frames tell how much noise a setting finds."""

FRAMES_AT_ONCE = 16
"""Frames held in memory while hits are looked for."""


@dataclass(frozen=True)
class ScanStageParams(ScanParams):
    """The grid, and how many frames are tried."""

    threshold_sigma: tuple[float, ...] = parameter(
        (0.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0),
        meaning="thresholds above the run's background, where none are given",
        unit="σ",
    )
    frames: int = parameter(
        24, meaning="frames tried, three quarters of them likely hits, spread over the run", ge=1
    )
    searched: int = parameter(
        240, meaning="frames, spread over the run, that the likely hits come from", ge=1
    )


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
            geometry, rings, bad_pixels = (
                geometry_of(run),
                read_left_out_rings(store, key),
                read_bad_pixels(store, key),
            )
            chosen = choose_frames(run, bad_pixels, params, base)
            frames, energy, tried = _read(run, chosen), run.photon_energy_ev[chosen], 0
            geometry = select_frames(geometry, chosen)
            grid = parameter_grid(_grid_of(params, frames, bad_pixels), base)
            grid += [] if base in grid else [base]
            scored = index_scorer(
                lambda peaks: index_peaks(
                    peaks, geometry=geometry, photon_energy_ev=energy, cell=cell, params=index
                ),
                len(chosen),
            )

            def score(peaks: PeakTable, setting: Peakfinder8Params) -> dict[str, float]:
                nonlocal tried
                tried += 1
                progress(tried, len(grid))
                return scored(drop_ring_peaks(add_resolution(peaks, geometry, energy), rings))

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
        return _result(output, table, scan, key, in_use=base)

    inputs = [statistics_path(store, key), context.path, cell_path, *context.settings_files]
    parameters = {"scan": params.to_dict(), "finder": base.to_dict(), "index": index.to_dict()}
    return make_stage("finder_scan", parameters=parameters, inputs=inputs, build=build)


def spread_frames(n_frames: int, wanted: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return at most ``wanted`` frame numbers, evenly over the run."""
    return np.unique(np.linspace(0, n_frames - 1, min(wanted, n_frames)).astype(np.int64))


def choose_frames(
    run: Run, bad_pixels: BoolArray, params: ScanStageParams, base: Peakfinder8Params
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return the frames that settings are tried on: likely hits, which tell what a setting indexes, and some others.

    All frames of a run of no more than ``params.frames``. Others fill up where there are fewer hits, and hits where there
    are fewer others.
    """
    if run.n_frames <= params.frames:
        return spread_frames(run.n_frames, run.n_frames)
    searched = spread_frames(run.n_frames, params.searched)
    some = _read(run, spread_frames(run.n_frames, min(params.frames, FRAMES_AT_ONCE)))
    (threshold,) = background_thresholds(some, bad_pixels, (HIT_SIGMA,))
    setting = replace(base, threshold=threshold, min_snr=HIT_SNR)
    geometry = geometry_of(run)
    finder = Peakfinder8(pixel_radius(geometry), bad_pixels, setting, valid_range=valid_range(geometry))
    parts = []
    for part in np.array_split(searched, -(-len(searched) // FRAMES_AT_ONCE)):
        found = finder.find(_read(run, part))
        parts.append(found.assign(frame=part[found["frame"].to_numpy(np.int64)]))
    peaks = pd.concat(parts, ignore_index=True)
    repeats = find_repeats(peaks, min_frames=max(3, len(searched) // 4), min_fraction=0.25)
    hits = hit_frames(peaks[~repeats], min_peaks=HIT_PEAKS)
    others = np.setdiff1d(searched, hits)
    n_hits = min(len(hits), params.frames - min(len(others), params.frames // OTHER_SHARE))
    parts_chosen = (
        part[spread_frames(len(part), n)]
        for part, n in ((hits, n_hits), (others, params.frames - n_hits))
        if n
    )
    return np.sort(np.concatenate(list(parts_chosen))).astype(np.int64)


def _read(run: Run, frames: "np.ndarray[Any, np.dtype[np.int64]]") -> FrameArray:
    stack: FrameArray = np.concatenate([run.read(int(i), int(i) + 1) for i in frames])
    return stack


def index_scorer(
    index: Callable[[PeakTable], IndexTable], n_frames: int
) -> Callable[[PeakTable], dict[str, float]]:
    """Return what scores the peaks of ``n_frames`` frames: ``indexed`` frames and ``explained`` peaks.

    Crowded frames are not indexed (:data:`CROWDED`), and equal peak lists, which many settings give, once.
    """
    known: dict[bytes, dict[str, float]] = {}

    def score(peaks: PeakTable) -> dict[str, float]:
        if len(peaks) > CROWDED * n_frames:
            return {"indexed": 0, "explained": 0}
        places = peaks[["frame", "panel", "fs", "ss"]].to_numpy(np.float64).tobytes()
        if places not in known:
            table = index(peaks)
            known[places] = {
                "indexed": table["frame"].nunique(),
                "explained": int(table["n_explained"].sum()),
            }
        return known[places]

    return score


def scan_table(scan: pd.DataFrame, n_frames: int) -> pd.DataFrame:
    """Return a scan's rows as the ``SCAN`` table, best setting first; ``scan`` gets the columns that it lacks."""
    scan["frames"] = n_frames
    scan["indexing_yield"] = scan["indexed"] / n_frames
    scan["merit"] = merit(scan, n_frames)
    ordered = scan.sort_values(["merit", "n_peaks"], ascending=[False, True], kind="stable")
    return make_table(SCAN, {name: ordered[name].to_numpy() for name in SCAN.column_names()})


def merit(scan: pd.DataFrame, n_frames: int) -> "pd.Series[float]":
    """Return how good each setting of a scan (columns ``indexed``, ``explained``, ``n_peaks``) is.

    Of settings that index as many frames the best balances what is explained with what is found (F1 of the share of the
    peaks found that are explained, and of the most explained by any setting): the most explained alone would choose
    the setting with most noise, and make hits of blank frames.
    """
    found = scan["n_peaks"] + max(scan["explained"].max(), 1)
    merits: pd.Series[float] = scan["indexed"] / n_frames + 1e-3 * 2.0 * scan["explained"] / found
    return merits


def _grid_of(params: ScanStageParams, frames: FrameArray, bad_pixels: BoolArray) -> ScanParams:
    """Return the grid, with thresholds from the frames' background unless some are given."""
    grid = ScanParams(**ScanParams.own(params.to_dict()))
    if grid.threshold:
        return grid
    return replace(grid, threshold=background_thresholds(frames, bad_pixels, params.threshold_sigma))


def _result(
    output: Path, table: pd.DataFrame, scan: pd.DataFrame, key: str, *, in_use: Peakfinder8Params
) -> StageResult:
    best = best_setting(scan, "merit")
    names = ("threshold", "min_snr", "min_pix", "max_pix", "local_bg_radius")
    used = scan[np.all([scan[name] == getattr(in_use, name) for name in names], axis=0)].iloc[0]
    figures: dict[str, Any] = {
        "settings": len(table),
        "frames": int(table["frames"].iloc[0]),
        "best_indexing_yield": float(table["indexing_yield"].iloc[0]),
        "indexed": int(table["indexed"].iloc[0]),
        "explained": int(table["explained"].iloc[0]),
        "indexed_in_use": int(used["indexed"]),
        "explained_in_use": int(used["explained"]),
        **{f"best_{name}": getattr(best, name) for name in names},
        "line_for_experiment_yaml": "finder: {"
        + ", ".join(f"{n}: {getattr(best, n):g}" for n in names)
        + "}",
    }
    told = (
        f"the best setting indexes {figures['indexed']} of {figures['frames']} frames and explains "
        f"{figures['explained']} peaks; the one in use {figures['indexed_in_use']} and {figures['explained_in_use']}"
    )
    check = Check("something_indexes", figures["indexed"] > 0, told)
    plots = {"scan": plot_scan(table, title=key, in_use=(in_use.threshold, in_use.min_snr))}
    return StageResult(output, figures, {"finder_scan": output}, plots, (check,))
