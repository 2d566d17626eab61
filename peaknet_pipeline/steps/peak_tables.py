"""Peak tables of whole runs: joined, with resolutions, and with what they say of their origin."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.maps import peak_inv_d, peak_positions_m
from peaknet_pipeline.runs.masks import MOST
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.steps.peak_record import exposure_record
from peaknet_pipeline.tables import empty_table, make_table
from peaknet_pipeline.types import Float64Array, Geometry


def join_peaks(parts: Sequence[PeakTable]) -> PeakTable:
    """Join peak tables of successive frames."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else empty_table(PEAKS)


def add_resolution(peaks: PeakTable, geometry: Geometry, photon_energy_ev: Float64Array) -> PeakTable:
    """Return the peaks with 1/d from the camera length and photon energy of each frame; NaN where these are unknown."""
    frames = peaks["frame"].to_numpy(dtype=np.int64)
    inv_d = np.full(len(peaks), np.nan)
    if len(frames) and knows_distance(geometry):
        panel, fs, ss = (peaks[name].to_numpy() for name in ("panel", "fs", "ss"))
        inv_d = peak_inv_d(geometry, panel, fs, ss, photon_energy_ev[frames], frames)
    return make_table(PEAKS, {**{name: peaks[name] for name in PEAKS.column_names()}, "inv_d": inv_d})


def positions_px(table: pd.DataFrame, geometry: Geometry) -> Float64Array:
    """Return where peaks or reflections lie in the laboratory, x and y, (n, 2), in pixels of the first panel."""
    place = (table[name].to_numpy() for name in ("panel", "fs", "ss"))
    positions: Float64Array = peak_positions_m(geometry, *place)[:, :2] / geometry.panels[0].pixel_size_m
    return positions


def peak_metadata(run: Run, *, finder: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return what a peak table's file says about its origin; indexing reads photon energy and camera length from there."""
    return {
        "source": str(run.info.path),
        "n_frames": str(run.n_frames),
        **exposure_record(run),
        "finder": finder,
        "parameters": json.dumps(dict(parameters), default=str),
    }


def nothing_found(n_frames: int, bad_share: float | None = None) -> str:
    """Return what to tell where a whole run has no peak: what may be the cause, and what to look at."""
    masked = "" if bad_share is None else f" {bad_share:.0%} of the pixels are masked."
    if bad_share is not None and bad_share > MOST:
        masked += " Does a mask call good pixels bad?"
    return (
        f"None of {n_frames} frames has a peak.{masked} `peaknet inspect` shows the frames' values, which the "
        "finder's thresholds must be below; a run without crystals has no peaks either."
    )
