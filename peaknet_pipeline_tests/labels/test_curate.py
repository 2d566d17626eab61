"""Curation: what is ranked, in which order, and for which reasons."""

import numpy as np
import pytest

from peaknet_pipeline.labels.curate import CurationParams, rank_candidates
from peaknet_pipeline.schemas import CURATION, INDEX, PEAKS
from peaknet_pipeline.tables import check_table, empty_table, make_table, read_table, write_table


def make_peaks(per_frame, score=0.95):
    """Peaks on a line: ``per_frame`` maps a frame to (first, count)."""
    frame = np.concatenate([np.full(n, f) for f, (_, n) in per_frame.items()])
    fs = np.concatenate([np.arange(first, first + n) * 10.0 for first, n in per_frame.values()])
    n = len(frame)
    ones = {
        name: np.ones(n) for name in ("intensity", "max_intensity", "background", "sigma", "snr", "n_pixels")
    }
    scores = (
        np.array([score.get(int(f), 0.95) for f in frame]) if isinstance(score, dict) else np.full(n, score)
    )
    return make_table(
        PEAKS, {"frame": frame, "panel": np.zeros(n), "fs": fs, "ss": fs, "score": scores, **ones}
    )


def make_lattices(frames):
    rest = {name: np.zeros(len(frames)) for name in INDEX.column_names() if name != "frame"}
    return make_table(INDEX, {"frame": frames, **rest})


@pytest.fixture
def ranked():
    classical = make_peaks({0: (0, 20), 1: (0, 20), 2: (0, 20), 3: (0, 4), 4: (0, 20), 5: (0, 20)})
    neural = make_peaks({0: (0, 20), 1: (15, 20), 2: (0, 21), 3: (0, 5), 4: (0, 20), 5: (0, 22)}, {4: 0.55})
    return rank_candidates(
        classical,
        neural,
        classical_lattices=make_lattices([0, 1, 4, 5]),
        neural_lattices=make_lattices([0, 1, 4]),
    )


def test_frames_where_all_is_well_and_frames_that_are_no_hits_are_not_candidates(ranked):
    check_table(ranked, CURATION)
    assert set(ranked["frame"]) == {1, 2, 4, 5}


def test_each_frame_says_why(ranked):
    reason = ranked.set_index("frame")["reason"]
    assert reason[1] == "finders disagree"
    assert reason[2] == "hit without a lattice"
    assert reason[4] == "network unsure"
    assert reason[5] == "only the classical peaks index"


def test_the_most_useful_frame_comes_first(ranked):
    assert ranked["rank"].tolist() == [1, 2, 3, 4]
    assert ranked["priority"].is_monotonic_decreasing
    assert ranked["frame"].tolist() == [5, 2, 1, 4]


def test_reasons_add_up():
    only = rank_candidates(
        empty_table(PEAKS),
        make_peaks({7: (0, 30)}, 0.5),
        classical_lattices=empty_table(INDEX),
        neural_lattices=make_lattices([7]),
    )
    assert only["reason"].tolist() == ["finders disagree; only the neural peaks index; network unsure"]
    assert only["priority"].tolist() == pytest.approx([1.0 + 1.5 + 0.5])
    assert only["agreement"].tolist() == [0.0]


def test_only_the_best_are_kept_and_ties_go_by_frame():
    peaks = make_peaks(dict.fromkeys(range(8), (0, 12)))
    kept = rank_candidates(
        peaks,
        peaks,
        classical_lattices=empty_table(INDEX),
        neural_lattices=empty_table(INDEX),
        params=CurationParams(max_frames=3),
    )
    assert kept["frame"].tolist() == [0, 1, 2]


def test_a_run_without_peaks_has_no_candidates_and_the_table_is_written(tmp_path):
    none = rank_candidates(
        empty_table(PEAKS),
        empty_table(PEAKS),
        classical_lattices=empty_table(INDEX),
        neural_lattices=empty_table(INDEX),
    )
    assert len(none) == 0
    write_table(none, tmp_path / "c.parquet", CURATION)
    assert len(read_table(tmp_path / "c.parquet", CURATION)) == 0
