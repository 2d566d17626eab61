"""Which labelled runs train, validate and test: by run, never by frame, as neighbouring frames are alike."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.labels.exclusions import Exclusions
from peaknet_pipeline.labels.store import labels_digest, open_labels
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.schemas import SPLIT, SplitTable
from peaknet_pipeline.tables import empty_table, make_table
from peaknet_pipeline.types import IntArray

TRAIN, VALIDATE, TEST = "train", "validate", "test"
SUBSETS = (TRAIN, VALIDATE, TEST)
CLASSICAL, PEAKNET = "classical", "peaknet"
"""Whose peaks and lattices labels were made from."""


@dataclass(frozen=True)
class SplitParams(Parameters):
    """How the labelled runs are divided. Runs named outright come first; fractions divide the rest."""

    validation_runs: tuple[str, ...] = parameter((), meaning="runs that validate")
    test_runs: tuple[str, ...] = parameter(
        (), meaning="runs that test; training and threshold choice never see them"
    )
    validate_fraction: float = parameter(0.2, meaning="share of runs that validate, unless named", ge=0, le=1)
    test_fraction: float = parameter(0.2, meaning="share of runs that test, unless named", ge=0, le=1)
    min_peaks: int = parameter(1, meaning="least labelled reflections of a frame that is used", ge=0)
    min_train_frames: int = parameter(1, meaning="least frames to train on", ge=1)
    seed: int = parameter(0, meaning="seed of the division", ge=0)
    curated_frames: int = parameter(
        50, meaning="most curated frames that a training run adds to its own; 0 adds none", ge=0
    )


@dataclass(frozen=True)
class LabelledRun:
    """A run with a label file, and what curation found in it.

    Attributes
    ----------
    experiment, run : str
    path : Path
        Labels from the classical peaks and their lattices.
    curated : Path, optional
        Labels of the candidates from the neural peaks and their lattices.
    candidates : dict of int to str
        Frame → why curation picked it, the most useful first.

    """

    experiment: str
    run: str
    path: Path
    curated: Path | None = None
    candidates: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSet:
    """The split and what it was made from.

    Attributes
    ----------
    table : SplitTable
        One row per frame.
    manifest : dict
        ``hash``, per-run counts, subsets, content digests of the label files and everything excluded with its
        reason.

    """

    table: SplitTable
    manifest: dict[str, object]

    @property
    def hash(self) -> str:
        """Return the manifest hash: changes when any label, exclusion or subset changes."""
        return str(self.manifest["hash"])


def split_runs(
    runs: Sequence[LabelledRun],
    params: SplitParams | None = None,
    *,
    exclusions: Exclusions | None = None,
    refused: Mapping[str, str] | None = None,
    before: Mapping[str, str] | None = None,
) -> TrainingSet:
    """Divide labelled runs into train, validate and test.

    Curated frames come to the training runs only: what a network is judged by never comes from a network.

    Parameters
    ----------
    runs : sequence of LabelledRun
        Every run that has labels, in any order: the result doesn't depend on it.
    params : SplitParams, optional
    exclusions : Exclusions, optional
    refused : dict of str to str, optional
        Run → why its labels may not teach; only told.
    before : dict of str to str, optional
        Run → subset in the training set before. A run stays where it was, so that no network is ever judged on what an
        earlier one was taught.

    Raises
    ------
    LabelError
        No run is given, a named run does not exist, a run is named twice, or too few frames are left to train
        on.

    """
    params, exclusions = params or SplitParams(), exclusions or Exclusions({}, {})
    ordered = sorted(runs, key=lambda run: run.run)
    _check_runs(ordered, params, refused or {})
    usable = [run for run in ordered if run.run not in exclusions.runs]
    frames = {run.run: _usable_frames(run, params, exclusions) for run in usable}
    extra = {run.run: _curated_frames(run, params, exclusions) for run in usable}
    teaching = [key for key in frames if len(frames[key]) or len(extra[key])]
    subsets = assign_subsets(teaching, params, before=before)
    table = _join_frames(frames, extra, subsets)
    _check_training(table, ordered, params)
    return TrainingSet(table, _manifest(ordered, table, subsets, params, exclusions, refused or {}))


def _join_frames(
    frames: Mapping[str, pd.DataFrame], extra: Mapping[str, pd.DataFrame], subsets: Mapping[str, str]
) -> SplitTable:
    parts = []
    for key, subset in subsets.items():
        own = [frames[key], extra[key]] if subset == TRAIN else [frames[key]]
        parts += [part.assign(subset=subset) for part in own if len(part)]
    if not parts:
        return empty_table(SPLIT)
    table = pd.concat(parts, ignore_index=True).sort_values(["run", "frame"], ignore_index=True)
    return make_table(SPLIT, {name: table[name] for name in SPLIT.column_names()})


def assign_subsets(
    runs: Sequence[str], params: SplitParams, *, before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return run → subset. Unnamed runs stay where they were; new ones are dealt out by the fractions in a seeded order.

    At least one run always trains; with three runs or more and non-zero fractions each subset gets one.
    """
    named = dict.fromkeys(params.validation_runs, VALIDATE) | dict.fromkeys(params.test_runs, TEST)
    unnamed = [key for key in runs if key not in named]
    kept = {key: subset for key, subset in (before or {}).items() if key in unnamed}
    rest = sorted((key for key in unnamed if key not in kept), key=lambda key: _rank(key, params.seed))
    n_test = 0 if params.test_runs else _quota(params.test_fraction, len(unnamed), spare=2)
    n_validate = (
        0 if params.validation_runs else _quota(params.validate_fraction, len(unnamed) - n_test, spare=1)
    )
    have = list(kept.values())
    free = len(rest) if TRAIN in have else max(0, len(rest) - 1)
    n_test = min(max(0, n_test - have.count(TEST)), free)
    n_validate = min(max(0, n_validate - have.count(VALIDATE)), free - n_test)
    dealt = dict(kept)
    for position, key in enumerate(rest):
        dealt[key] = TEST if position < n_test else VALIDATE if position < n_test + n_validate else TRAIN
    together = named | dealt
    return {key: together[key] for key in runs}


def _quota(fraction: float, available: int, *, spare: int) -> int:
    """Return how many runs a fraction takes: at least one when it is wanted and ``spare`` others remain."""
    if fraction <= 0 or available <= spare:
        return 0
    return min(max(1, math.floor(fraction * available + 0.5)), available - spare)


def _rank(run: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{run}".encode()).hexdigest()


def _usable_frames(run: LabelledRun, params: SplitParams, exclusions: Exclusions) -> pd.DataFrame:
    with open_labels(run.path) as file:
        keep = exclusions.keeps(run.run, file.frames) & (file.n_peaks >= params.min_peaks)
        return _frame_rows(run, file.frames[keep], file.n_peaks[keep], CLASSICAL)


def _curated_frames(run: LabelledRun, params: SplitParams, exclusions: Exclusions) -> pd.DataFrame:
    """Return the most useful candidates that only the neural path labelled; the classical labels win where both exist."""
    if run.curated is None:
        return _frame_rows(run, np.empty(0, np.int64), np.empty(0, np.int64), PEAKNET)
    with open_labels(run.path) as own:
        labelled = own.frames[own.n_peaks >= params.min_peaks]
    with open_labels(run.curated) as file:
        keep = exclusions.keeps(run.run, file.frames) & (file.n_peaks >= params.min_peaks)
        keep &= ~np.isin(file.frames, labelled)
        n_peaks = dict(zip(file.frames[keep].tolist(), file.n_peaks[keep].tolist(), strict=True))
    picked = [frame for frame in run.candidates if frame in n_peaks][: params.curated_frames]
    frames = np.array(sorted(picked), dtype=np.int64)
    return _frame_rows(run, frames, np.array([n_peaks[int(f)] for f in frames], np.int64), PEAKNET)


def _frame_rows(run: LabelledRun, frames: IntArray, n_peaks: IntArray, labels: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "experiment": run.experiment,
            "run": run.run,
            "frame": frames,
            "n_peaks": n_peaks,
            "labels": labels,
            "curation": [run.candidates.get(int(frame), "") for frame in frames],
        }
    ).astype(dict.fromkeys(("experiment", "run", "labels", "curation"), object))


def _check_runs(runs: Sequence[LabelledRun], params: SplitParams, refused: Mapping[str, str]) -> None:
    keys = [run.run for run in runs]
    if not keys:
        told = "; ".join(f"{run}: {why}" for run, why in refused.items())
        raise LabelError(
            "no labelled run that may teach",
            where="training set",
            found=f"refused {told}" if told else None,
            remedy="Label at least one run first."
            if not told
            else "Mend what the checks name, and label again; peaknet diagnose KEY says why a run doesn't index.",
        )
    if len(set(keys)) < len(keys):
        raise LabelError("a run appears twice", where="training set", found=keys)
    unknown = sorted({*params.validation_runs, *params.test_runs} - {*keys, *refused})
    if unknown:
        raise LabelError("no such run", where="training set", expected=f"one of {keys}", found=unknown)
    both = sorted(set(params.validation_runs) & set(params.test_runs))
    if both:
        raise LabelError("runs both validate and test", where="training set", found=both)


def _check_training(table: SplitTable, runs: Sequence[LabelledRun], params: SplitParams) -> None:
    n_frames = int((table["subset"] == TRAIN).sum())
    if n_frames < params.min_train_frames:
        counts = table.groupby("run").size()
        per_run = ", ".join(f"{run.run} {counts.get(run.run, 0)}" for run in runs)
        raise LabelError(
            "too few labelled frames to train on",
            where="training set",
            expected=f"at least {params.min_train_frames}",
            found=f"{n_frames} (usable frames per run: {per_run})",
            remedy="Look at the frame_matches tables: a wrong cell or geometry leaves most frames without a "
            "lattice.",
        )


def _manifest(
    runs: Sequence[LabelledRun],
    table: SplitTable,
    subsets: dict[str, str],
    params: SplitParams,
    exclusions: Exclusions,
    refused: Mapping[str, str],
) -> dict[str, object]:
    known = {run.run for run in runs}
    named = dict.fromkeys(params.validation_runs, VALIDATE) | dict.fromkeys(params.test_runs, TEST)
    added = table[table["labels"] == PEAKNET].groupby("run").size()
    counts = table.groupby("run").agg(frames=("frame", "size"), peaks=("n_peaks", "sum"))
    entries = {
        run.run: {
            "experiment": run.experiment,
            "subset": (named | subsets).get(run.run, "unused"),
            "frames": int(counts["frames"].get(run.run, 0)),
            "peaks": int(counts["peaks"].get(run.run, 0)),
            "labels": labels_digest(run.path),
            "curated_frames": int(added.get(run.run, 0)),
            "curated_labels": labels_digest(run.curated) if run.curated is not None else None,
        }
        for run in runs
    }
    body: dict[str, object] = {
        "runs": entries,
        "parameters": params.to_dict(),
        "refused_runs": dict(refused),
        "excluded_runs": exclusions.runs,
        "excluded_frames": {run: [list(entry) for entry in e] for run, e in exclusions.frames.items()},
        "exclusions_without_run": sorted({*exclusions.runs, *exclusions.frames} - known),
    }
    text = json.dumps(body, sort_keys=True, default=list)
    return {**json.loads(text), "hash": hashlib.sha256(text.encode()).hexdigest()[:16]}
