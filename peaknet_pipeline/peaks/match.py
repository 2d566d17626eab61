"""Found peaks against predicted reflections: which belong together, which frames are good enough to teach."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from peaknet_pipeline.pairing import Pairs, match_points
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.schemas import (
    FRAME_MATCHES,
    MATCHES,
    PEAKS,
    REFLECTIONS,
    FrameMatchTable,
    MatchTable,
    PeakTable,
    ReflectionTable,
)
from peaknet_pipeline.tables import check_table, make_table
from peaknet_pipeline.types import BoolArray, Float64Array, IntArray

__all__ = ["MatchParams", "Pairs", "is_labelled_reflection", "match_peaks", "match_points"]


@dataclass(frozen=True)
class MatchParams(Parameters):
    """How found peaks and predicted reflections are paired, and which frames are selected for teaching."""

    max_distance: float = parameter(5.0, meaning="largest distance of a pair", unit="px", gt=0)
    min_snr: float = parameter(0.2, meaning="least I/σ of a reflection that gets a label", ge=0)
    min_matched: int = parameter(8, meaning="least pairs of a selected frame", ge=1)
    min_precision: float = parameter(0.5, meaning="least share of found peaks that are paired", ge=0, le=1)
    min_recall: float = parameter(
        0.0, meaning="least share of labelled reflections that are paired", ge=0, le=1
    )


def is_labelled_reflection(reflections: ReflectionTable, *, min_snr: float) -> BoolArray:
    """Return which reflections are strong enough to be labelled; not yet integrated (NaN) counts as strong.

    Parameters
    ----------
    reflections : ReflectionTable
        Predicted reflections.
    min_snr : float
        Least I/σ.

    """
    intensity = reflections["intensity"].to_numpy(np.float64)
    sigma = reflections["sigma"].to_numpy(np.float64)
    return np.asarray(np.isnan(intensity) | np.isnan(sigma) | (intensity >= min_snr * sigma))


def match_peaks(
    peaks: PeakTable, reflections: ReflectionTable, *, params: MatchParams | None = None
) -> tuple[MatchTable, FrameMatchTable]:
    """Pair found peaks and predicted reflections one to one in every frame, and select the frames that agree.

    Parameters
    ----------
    peaks, reflections : PeakTable, ReflectionTable
        Of the same run. Reflections weaker than ``min_snr`` are not paired and do not count: a weak
        prediction that happens to lie nearer would otherwise take another's peak.
    params : MatchParams, optional
        Distance and selection limits.

    Returns
    -------
    matches : MatchTable
        ``peak`` and ``reflection`` are row positions in the two tables.
    frame_matches : FrameMatchTable
        One row per frame with a reflection, with the reason why it was selected or left out.

    Raises
    ------
    TableError
        A table does not follow its schema.

    """
    params = params or MatchParams()
    check_table(peaks, PEAKS)
    check_table(reflections, REFLECTIONS)
    rows = np.flatnonzero(is_labelled_reflection(reflections, min_snr=params.min_snr))
    strong = reflections.iloc[rows]
    pairs = match_points(
        _frame_panel_key(peaks),
        peaks["fs"],
        peaks["ss"],
        _frame_panel_key(strong),
        strong["fs"],
        strong["ss"],
        max_distance=params.max_distance,
    )
    frame = peaks["frame"].to_numpy()[pairs.a]
    matches = make_table(
        MATCHES, {"frame": frame, "peak": pairs.a, "reflection": rows[pairs.b], "distance": pairs.distance}
    )
    frames = np.unique(reflections["frame"].to_numpy(np.int64))
    return matches, _judge_frames(frames, peaks=peaks, strong=strong, matched=frame, params=params)


def _frame_panel_key(table: pd.DataFrame) -> IntArray:
    return np.asarray(table["frame"], dtype=np.int64) * 4096 + np.asarray(table["panel"], dtype=np.int64)


def _judge_frames(
    frames: IntArray, *, peaks: PeakTable, strong: ReflectionTable, matched: IntArray, params: MatchParams
) -> FrameMatchTable:
    n_peaks = _count_in(peaks["frame"].to_numpy(np.int64), frames)
    n_reflections = _count_in(strong["frame"].to_numpy(np.int64), frames)
    n_matched = _count_in(matched, frames)
    precision, recall = _ratio(n_matched, n_peaks), _ratio(n_matched, n_reflections)
    reason = _reasons(n_matched, precision, recall, params)
    return make_table(
        FRAME_MATCHES,
        {
            "frame": frames,
            "n_peaks": n_peaks,
            "n_reflections": n_reflections,
            "n_matched": n_matched,
            "precision": precision,
            "recall": recall,
            "selected": reason == "selected",
            "reason": reason,
        },
    )


def _count_in(values: IntArray, frames: IntArray) -> IntArray:
    if not len(frames):
        return np.empty(0, np.int64)
    counts = np.bincount(values[np.isin(values, frames)], minlength=int(frames.max()) + 1)
    return counts[frames].astype(np.int64)


def _ratio(part: IntArray, whole: IntArray) -> Float64Array:
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _reasons(
    n_matched: IntArray,
    precision: Float64Array,
    recall: Float64Array,
    params: MatchParams,
) -> npt.NDArray[np.object_]:
    """Name the first limit that each frame misses, or ``selected``."""
    reason = np.full(len(n_matched), "selected", dtype=object)
    limits = (
        (recall < params.min_recall, f"recall below {params.min_recall:g}"),
        (precision < params.min_precision, f"precision below {params.min_precision:g}"),
        (n_matched < params.min_matched, f"fewer than {params.min_matched} pairs"),
    )
    for missed, text in limits:
        reason[missed] = text
    return reason
