"""Logits of whole frames to a PeakTable, on the CPU."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.found import PeakPixels
from peaknet_pipeline.infer.measure import LOGIT, N_COLUMNS, NEIGHBOUR, SIGMA, SNR, measure_panel
from peaknet_pipeline.infer.params import DecodeParams
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, FrameArray, IntArray

MEASURED = ("fs", "ss", "intensity", "max_intensity", "background", "sigma", "snr", "n_pixels")
"""Table columns in the order in which a peak is measured; the logit follows."""


def decode_frames(
    frames: FrameArray,
    logits: Float32Array,
    bad_pixels: BoolArray,
    *,
    threshold: float,
    params: DecodeParams | None = None,
    first_frame: int = 0,
    n_threads: int = 1,
) -> PeakTable:
    """Turn logit maps into peaks.

    Parameters
    ----------
    frames : (n, n_panels, ss, fs), any real dtype
        Raw values; non-finite ones count as bad.
    logits : (n, n_panels, ss, fs) float32
        Logit of "peak" per pixel.
    bad_pixels : (n_panels, ss, fs) or (n, n_panels, ss, fs) bool
        True = bad; bad pixels belong to no peak and no background.
    threshold : float
        Pixels whose probability reaches it belong to peaks; 8-connected ones are one peak.
    params : DecodeParams, optional
    first_frame : int
        Number of the first frame.
    n_threads : int
        Threads over the panels.

    Returns
    -------
    PeakTable
        By frame, panel and first pixel in raster order. Intensities are sums over the peak's pixels above the
        mean of the surrounding disc, other peaks left out; ``inv_d`` is NaN.

    Raises
    ------
    StreamError
        Shapes that do not fit.

    """
    params = params or DecodeParams()
    check_shapes(frames.shape, logits.shape, bad_pixels.shape)
    bad = np.broadcast_to(bad_pixels, frames.shape)
    cut = logit_of(threshold)
    limits = (params.min_pix, params.max_pix, params.background_radius, params.guard, params.split_distance)
    jobs = [(frame, panel) for frame in range(frames.shape[0]) for panel in range(frames.shape[1])]

    def measure(job: tuple[int, int]) -> Float64Array:
        return np.asarray(measure_panel(_native(frames[job]), logits[job], bad[job], cut, limits))

    if n_threads > 1 and len(jobs) > 1:
        with ThreadPoolExecutor(n_threads) as pool:
            measured = list(pool.map(measure, jobs))
    else:
        measured = [measure(job) for job in jobs]
    counts = [len(peaks) for peaks in measured]
    owners = np.repeat(np.asarray(jobs, dtype=np.int64).reshape(-1, 2), counts, axis=0)
    return table_of(
        owners, np.concatenate(measured) if measured else np.empty((0, N_COLUMNS)), params, first_frame
    )


def peak_pixels(frames: FrameArray, logits: Float32Array, bad_pixels: BoolArray, cut: float) -> PeakPixels:
    """Return the pixels that :func:`decode_frames` counts to peaks: logits from ``cut`` on, neither bad nor infinite."""
    masks = (logits >= cut) & ~bad_pixels
    if frames.dtype.kind == "f":
        masks &= np.isfinite(frames)
    return PeakPixels.from_masks(masks)


def table_of(owners: IntArray, peaks: Float64Array, params: DecodeParams, first_frame: int) -> PeakTable:
    """Assemble measured peaks into a table, cut to ``min_snr``, ``min_neighbour`` and the best ``max_peaks`` of each frame.

    Parameters
    ----------
    owners : (n, 2) int64
        Frame (from 0 in the batch) and panel of each peak, sorted.
    peaks : (n, 10) float64
        See :mod:`peaknet_pipeline.infer.measure`.

    """
    keep = np.ones(len(peaks), dtype=bool)
    if params.min_snr > 0:
        # SNR is 0 by definition where the background shows no spread at all, as between few photons.
        keep &= (peaks[:, SNR] >= params.min_snr) | (peaks[:, SIGMA] == 0)
    if params.min_neighbour > 0:
        keep &= peaks[:, NEIGHBOUR] >= params.min_neighbour
    owners, peaks = owners[keep], peaks[keep]
    best = _best(owners[:, 0], peaks[:, LOGIT], params.max_peaks)
    owners, peaks = owners[best], peaks[best]
    if not len(peaks):
        return empty_table(PEAKS)
    columns: dict[str, object] = dict(zip(MEASURED, peaks.T, strict=False))
    columns["frame"], columns["panel"] = owners[:, 0] + first_frame, owners[:, 1]
    columns["score"] = probability_of(peaks[:, LOGIT])
    columns["inv_d"] = np.full(len(peaks), np.nan)
    # Built column by column in the declared dtypes: make_table's checks would cost more than the measuring.
    return pd.DataFrame(
        {c.name: np.asarray(columns[c.name]).astype(c.dtype) for c in PEAKS.columns}, copy=False
    )


def check_shapes(frames: tuple[int, ...], logits: tuple[int, ...], bad_pixels: tuple[int, ...]) -> None:
    """Raise StreamError unless frames, logits and mask fit each other."""
    if len(frames) != 4 or logits != frames or bad_pixels not in (frames, frames[1:]):
        raise StreamError(
            "frames, logits and bad pixels do not fit",
            expected="(n, n_panels, ss, fs) twice and (n_panels, ss, fs)",
            found=f"{frames}, {logits} and {bad_pixels}",
            remedy="Use the mask of the same detector.",
        )


def logit_of(threshold: float) -> float:
    """Return the logit of a probability strictly between 0 and 1; StreamError otherwise."""
    if not 0 < threshold < 1:
        raise StreamError("no usable threshold", expected="a probability between 0 and 1", found=threshold)
    return math.log(threshold) - math.log1p(-threshold)


def probability_of(logits: Float64Array) -> Float64Array:
    """Return the probability 1 / (1 + exp(−logit)) without overflow."""
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small))


def _native(panel: FrameArray) -> FrameArray:
    """Return the panel in a dtype that the compiled code reads: native byte order, no half precision."""
    if panel.dtype == np.float16 or panel.dtype.kind == "b":
        return panel.astype(np.float32)
    return panel if panel.dtype.isnative else panel.astype(panel.dtype.newbyteorder("="))


def _best(frames: IntArray, logits: Float64Array, limit: int) -> IntArray:
    """Return the rows, in order, of each frame's ``limit`` highest logits; the earlier row wins a tie."""
    rows = np.arange(len(frames))
    if len(rows) <= limit:
        return rows
    order = np.lexsort((rows, -logits, frames))
    first = np.searchsorted(frames[order], frames[order], side="left")
    return np.sort(order[rows - first < limit])
