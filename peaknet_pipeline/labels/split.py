"""Which labelled runs train, validate and test: by run, never by frame, as neighbouring frames are alike."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.labels.store import labels_digest, open_labels
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.tables import empty_table, make_table
from peaknet_pipeline.types import SPLIT, BoolArray, IntArray, SplitTable

TRAIN, VALIDATE, TEST = "train", "validate", "test"
SUBSETS = (TRAIN, VALIDATE, TEST)


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


@dataclass(frozen=True)
class LabelledRun:
    """A run with a label file."""

    experiment: str
    run: str
    path: Path


@dataclass(frozen=True)
class Exclusions:
    """Runs and frames that a user named, to take them out (or, in a list of additions, in).

    Attributes
    ----------
    runs : dict of str to str
        Run key → reason.
    frames : dict of str to list of (first, last, reason)
        Run key → frame ranges, inclusive.

    """

    runs: dict[str, str]
    frames: dict[str, list[tuple[int, int, str]]]

    def keeps(self, run: str, frames: IntArray) -> BoolArray:
        """Return which frames of a run remain."""
        keep = np.full(len(frames), run not in self.runs)
        for first, last, _ in self.frames.get(run, []):
            keep &= (frames < first) | (frames > last)
        return keep


def parse_exclusions(text: str, *, where: str = "exclusions") -> Exclusions:
    """Read exclusions, one per line: ``RUN``, ``RUN FRAME`` or ``RUN FIRST-LAST``, then ``# reason``.

    Raises
    ------
    LabelError
        Naming the first line that is none of these.

    """
    runs: dict[str, str] = {}
    frames: dict[str, list[tuple[int, int, str]]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry, _, reason = (part.strip() for part in line.partition("#"))
        words = entry.split()
        if not words:
            continue
        if len(words) == 1:
            runs[words[0]] = reason
            continue
        first, _, last = words[1].partition("-")
        if len(words) > 2 or not first.isdecimal() or (last and not last.isdecimal()):
            raise LabelError(
                "not an exclusion",
                where=f"{where}, line {number}",
                expected="RUN, RUN FRAME or RUN FIRST-LAST, then # reason",
                found=repr(line),
            )
        frames.setdefault(words[0], []).append((int(first), int(last or first), reason))
    return Exclusions(runs, frames)


def read_exclusions(path: Path | None) -> Exclusions:
    """Read an exclusions file; no path or no file means nothing is excluded."""
    if path is None or not path.is_file():
        return Exclusions({}, {})
    return parse_exclusions(path.read_text(encoding="utf-8"), where=str(path))


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
    runs: Sequence[LabelledRun], params: SplitParams | None = None, *, exclusions: Exclusions | None = None
) -> TrainingSet:
    """Divide labelled runs into train, validate and test.

    Parameters
    ----------
    runs : sequence of LabelledRun
        Every run that has labels, in any order: the result doesn't depend on it.
    params : SplitParams, optional
    exclusions : Exclusions, optional

    Raises
    ------
    LabelError
        No run is given, a named run does not exist, a run is named twice, or too few frames are left to train
        on.

    """
    params, exclusions = params or SplitParams(), exclusions or Exclusions({}, {})
    ordered = sorted(runs, key=lambda run: run.run)
    _check_runs(ordered, params)
    usable = [run for run in ordered if run.run not in exclusions.runs]
    frames = {run.run: _usable_frames(run, params, exclusions) for run in usable}
    teaching = [run.run for run in usable if len(frames[run.run])]
    subsets = assign_subsets(teaching, params)
    tables = [frames[key].assign(subset=subsets[key]) for key in teaching]
    table = pd.concat(tables, ignore_index=True) if tables else empty_table(SPLIT)
    table = make_table(SPLIT, {name: table[name] for name in SPLIT.column_names()})
    _check_training(table, ordered, params)
    return TrainingSet(table, _manifest(ordered, table, subsets, params, exclusions))


def assign_subsets(runs: Sequence[str], params: SplitParams) -> dict[str, str]:
    """Return run → subset. Unnamed runs are ordered by a seeded hash and dealt out by the fractions.

    At least one run always trains; with three runs or more and non-zero fractions each subset gets one.
    """
    named = dict.fromkeys(params.validation_runs, VALIDATE) | dict.fromkeys(params.test_runs, TEST)
    subsets = {key: named[key] for key in runs if key in named}
    rest = sorted((key for key in runs if key not in named), key=lambda key: _rank(key, params.seed))
    n_test = 0 if params.test_runs else _quota(params.test_fraction, len(rest), spare=2)
    n_validate = (
        0 if params.validation_runs else _quota(params.validate_fraction, len(rest) - n_test, spare=1)
    )
    for position, key in enumerate(rest):
        subsets[key] = TEST if position < n_test else VALIDATE if position < n_test + n_validate else TRAIN
    return subsets


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
        frames, n_peaks = file.frames[keep], file.n_peaks[keep]
    return pd.DataFrame(
        {"experiment": run.experiment, "run": run.run, "frame": frames, "n_peaks": n_peaks}
    ).astype({"experiment": object, "run": object})


def _check_runs(runs: Sequence[LabelledRun], params: SplitParams) -> None:
    keys = [run.run for run in runs]
    if not keys:
        raise LabelError("no labelled run", where="training set", remedy="Label at least one run first.")
    if len(set(keys)) < len(keys):
        raise LabelError("a run appears twice", where="training set", found=keys)
    unknown = sorted({*params.validation_runs, *params.test_runs} - set(keys))
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
) -> dict[str, object]:
    known = {run.run for run in runs}
    counts = table.groupby("run").agg(frames=("frame", "size"), peaks=("n_peaks", "sum"))
    entries = {
        run.run: {
            "experiment": run.experiment,
            "subset": subsets.get(run.run, "unused"),
            "frames": int(counts["frames"].get(run.run, 0)),
            "peaks": int(counts["peaks"].get(run.run, 0)),
            "labels": labels_digest(run.path),
        }
        for run in runs
    }
    body: dict[str, object] = {
        "runs": entries,
        "parameters": params.to_dict(),
        "excluded_runs": exclusions.runs,
        "excluded_frames": {run: [list(entry) for entry in e] for run, e in exclusions.frames.items()},
        "exclusions_without_run": sorted({*exclusions.runs, *exclusions.frames} - known),
    }
    text = json.dumps(body, sort_keys=True, default=list)
    return {**json.loads(text), "hash": hashlib.sha256(text.encode()).hexdigest()[:16]}
