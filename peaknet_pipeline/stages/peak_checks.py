"""Figures, plot and checks of a table of found peaks, by whichever finder."""

from pathlib import Path

import numpy as np

from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.plots.distributions import plot_peaks
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.steps.peak_tables import nothing_found
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.types import Geometry


def peak_result(
    output: Path,
    peaks: PeakTable,
    geometry: Geometry,
    *,
    n_frames: int,
    seconds: float,
    title: str,
    min_peaks: int,
) -> StageResult:
    """Return a finder's output with its figures, plot and checks; a hit has at least ``min_peaks`` that count."""
    counts = np.bincount(peaks["frame"].to_numpy(), minlength=n_frames)
    figures = {
        "frames": n_frames,
        "peaks": len(peaks),
        "hits": len(hit_frames(peaks, min_peaks=min_peaks)),
        "mean_peaks_per_frame": float(counts.mean()),
        "frames_per_second": n_frames / max(seconds, 1e-9),
        "seconds": seconds,
    }
    checks = (inside_panels(peaks, geometry), finite_intensities(peaks), some_peaks(peaks, n_frames))
    return StageResult(
        output,
        figures,
        {"peaks": output},
        {"peaks_per_frame": plot_peaks(peaks, n_frames, title=title)},
        checks,
    )


def inside_panels(peaks: PeakTable, geometry: Geometry) -> Check:
    """Check that every peak lies on a panel."""
    n_panels, n_ss, n_fs = geometry.stack_shape
    inside = peaks["panel"].between(0, n_panels - 1)
    inside &= peaks["ss"].between(-0.5, n_ss - 0.5) & peaks["fs"].between(-0.5, n_fs - 0.5)
    outside = int((~inside).sum())
    return Check("inside_panels", outside == 0, f"{outside} of {len(peaks)} peaks lie off their panel")


def some_peaks(peaks: PeakTable, n_frames: int) -> Check:
    """Check that a run gives any peak at all; a blank run may fail it."""
    told = f"{len(peaks)} peaks in {n_frames} frames" if len(peaks) else nothing_found(n_frames)
    return Check("some_peaks", len(peaks) > 0, told)


def finite_intensities(peaks: PeakTable) -> Check:
    """Check that every intensity is a number above zero."""
    bad = int((~(np.isfinite(peaks["intensity"]) & (peaks["intensity"] > 0))).sum())
    return Check("finite_intensities", bad == 0, f"{bad} of {len(peaks)} peaks without a positive intensity")
