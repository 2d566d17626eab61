"""How good labels are, told by simulated truth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from peaknet_pipeline.metrics import TruthParams, TruthScores, recall_table, score_peaks
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.schemas import LABEL_QUALITY, FitTable, FrameMatchTable, LabelQualityTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import Float64Array


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


def quality_table(fits: FitTable, scores: TruthScores) -> LabelQualityTable:
    """Tabulate labels against truth over all, per SNR band and per resolution shell.

    Recall counts true reflections by their expected SNR and 1/d; precision counts labels by their own I/σ
    and 1/d. Labels outside of the bands count in the nearest one.

    Parameters
    ----------
    fits : FitTable
        The run's fits; accepted ones are the labels.
    scores : TruthScores
        From :func:`score_labels` of these fits.

    """
    labels = fits[fits["accepted"].to_numpy(bool)]
    whole = pd.DataFrame(
        {
            "low": [np.nan],
            "high": [np.nan],
            "n_true": [scores.recall.whole],
            "n_found": [scores.recall.part],
            "recall": [scores.recall.value],
            "recall_low": [scores.recall.interval()[0]],
            "recall_high": [scores.recall.interval()[1]],
            "centre_error_px": [scores.centre_error_px],
        }
    )
    everything = np.array([-np.inf, np.inf])
    parts = [
        ("all", whole, np.zeros(len(labels)), everything),
        ("snr", scores.by_snr, labels["snr"].to_numpy(np.float64), _edges(scores.by_snr)),
        ("shell", scores.by_shell, labels["inv_d"].to_numpy(np.float64), _edges(scores.by_shell)),
    ]
    rows = [
        recall.assign(kind=kind, **_precision_columns(values, scores, edges))
        for kind, recall, values, edges in parts
    ]
    table = pd.concat(rows, ignore_index=True).replace(np.inf, np.nan)
    return make_table(LABEL_QUALITY, {name: table[name] for name in LABEL_QUALITY.column_names()})


def _edges(bands: pd.DataFrame) -> Float64Array:
    """Return the bands' limits, the outer ones moved out to catch everything."""
    inner = bands["low"].to_numpy(np.float64)[1:]
    return np.concatenate([[-np.inf], inner, [np.inf]])


def _precision_columns(
    values: Float64Array, scores: TruthScores, edges: Float64Array
) -> dict[str, Float64Array]:
    values = np.nan_to_num(values, nan=-1e30)
    bands = recall_table(values, scores.true_peaks, np.full(len(values), np.nan), tuple(edges))
    names = {
        "n_true": "n_labels",
        "n_found": "n_true_labels",
        "recall": "precision",
        "recall_low": "precision_low",
        "recall_high": "precision_high",
    }
    return {new: bands[old].to_numpy(np.float64) for old, new in names.items()}


@dataclass(frozen=True)
class QualityParams(Parameters):
    """What is asked of labels where the truth is known."""

    min_precision: float = parameter(0.98, meaning="least labels on true reflections / labels", ge=0, le=1)
    min_recall: float = parameter(0.95, meaning="least labelled / true reflections above 5σ", ge=0, le=1)
    max_centre_error: float = parameter(0.15, meaning="largest median centre error", unit="px", gt=0)


@dataclass(frozen=True)
class GateParams(Parameters):
    """When a run's labels are fit to teach."""

    min_labelled_share: float = parameter(
        0.2, meaning="least labelled frames / hits; below it the cell or the geometry is doubtful", ge=0, le=1
    )
    min_hits: int = parameter(4, meaning="fewer hits than this are not judged", ge=1)


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


def judge_quality(scores: TruthScores | None, params: QualityParams | None = None) -> Verdict:
    """Say whether a simulated run's labels are as true, complete and well centred as they ought to be."""
    params = params or QualityParams()
    if scores is None:
        return Verdict(True, "no truth to compare with: a real run")
    told = (
        f"precision {scores.precision.value:.3f} of {scores.precision.whole} labels, recall "
        f"{scores.recall.value:.3f} of {scores.recall.whole} reflections above 5σ, median centre error "
        f"{scores.centre_error_px:.3f} px"
    )
    if not scores.recall.whole or not scores.precision.whole:
        return Verdict(True, "no frame was labelled")
    good = scores.precision.value >= params.min_precision and scores.recall.value >= params.min_recall
    return Verdict(good and scores.centre_error_px <= params.max_centre_error, told)
