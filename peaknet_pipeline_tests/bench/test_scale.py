"""The cost model's predictions are the arithmetic of its stages."""

import json
from pathlib import Path

import pytest

from peaknet_pipeline.bench.scale import Site, StageCosts, capacities, network_bound_s, predict, run
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


def write_record(path: Path, device: str) -> str:
    alone = {"read": 20.0, "find": 50.0, "write": 100.0}
    cpu_ms = {"read": 10.0, "find": 15.0, "write": 1.0}
    record = {"device": device, "pixels": 1e6, "frame_bytes": 2e6, "stored_bytes_per_frame": 5e5}
    path.write_text(json.dumps({**record, "frames_per_second_alone": alone, "cpu_ms_per_frame": cpu_ms}))
    return str(path)


def test_a_record_is_scaled_to_the_frame(tmp_path: Path) -> None:
    record = write_record(tmp_path / "stream.json", "cuda:0")
    told = run(figures=record, megapixels=4.0)
    assert told["costs"]["read_s"] == pytest.approx(0.04)
    assert told["costs"]["find_s"] == pytest.approx(0.08)
    assert told["costs"]["write_s"] == pytest.approx(0.001)
    assert told["costs"]["stored_bytes"] == pytest.approx(2e6)
    assert told["compression"] == 4.0
    assert run(figures=record, megapixels=4.0, find_ms=1.5)["costs"]["find_s"] == pytest.approx(0.0015)


def test_finding_on_a_cpu_says_nothing_of_a_gpu(tmp_path: Path) -> None:
    """The shipped network's work at the GPU's peaks stands in, and that is said."""
    record = write_record(tmp_path / "stream.json", "cpu")
    told = run(figures=record, gpu_share=0.5)
    assert told["finding_is"] == "assumed"
    assert told["costs"]["find_s"] == pytest.approx(2 * network_bound_s(4.2, tflop_s=990.0, tb_s=4.8))
    slow_memory, slow_cores = run(figures=record, gpu_tb_s=0.1), run(figures=record, gpu_tflop_s=1.0)
    assert slow_memory["costs"]["find_s"] > told["costs"]["find_s"] < slow_cores["costs"]["find_s"]


def test_missing_costs_and_foreign_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="costs are missing"):
        run(read_ms=1.0)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ParameterError, match="not a record"):
        run(figures=str(tmp_path / "x.json"))
