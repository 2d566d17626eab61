"""How good labels are, told by simulated truth."""

from dataclasses import dataclass

import pandas as pd

from peaknet_pipeline.metrics import TruthParams, TruthScores, score_peaks
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import FitTable, FrameMatchTable


def score_labels(
    fits: FitTable,
    frame_matches: FrameMatchTable,
    truth: pd.DataFrame,
    *,
    params: TruthParams | None = None,
) -> TruthScores:
    """Compare a run's labelled reflections with the truth of the frames that were labelled.

    Parameters
    ----------
    fits, frame_matches : FitTable, FrameMatchTable
        From ``label_frames``; accepted fits are the labels.
    truth : DataFrame
        TRUTH_REFLECTIONS of the run.
    params : TruthParams, optional

    Returns
    -------
    TruthScores
        Precision over the labels, recall over the usable spots of at least ``min_snr``, the median distance
        of the fitted centre, per SNR band and per resolution shell. Frames that teach nothing count nowhere.

    """
    frames = frame_matches["frame"][frame_matches["selected"]]
    accepted = fits[fits["accepted"]].rename(columns={"centre_ss": "ss", "centre_fs": "fs"})
    return score_peaks(accepted, truth[truth["frame"].isin(frames)].reset_index(drop=True), params)


@dataclass(frozen=True)
class GateParams(Parameters):
    """When a run's labels are fit to teach."""

    min_labelled_share: float = parameter(
        0.2, meaning="least labelled frames / hits; below it the cell or the geometry is doubtful", ge=0, le=1
    )
    min_hits: int = parameter(10, meaning="fewer hits than this are not judged", ge=1)


@dataclass(frozen=True)
class Verdict:
    """Whether a run's labels may be used for training, and why."""

    passed: bool
    message: str


def judge_label_run(
    frame_matches: FrameMatchTable, *, n_hits: int, params: GateParams | None = None
) -> Verdict:
    """Say whether enough hits of a run were labelled to trust its cell and geometry.

    Parameters
    ----------
    frame_matches : FrameMatchTable
    n_hits : int
        Hits of the classical finder.
    params : GateParams, optional

    """
    params = params or GateParams()
    n_labelled = int(frame_matches["selected"].sum())
    told = f"{n_labelled} of {n_hits} hits labelled, {len(frame_matches)} with a lattice"
    if n_hits < params.min_hits:
        return Verdict(True, f"{told}: too few hits to judge")
    if n_labelled >= params.min_labelled_share * n_hits:
        return Verdict(True, told)
    reasons = frame_matches.loc[~frame_matches["selected"], "reason"].value_counts()
    why = "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
    advice = "Most hits have no usable lattice: check the unit cell, the geometry and the photon energy."
    return Verdict(False, f"{told}{f' ({why})' if why else ''}. {advice}")
