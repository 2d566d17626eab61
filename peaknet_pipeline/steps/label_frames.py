"""Peak matching for one run: found peaks and predicted reflections → pairs → fits → label maps."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, flag_unusable
from peaknet_pipeline.labels.rasterize import Positions, RasterParams, find_saturated, rasterize_labels
from peaknet_pipeline.labels.store import LabelWriter, write_labels_to
from peaknet_pipeline.peaks.fit import fit_patches
from peaknet_pipeline.peaks.fit_lmfit import FitAudit, audit_fits
from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.fit_patches import Patches, concatenate_patches, cut_patches
from peaknet_pipeline.peaks.fit_table import fits_table, profile_values
from peaknet_pipeline.peaks.match import MatchParams, is_labelled_reflection, match_peaks
from peaknet_pipeline.schemas import FITS, FitTable, FrameMatchTable, MatchTable, PeakTable, ReflectionTable
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import BoolArray, FrameArray

FRAMES_AT_ONCE = 16
"""Frames held in memory while their reflections are fitted together."""


@dataclass(frozen=True)
class LabelRun:
    """What labelling a run produced, besides the label file.

    Attributes
    ----------
    fits, matches, frame_matches : DataFrame
        Tables of those schemas.
    n_frames, n_peaks, n_ignored : int
        Labelled frames, labelled reflections, reflections that became ignore.
    audit : FitAudit or None
        Agreement of a random sample with lmfit; None when nothing was fitted or no sample was wanted.

    """

    fits: FitTable
    matches: MatchTable
    frame_matches: FrameMatchTable
    n_frames: int
    n_peaks: int
    n_ignored: int
    audit: FitAudit | None


@dataclass(frozen=True)
class _Detector:
    bad_pixels: BoolArray
    adu_per_photon: npt.ArrayLike
    saturation_adu: float | None
    usable: UsableValues

    def left_out(self, image: FrameArray) -> BoolArray:
        """Return the pixels of one frame that are bad, not usable or saturated."""
        bad = self.bad_pixels
        for more in (flag_unusable(image, self.usable), find_saturated(image, self.saturation_adu)):
            bad = bad if more is None else bad | more
        return bad


def label_frames(
    read_frame: Callable[[int], FrameArray],
    peaks: PeakTable,
    reflections: ReflectionTable,
    path: Path,
    *,
    bad_pixels: BoolArray,
    adu_per_photon: npt.ArrayLike = 1.0,
    saturation_adu: float | None = None,
    usable: UsableValues = ALL_VALUES,
    match: MatchParams | None = None,
    fit: FitParams | None = None,
    raster: RasterParams | None = None,
    additions: Collection[int] = (),
    provenance: Mapping[str, str] | None = None,
    audit_sample: int = 50,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> LabelRun:
    """Label the frames of a run in which found and predicted peaks agree, and write the label file.

    Parameters
    ----------
    read_frame : callable
        Frame number → (n_panels, ss, fs), adu.
    peaks, reflections : PeakTable, ReflectionTable
        Found peaks and predicted (best integrated) reflections of the same run.
    path : Path
        Label file to write.
    bad_pixels : bool, (n_panels, ss, fs)
    adu_per_photon : array_like of float, () or (n_panels,)
    saturation_adu : float, optional
        Pixels at or above it become ignore and stay out of the fits.
    usable : UsableValues
        Pixels of other values likewise.
    match, fit, raster : parameter sets
    additions : collection of int
        Frames to label whatever their match looks like, because somebody looked at them; they still need a
        lattice.
    provenance : mapping of str
        Written into the label file.
    audit_sample : int
        Fits compared with lmfit; 0 leaves the audit out.
    seed : int
        Of the audit's sample.
    progress : callable, optional
        Called with the number of frames done since the last call.

    Returns
    -------
    LabelRun
        With empty tables and a label file without frames when no frame is good enough: a run may teach
        nothing, and ``labels.split`` refuses a training set in which no run teaches anything.

    """
    match, fit, raster = match or MatchParams(), fit or FitParams(), raster or RasterParams()
    matches, frame_matches = match_peaks(peaks, reflections, params=match)
    frame_matches = _add_frames(frame_matches, additions)
    chosen = frame_matches["frame"].to_numpy(np.int64)[frame_matches["selected"].to_numpy(bool)]
    plan = _plan_reflections(peaks, reflections, matches, chosen, match)
    detector = _Detector(bad_pixels, adu_per_photon, saturation_adu, usable)
    fits: list[FitTable] = []
    kept: list[Patches] = []
    sample = np.random.default_rng(seed).permutation(plan.labelled.index.to_numpy(copy=True))[:audit_sample]
    with write_labels_to(path, _stack_shape(bad_pixels), provenance=provenance or {}) as writer:
        for block in _blocks(chosen):
            images = {int(frame): read_frame(int(frame)) for frame in block}
            table, patches, rows = _fit_block(images, plan, detector, fit)
            fits.append(table)
            kept.append(patches.take(np.flatnonzero(np.isin(rows, sample))))
            _write_block(writer, images, table, plan, detector, raster)
            if progress is not None:
                progress(len(block))
    return _summarize(fits, matches, frame_matches, len(chosen), kept, fit, audit_sample)


def _add_frames(frame_matches: FrameMatchTable, additions: Collection[int]) -> FrameMatchTable:
    """Select the added frames too, and say so beside the reason for which they would have been left out."""
    added = frame_matches["frame"].isin(list(additions)) & ~frame_matches["selected"]
    reason = frame_matches["reason"].where(~added, "added in spite of: " + frame_matches["reason"])
    return frame_matches.assign(selected=frame_matches["selected"] | added, reason=reason)


@dataclass(frozen=True)
class _Plan:
    """Reflections to fit (where they are expected), weak ones, and peaks that nothing predicts."""

    labelled: pd.DataFrame
    weak: pd.DataFrame
    unpredicted: pd.DataFrame


def _plan_reflections(
    peaks: PeakTable,
    reflections: ReflectionTable,
    matches: MatchTable,
    chosen: npt.NDArray[np.int64],
    match: MatchParams,
) -> _Plan:
    """Sort the selected frames' positions; a matched reflection is expected where its peak was found."""
    strong = is_labelled_reflection(reflections, min_snr=match.min_snr)
    placed = reflections.reset_index(drop=True)
    rows, found = matches["reflection"].to_numpy(), matches["peak"].to_numpy()
    for axis in ("fs", "ss"):
        values = placed[axis].to_numpy(copy=True)
        values[rows] = peaks[axis].to_numpy()[found]
        placed[axis] = values
    use = placed["frame"].isin(chosen).to_numpy()
    alone = np.ones(len(peaks), dtype=np.bool_)
    alone[found] = False
    alone &= peaks["frame"].isin(chosen).to_numpy()
    return _Plan(placed[use & strong], placed[use & ~strong], peaks[alone])


def _fit_block(
    images: Mapping[int, FrameArray], plan: _Plan, detector: _Detector, params: FitParams
) -> tuple[FitTable, Patches, npt.NDArray[np.int64]]:
    """Fit a few frames' labelled reflections together; return their rows in the reflection table too."""
    tables, parts = [], []
    for frame, image in images.items():
        rows = plan.labelled[plan.labelled["frame"] == frame]
        parts.append(
            cut_patches(
                image,
                rows["panel"],
                rows["fs"],
                rows["ss"],
                bad_pixels=detector.left_out(image),
                half_size=params.half_size,
                adu_per_photon=detector.adu_per_photon,
            )
        )
        tables.append(rows)
    patches = concatenate_patches(parts)
    fitted = pd.concat(tables)
    table = fits_table(fitted, patches, fit_patches(patches, params))
    return table, patches, fitted.index.to_numpy(np.int64)


def _write_block(
    writer: LabelWriter,
    images: Mapping[int, FrameArray],
    fits: FitTable,
    plan: _Plan,
    detector: _Detector,
    raster: RasterParams,
) -> None:
    expected = plan.labelled[plan.labelled["frame"].isin(list(images))].reset_index(drop=True)
    for frame, image in images.items():
        rows = (fits["frame"] == frame).to_numpy()
        accepted = rows & fits["accepted"].to_numpy()
        doubtful = (
            _positions(expected[rows & ~accepted], raster.ignore_radius),
            _positions(plan.unpredicted[plan.unpredicted["frame"] == frame], raster.ignore_radius),
            _positions(plan.weak[plan.weak["frame"] == frame], raster.weak_radius),
        )
        labels = rasterize_labels(
            _stack_shape(detector.bad_pixels),
            fits["panel"].to_numpy()[accepted],
            profile_values(fits[accepted]),
            ignore=doubtful,
            bad_pixels=detector.left_out(image),
        )
        writer.append(frame, labels, int(accepted.sum()))


def _positions(table: pd.DataFrame, radius: float) -> Positions:
    return Positions(
        table["panel"].to_numpy(np.int64),
        table["ss"].to_numpy(np.float64),
        table["fs"].to_numpy(np.float64),
        radius,
    )


def _blocks(frames: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        yield frames[start : start + FRAMES_AT_ONCE]


def _stack_shape(bad_pixels: BoolArray) -> tuple[int, int, int]:
    n_panels, n_ss, n_fs = bad_pixels.shape
    return n_panels, n_ss, n_fs


def _summarize(
    fits: list[FitTable],
    matches: MatchTable,
    frame_matches: FrameMatchTable,
    n_frames: int,
    kept: list[Patches],
    params: FitParams,
    audit_sample: int,
) -> LabelRun:
    table = pd.concat(fits, ignore_index=True) if fits else empty_table(FITS)
    n_accepted = int(table["accepted"].sum())
    sample = concatenate_patches(kept) if kept else None
    audit = audit_fits(sample, params, n_sample=audit_sample) if sample is not None and len(sample) else None
    return LabelRun(table, matches, frame_matches, n_frames, n_accepted, len(table) - n_accepted, audit)
