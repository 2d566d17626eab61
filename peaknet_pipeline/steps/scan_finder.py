"""Settings of peakfinder8 scored by what they index in a sample of a run's frames."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.distance import select_frames
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.geometry.usable import UsableValues
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.repeats import find_repeats
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.peaks.scan import (
    ScanParams,
    ScanStageParams,
    background_thresholds,
    best_setting,
    parameter_grid,
    scan_parameters,
)
from peaknet_pipeline.runs.rings import RingParams, drop_ring_peaks
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.sample import read_frames, sample_frames
from peaknet_pipeline.schemas import SCAN, IndexTable, PeakTable
from peaknet_pipeline.steps.peak_tables import add_resolution
from peaknet_pipeline.steps.progress import Progress
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import BoolArray, FrameArray, IntArray, UnitCell

CROWDED = 1500
"""Mean peaks per frame from which on a setting is hopeless and isn't indexed; strong crystals reach a thousand."""

HIT_SIGMA, HIT_SNR, HIT_PEAKS = 8.0, 4.0, 10
"""Threshold above the background, SNR and least peaks by which likely hits are picked: a sensitive setting, so that weak
hits, which tuning is about, are among them."""

OTHER_SHARE = 4
"""One frame in so many that are tried is none of the likely hits: blank frames tell how much noise a setting finds."""

SCANNED = ("threshold", "min_snr", "min_pix", "max_pix", "local_bg_radius")
"""Parameters of peakfinder8 that a scan varies."""

FRAMES_AT_ONCE = 16
"""Frames held in memory while hits are looked for."""


def choose_frames(
    run: Run, bad_pixels: BoolArray, params: ScanStageParams, base: Peakfinder8Params
) -> IntArray:
    """Return the frames that settings are tried on: likely hits, which tell what a setting indexes, and some others.

    All frames of a run of no more than ``params.frames``. Others fill up where there are fewer hits, and hits where there
    are fewer others.
    """
    if run.n_frames <= params.frames:
        return sample_frames(run.n_frames, run.n_frames)
    searched = sample_frames(run.n_frames, params.searched)
    some = read_frames(run, sample_frames(run.n_frames, min(params.frames, FRAMES_AT_ONCE)))
    (threshold,) = background_thresholds(some, bad_pixels, (HIT_SIGMA,), usable=run.usable)
    setting = replace(base, threshold=threshold, min_snr=HIT_SNR)
    geometry = geometry_of(run)
    finder = Peakfinder8(pixel_radius(geometry), bad_pixels, setting, usable=run.usable)
    parts = []
    for part in np.array_split(searched, -(-len(searched) // FRAMES_AT_ONCE)):
        found = finder.find(read_frames(run, part))
        parts.append(found.assign(frame=part[found["frame"].to_numpy(np.int64)]))
    peaks = pd.concat(parts, ignore_index=True)
    repeats = find_repeats(peaks, min_frames=max(3, len(searched) // 4), min_fraction=0.25)
    hits = hit_frames(peaks[~repeats], min_peaks=HIT_PEAKS)
    others = np.setdiff1d(searched, hits)
    n_hits = min(len(hits), params.frames - min(len(others), params.frames // OTHER_SHARE))
    parts_chosen = (
        part[sample_frames(len(part), n)]
        for part, n in ((hits, n_hits), (others, params.frames - n_hits))
        if n
    )
    return np.sort(np.concatenate(list(parts_chosen))).astype(np.int64)


def scan_frames(
    run: Run,
    chosen: IntArray,
    cell: UnitCell,
    params: ScanStageParams,
    *,
    base: Peakfinder8Params,
    index: IndexParams,
    bad_pixels: BoolArray,
    rings: RingParams,
    progress: Progress,
) -> pd.DataFrame:
    """Try every setting of the grid, and the one in use (``base``), on some frames of a run; one row per setting.

    Each setting's peaks are indexed: its row tells the frames ``indexed`` and the peaks ``explained``. Peaks on ``rings``
    don't count.
    """
    frames, energy, tried = read_frames(run, chosen), run.photon_energy_ev[chosen], 0
    geometry = select_frames(geometry_of(run), chosen)
    grid = parameter_grid(grid_of(params, frames, bad_pixels, run.usable), base)
    grid += [] if base in grid else [base]
    scored = index_scorer(
        lambda peaks: index_peaks(peaks, geometry=geometry, photon_energy_ev=energy, cell=cell, params=index),
        len(chosen),
    )

    def score(peaks: PeakTable, setting: Peakfinder8Params) -> dict[str, float]:
        nonlocal tried
        tried += 1
        progress(tried, len(grid))
        return scored(drop_ring_peaks(add_resolution(peaks, geometry, energy), rings))

    return scan_parameters(
        frames,
        radius=pixel_radius(geometry),
        bad_pixels=bad_pixels,
        grid=grid,
        score=score,
        usable=run.usable,
    )


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


def best_figures(table: pd.DataFrame, scan: pd.DataFrame, *, in_use: Peakfinder8Params) -> dict[str, Any]:
    """Return what the best setting of a scan indexes, beside the one in use, and the line that sets it.

    Parameters
    ----------
    table : as :func:`scan_table` gives it
    scan : as :func:`scan_frames` gives it, with the column ``merit`` that :func:`scan_table` adds
    in_use : Peakfinder8Params

    """
    best = best_setting(scan, "merit")
    used = scan[np.all([scan[name] == getattr(in_use, name) for name in SCANNED], axis=0)].iloc[0]
    line = ", ".join(f"{name}: {getattr(best, name):g}" for name in SCANNED)
    return {
        "settings": len(table),
        "frames": int(table["frames"].iloc[0]),
        "best_indexing_yield": float(table["indexing_yield"].iloc[0]),
        "indexed": int(table["indexed"].iloc[0]),
        "explained": int(table["explained"].iloc[0]),
        "indexed_in_use": int(used["indexed"]),
        "explained_in_use": int(used["explained"]),
        **{f"best_{name}": getattr(best, name) for name in SCANNED},
        "line_for_experiment_yaml": f"finder: {{{line}}}",
    }


def merit(scan: pd.DataFrame, n_frames: int) -> "pd.Series[float]":
    """Return how good each setting of a scan (columns ``indexed``, ``explained``, ``n_peaks``) is.

    Of settings that index as many frames the best balances what is explained with what is found (F1 of the share of the
    peaks found that are explained, and of the most explained by any setting): the most explained alone would choose
    the setting with most noise, and make hits of blank frames.
    """
    found = scan["n_peaks"] + max(scan["explained"].max(), 1)
    merits: pd.Series[float] = scan["indexed"] / n_frames + 1e-3 * 2.0 * scan["explained"] / found
    return merits


def grid_of(
    params: ScanStageParams, frames: FrameArray, bad_pixels: BoolArray, usable: UsableValues
) -> ScanParams:
    """Return the grid, with thresholds from the frames' background unless some are given."""
    grid = ScanParams(**ScanParams.own(params.to_dict()))
    if grid.threshold:
        return grid
    thresholds = background_thresholds(frames, bad_pixels, params.threshold_sigma, usable=usable)
    return replace(grid, threshold=thresholds)
