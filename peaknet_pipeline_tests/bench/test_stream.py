"""The stream benchmark measures every stage, and the soak watches the memory."""

from typing import Any

import pytest

from peaknet_pipeline.bench.stream import run


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return run(n_frames=6, repeats=1, batch_frames=2, scale="edge-small")


def test_every_stage_is_measured(measured: dict[str, Any]) -> None:
    assert set(measured["frames_per_second_alone"]) == {"read", "find", "write"}
    assert measured["limiting_stage"] in measured["busy_fraction"]
    slowest = measured["frames_per_second_alone"][measured["slowest_alone"]]
    assert measured["efficiency"] == pytest.approx(measured["frames_per_second"] / slowest, rel=0.01)
    assert measured["target_met"] == (measured["efficiency"] >= measured["target_efficiency"])


def test_the_soak_counts_its_frames_and_watches_the_memory() -> None:
    figures = run(soak_frames=640)
    assert figures["resident_mib"][-1][0] == 640
    assert all(rss > 50 for _, rss in figures["resident_mib"])
    assert figures["target_met"] == (figures["growth_mib"] <= figures["target_growth_mib"])
