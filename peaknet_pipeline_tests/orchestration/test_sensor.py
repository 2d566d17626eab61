"""The sensor on the raw root: complete runs, once each, a few at a time."""

import os
import shutil
import time

import dagster as dg

from peaknet_pipeline.orchestration import sensors
from peaknet_pipeline.orchestration.resources import StoreResource

KEYS = {"small-r0001", "small-r0002", "small-r0003"}


def settle(folder, seconds=120):
    stamp = time.time() - seconds
    for path in folder.glob("*.h5"):
        os.utime(path, (stamp, stamp))


def tick(world):
    """Evaluate the sensor once and do what Dagster's daemon would do with its partition requests."""
    sensor = world.defs.resolve_sensor_def("new_runs")
    context = dg.build_sensor_context(
        instance=world.instance, resources={"store": StoreResource(root=str(world.store.root))}
    )
    result = sensor(context)
    if isinstance(result, dg.SensorResult):
        for request in result.dynamic_partitions_requests:
            world.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return result


def keys(result):
    """Return the partitions that were requested."""
    return {request.partition_key for request in result.run_requests}


def test_new_complete_runs_are_registered_and_requested_once(fresh):
    settle(fresh.store.raw_root / "small")
    assert keys(tick(fresh)) == KEYS
    assert set(fresh.instance.get_dynamic_partitions("experiment_runs")) == KEYS
    assert "3 runs known" in tick(fresh).skip_message


def test_a_run_that_is_still_being_written_waits(fresh):
    folder = fresh.store.raw_root / "small"
    settle(folder)
    shutil.copy(folder / "r0001.h5", folder / "r0004.h5")
    assert keys(tick(fresh)) == KEYS
    assert "1 still being written" in tick(fresh).skip_message
    settle(folder)
    assert keys(tick(fresh)) == {"small-r0004"}


def test_a_tick_takes_no_more_than_its_cap(fresh, monkeypatch):
    settle(fresh.store.raw_root / "small")
    monkeypatch.setattr(sensors, "MAX_RUNS_PER_TICK", 2)
    assert len(keys(tick(fresh))) == 2
    assert len(keys(tick(fresh))) == 1


def test_an_empty_raw_root_is_no_error(fresh):
    shutil.rmtree(fresh.store.raw_root)
    assert "0 runs known" in tick(fresh).skip_message
