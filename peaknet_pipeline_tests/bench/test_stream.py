"""The stream benchmark measures every stage, and the soak watches the memory."""

from typing import Any

import pytest

from peaknet_pipeline.bench.stream import run
from peaknet_pipeline.bench.stream_bounds import Edges, Round, Timing, summarise, usable_cores


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return run(n_frames=6, seconds=0.2, repeats=1, batch_frames=2, scale="edge-small")


def test_every_stage_is_measured(measured: dict[str, Any]) -> None:
    assert set(measured["frames_per_second_alone"]) == {"read", "find", "write"}
    assert set(measured["cpu_ms_per_frame"]) == {"read", "find", "write", "stream"}
    assert measured["limiting_stage"] in measured["busy_fraction"]
    assert measured["frames"] >= 6
    assert measured["target_met"] == (measured["efficiency"] >= measured["target_efficiency"])


def test_the_bounds_are_the_slowest_stage_and_the_cores() -> None:
    alone = {"read": Timing(100.0, 8e-3), "find": Timing(50.0, 20e-3), "write": Timing(900.0, 2e-3)}
    one = Round(
        alone,
        Timing(48.0, 0.03),
        Timing(40.0, 0.03),
        Edges(0.1, 0.02, 41.0),
        "find",
        dict.fromkeys(alone, 0.5),
    )
    assert one.bounds == pytest.approx({"slowest_stage_alone": 50.0, "shared_cores": usable_cores() / 30e-3})
    figures = summarise([one])
    assert figures["share_of_slowest_stage_alone"] == 0.8
    assert (figures["fill_s"], figures["drain_s"], figures["frames_per_second_steady"]) == (0.1, 0.02, 41.0)
    assert figures["share_of_side_by_side"] == pytest.approx(40 / 48, abs=1e-3)
    assert figures["efficiency"] == pytest.approx(40 / min(one.bounds.values()), abs=1e-3)


def test_the_soak_counts_its_frames_and_watches_the_memory() -> None:
    figures = run(soak_frames=640)
    assert figures["resident_mib"][-1][0] == 640
    assert all(rss > 50 for _, rss in figures["resident_mib"])
    assert figures["target_met"] == (figures["growth_mib"] <= figures["target_growth_mib"])
