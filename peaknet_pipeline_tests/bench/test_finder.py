"""The finder's benchmark compares like with like: both sides give the same peaks, and its figures add up."""

import pytest

from peaknet_pipeline.bench import finder


@pytest.fixture(scope="module")
def figures():
    """One short run."""
    return finder.run(repeats=3, dtypes="uint16", sizes="1M")


def test_every_scene_has_times_peaks_and_bytes(figures):
    assert {"1M blank uint16", "1M dense uint16"} <= set(figures["scenes"])
    for name in ("1M blank uint16", "1M dense uint16"):
        scene = figures["scenes"][name]
        assert all(ms > 0 for ms in scene["ms"].values())
        assert scene["bytes_moved"] >= 2 * 2 * 1024**2 * 0.99
        assert scene["times_the_bandwidth_limit"] > 1
        assert scene["times_the_bandwidth_limit_sampled"] > 1


def test_dense_frames_hold_peaks_and_blank_ones_hardly_any(figures):
    assert figures["scenes"]["1M dense uint16"]["peaks"] > 200
    assert figures["scenes"]["1M blank uint16"]["peaks"] < 5


def test_both_finders_find_the_same_peaks_and_ours_takes_less_time(figures):
    if figures["reference"] != "ondamonitor":
        pytest.skip("ondamonitor is not installed")
    scene = figures["scenes"]["1M dense uint16"]
    assert scene["agreement_exact"] >= 0.995
    assert scene["agreement_sampled"] >= scene["agreement_reference_fast"] - 0.03
    assert scene["speedup_exact"] > 1
    assert scene["speedup_sampled"] > 1
