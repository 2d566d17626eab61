"""Labels against truth, and the gate that keeps garbage out of training."""

import re

import numpy as np
import pytest

from peaknet_pipeline.profile import PROFILE_NAMES
from peaknet_pipeline.schemas import FITS, FRAME_MATCHES, TRUTH_REFLECTIONS
from peaknet_pipeline.steps.label_quality import (
    GateParams,
    judge_label_run,
    judge_quality,
    quality_table,
    score_labels,
)
from peaknet_pipeline.tables import empty_table, make_table


def make_matches(selected, reason="fewer than 8 pairs"):
    n = len(selected)
    counts = {name: np.ones(n) for name in ("n_peaks", "n_reflections", "n_matched")}
    reasons = [("selected" if s else reason) for s in selected]
    return make_table(
        FRAME_MATCHES, {"frame": np.arange(n), **counts, "selected": selected, "reason": reasons}
    )


def make_fits(frame, ss, accepted):
    n = len(frame)
    zero = {name: np.zeros(n) for name in ("lattice", "h", "k", "l", "panel", "n_pixels", "flags")}
    zero |= {"inv_d": np.full(n, 0.3), "snr": np.linspace(3.0, 30.0, n)}
    profile = {name: np.ones(n) for name in PROFILE_NAMES}
    return make_table(
        FITS,
        {
            "frame": frame,
            **zero,
            **profile,
            "centre_ss": ss,
            "centre_fs": np.full(n, 5.0),
            "accepted": accepted,
        },
    )


def make_truth(frame, ss, snr):
    n = len(frame)
    zero = {name: np.zeros(n) for name in ("lattice", "h", "k", "l", "panel", "photons", "background")}
    place = {"frame": frame, "ss": ss, "fs": np.full(n, 5.0), "inv_d": np.full(n, 0.3)}
    return make_table(TRUTH_REFLECTIONS, {**zero, **place, "snr": snr, "usable": np.ones(n, bool)})


def test_only_labelled_frames_and_accepted_fits_count():
    fits = make_fits([0, 0, 0], [10.0, 30.0, 50.0], [True, True, False])
    truth = make_truth([0, 0, 1], [10.1, 50.0, 10.0], [9.0, 9.0, 9.0])
    scores = score_labels(fits, make_matches([True, False]), truth)
    assert (scores.precision.part, scores.precision.whole) == (1, 2)
    assert (scores.recall.part, scores.recall.whole) == (1, 2)
    assert scores.centre_error_px == pytest.approx(0.1, abs=1e-5)


def test_without_labels_nothing_counts():
    scores = score_labels(empty_table(FITS), make_matches([False]), make_truth([0], [10.0], [9.0]))
    assert (scores.precision.whole, scores.recall.whole) == (0, 0)


def test_the_table_holds_every_label_and_every_true_reflection_once_per_kind():
    rng = np.random.default_rng(2)
    ss = np.arange(40) * 10.0
    truth = make_truth(np.zeros(40, int), ss, rng.uniform(5.5, 60.0, 40)).assign(
        inv_d=rng.uniform(0.1, 0.5, 40)
    )
    fits = make_fits(np.zeros(45, int), np.append(ss, ss[:5] + 5.0), np.arange(45) % 9 != 0)
    scores = score_labels(fits, make_matches([True]), truth)
    table = quality_table(fits, scores)
    whole = table[table["kind"] == "all"].iloc[0]
    for kind in ("snr", "shell"):
        rows = table[table["kind"] == kind]
        for name in ("n_true", "n_found", "n_labels", "n_true_labels"):
            assert rows[name].sum() == whole[name]
    assert whole["n_labels"] == fits["accepted"].sum()
    assert whole["n_labels"] - whole["n_true_labels"] == fits["accepted"][40:].sum()
    assert whole["recall"] == pytest.approx(fits["accepted"][:40].mean())


def test_labels_below_what_is_asked_for_are_told_and_real_runs_are_not_judged():
    fits = make_fits([0, 0], [10.0, 30.0], [True, True])
    scores = score_labels(fits, make_matches([True]), make_truth([0, 0], [10.0, 80.0], [9.0, 9.0]))
    verdict = judge_quality(scores)
    assert not verdict.passed
    assert re.search(r"precision 0.500 of 2 labels, recall 0.500 of 2 reflections", verdict.message)
    assert judge_quality(None).passed


@pytest.mark.parametrize(
    ("selected", "n_hits", "passed", "words"),
    [
        ([True] * 30, 40, True, "30 of 40 hits labelled"),
        ([True] * 2 + [False] * 5, 60, False, "5 × fewer than 8 pairs.*check the unit cell"),
        ([], 60, False, "0 of 60 hits labelled, 0 with a lattice.*check the unit cell"),
        ([False], 8, False, "0 of 8 hits labelled, 1 with a lattice.*check the unit cell"),
        ([], 3, True, "too few hits to judge"),
    ],
)
def test_a_run_whose_hits_do_not_index_may_not_teach(selected, n_hits, passed, words):
    verdict = judge_label_run(make_matches(np.array(selected, bool)), n_hits=n_hits, params=GateParams())
    assert verdict.passed is passed
    assert re.search(words, verdict.message)


@pytest.fixture(scope="module")
def record():
    from peaknet_pipeline.bench.labels import run

    return run(n_frames=16, seed=20)


def test_labels_of_a_simulated_run_are_true_and_complete(record):
    assert record["labelled_frames"] >= 5
    assert record["labels"] > 200
    assert record["label_precision"] >= 0.97
    assert record["label_recall"] >= 0.94
    assert record["centre_error_px"] <= 0.15


def test_recall_rises_with_the_expected_snr(record):
    bands = [band for band in record["by_snr"] if band["n_true"] >= 20]
    recall = [band["recall"] for band in bands]
    assert recall[-1] >= 0.98
    assert recall[0] < 0.2
    assert np.corrcoef(np.arange(len(recall)), recall)[0, 1] > 0.8


def test_the_fits_of_a_simulated_run_agree_with_lmfit(record):
    assert record["agreement"]["agreement"] >= 0.97
