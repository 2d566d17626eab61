"""The indexer's benchmark counts crystals, not frames, and tells its control."""

from peaknet_pipeline.bench.index import run


def test_two_crystals_a_frame_are_counted_one_by_one():
    figures = run(n_frames=4, n_true=40, n_false=5, n_crystals=2, max_lattices=2, repeats=1, device="cpu")
    alone = run(n_frames=4, n_true=40, n_false=5, n_crystals=2, max_lattices=1, repeats=1, device="cpu")

    assert figures["correct"] >= 0.75
    assert 0.25 <= alone["correct"] <= 0.5
    assert figures["wrong_lattices"] == 0
    assert figures["spots_per_frame"] > 75
    assert (figures["scrambled"], figures["false_indexed"]) == (4, 0)
