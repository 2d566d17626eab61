"""The cost model's predictions are the arithmetic of its stages."""

import json
from pathlib import Path

import pytest

from peaknet_pipeline.bench.scale import Site, StageCosts, capacities, predict, run
from peaknet_pipeline.errors import ParameterError

COSTS = StageCosts(read_s=8e-3, transfer_s=2e-4, find_s=5e-4, write_s=1e-4, stored_bytes=2e6, raw_bytes=8e6)
SITE = Site(readers_per_gpu=8, writers_per_gpu=1, storage_gb_s=40.0)


def test_capacity_is_units_over_seconds() -> None:
    assert capacities(COSTS, SITE, 2) == pytest.approx(
        {"read": 2000.0, "transfer": 10_000.0, "find": 4000.0, "write": 20_000.0, "storage": 20_000.0}
    )


def test_the_slowest_stage_limits_until_the_shared_storage_does() -> None:
    few, many = predict(COSTS, SITE, 1, 2000.0), predict(COSTS, SITE, 100, 35_000.0)
    assert (few["first_to_saturate"], few["sustained_hz"], few["kept_up"]) == ("read", 1000.0, False)
    assert few["gpus_needed"] == 2
    assert (many["first_to_saturate"], many["sustained_hz"], many["gpus_needed"]) == (
        "storage",
        20_000.0,
        None,
    )


def test_a_slow_detector_is_kept_up_with() -> None:
    assert predict(COSTS, SITE, 1, 120.0)["kept_up"]


def test_a_record_is_scaled_to_the_frame(tmp_path: Path) -> None:
    record = tmp_path / "stream.json"
    alone = {"read": 20.0, "find": 50.0, "write": 100.0}
    cpu_ms = {"read": 10.0, "find": 15.0, "write": 1.0}
    record.write_text(
        json.dumps({"pixels": 1e6, "frames_per_second_alone": alone, "cpu_ms_per_frame": cpu_ms})
    )
    costs = run(figures=str(record), megapixels=4.0)["costs"]
    assert costs["read_s"] == pytest.approx(0.04)
    assert costs["find_s"] == pytest.approx(0.08)
    assert costs["write_s"] == pytest.approx(0.001)
    assert run(figures=str(record), megapixels=4.0, find_ms=1.5)["costs"]["find_s"] == pytest.approx(0.0015)


def test_missing_costs_and_foreign_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="costs are missing"):
        run(read_ms=1.0)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ParameterError, match="not a record"):
        run(figures=str(tmp_path / "x.json"))
