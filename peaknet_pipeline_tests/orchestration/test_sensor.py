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


def tick(world, cursor=None):
    """Evaluate the sensor once and do what Dagster's daemon would do with its partition requests and cursor."""
    sensor = world.defs.resolve_sensor_def("new_runs")
    context = dg.build_sensor_context(
        instance=world.instance,
        cursor=(cursor or {}).get("cursor"),
        resources={"store": StoreResource(root=str(world.store.root))},
    )
    result = sensor(context)
    if cursor is not None:
        cursor["cursor"] = context.cursor
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


def test_what_is_not_taken_is_logged_once_and_stops_nothing(fresh, capsys):
    folder = fresh.store.raw_root / "small"
    settle(folder)
    (folder / "r0005.h5").symlink_to("gone.h5")
    os.mkfifo(folder / "r0006.h5")
    shutil.copy2(folder / "r0001.h5", folder / "lyso_a.h5")
    os.utime(folder / "r0003.h5", (time.time() + 86400 * 365,) * 2)
    told, cursor = [], {}
    for _ in range(2):
        result = tick(fresh, cursor)
        told.append([line for line in capsys.readouterr().err.splitlines() if "not taken" in line])
        if len(told) == 1:
            assert keys(result) == {"small-r0001", "small-r0002"}
    assert len(told[0]) == 4
    assert "4 not taken" in result.skip_message
    for part in ("r0005.h5: run 5: a link to gone.h5", "r0006.h5: run 6: a named pipe", "lyso_a.h5: the name bears no",
                 "r0003.h5: was last changed in the future"):  # fmt: skip
        assert sum(part in line for line in told[0]) == 1
    assert told[1] == []
