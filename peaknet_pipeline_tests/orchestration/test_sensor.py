"""The sensor on the raw root: complete runs, once each, a few at a time."""

import os
import shutil
import time

import dagster as dg

from peaknet_pipeline.orchestration.registered import registered_keys
from peaknet_pipeline.orchestration.resources import StoreResource
from peaknet_pipeline.stages.run_table import run_table

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
    if isinstance(result, dg.SensorResult):
        for request in result.dynamic_partitions_requests:
            world.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        for event in result.asset_events:
            world.instance.report_runless_asset_event(event)
    if cursor is not None:
        cursor["cursor"] = context.cursor
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


def set_sensor(world, settings):
    """Add the sensor's settings to pipeline.yaml."""
    path = world.store.root / "pipeline.yaml"
    path.write_text(f"{path.read_text()}sensor: {{{settings}}}\n")


def test_a_tick_takes_no_more_than_its_cap(fresh):
    settle(fresh.store.raw_root / "small")
    set_sensor(fresh, "runs_per_tick: 2")
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


def fail_and_go_on(world):
    """Let an upload stall, be requested and fail; return the file and its whole content."""
    path = world.store.raw_root / "small" / "r0001.h5"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    settle(path.parent)
    assert not world.materialize(["raw_run"], "small-r0001").success
    return path, content


def test_a_stalled_upload_that_goes_on_is_requested_again_once(fresh):
    cursor = {}
    settle(fresh.store.raw_root / "small")
    assert keys(tick(fresh, cursor)) == KEYS
    path, content = fail_and_go_on(fresh)
    assert "3 runs known" in tick(fresh, cursor).skip_message
    path.write_bytes(content)
    assert "1 still being written" in tick(fresh, cursor).skip_message
    settle(path.parent)
    (request,) = tick(fresh, cursor).run_requests
    assert request.partition_key == "small-r0001"
    assert request.run_key.startswith("small-r0001 ")
    assert "0 still being written" in tick(fresh, cursor).skip_message
    assert fresh.materialize(["raw_run"], "small-r0001").success
    assert "0 stale" in tick(fresh, cursor).skip_message


def test_a_file_replaced_after_ingestion_is_stale_and_requested_anew_where_the_settings_say_so(fresh, capsys):
    cursor, folder = {}, fresh.store.raw_root / "small"
    settle(folder)
    tick(fresh, cursor)
    assert fresh.materialize(["raw_run"], "small-r0001").success
    shutil.copy(folder / "r0002.h5", folder / "r0001.h5")
    settle(folder)
    capsys.readouterr()
    result = tick(fresh, cursor)
    assert "1 stale" in result.skip_reason.skip_message
    assert "small-r0001 is stale: r0001.h5 was replaced or changed since" in capsys.readouterr().err
    (verdict,) = result.asset_events
    assert (verdict.check_name, verdict.passed, verdict.severity) == (
        "files_unchanged",
        False,
        dg.AssetCheckSeverity.WARN,
    )
    assert "small-r0001: r0001.h5 was replaced" in verdict.description
    assert "1 stale" in tick(fresh, cursor).skip_message
    assert "is stale" not in capsys.readouterr().err
    row = run_table(fresh.store).set_index("run").loc["small-r0001"]
    assert (row["status"], row["stage"]) == ("stale", "raw_run")
    assert row["error"] == "r0001.h5 was replaced or changed since; raw_run must be made again"
    set_sensor(fresh, "request_stale: true")
    assert keys(tick(fresh, cursor)) == {"small-r0001"}
    assert "1 stale" in tick(fresh, cursor).skip_message
    assert fresh.materialize(["raw_run"], "small-r0001").success
    assert "0 stale" in tick(fresh, cursor).skip_message


def test_registered_runs_are_read_from_the_instances_file_as_dagster_tells_them(fresh):
    assert registered_keys(fresh.store) == []
    (fresh.store.dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    fresh.instance.add_dynamic_partitions("experiment_runs", ["small-r0002", "small-r0001"])
    fresh.instance.add_dynamic_partitions("others", ["x"])
    assert registered_keys(fresh.store) == sorted(fresh.instance.get_dynamic_partitions("experiment_runs"))
    assert registered_keys(fresh.store) == ["small-r0001", "small-r0002"]


def test_a_setting_lets_the_sensor_infer_new_runs_too(fresh):
    settle(fresh.store.raw_root / "small")
    assert {request.job_name for request in tick(fresh).run_requests} == {"ingest_run"}
    set_sensor(fresh, "infer: true")
    shutil.copy(fresh.store.raw_root / "small" / "r0001.h5", fresh.store.raw_root / "small" / "r0004.h5")
    settle(fresh.store.raw_root / "small")
    (request,) = tick(fresh).run_requests
    assert (request.job_name, request.partition_key) == ("process_run", "small-r0004")
    nodes = fresh.defs.resolve_job_def(request.job_name).nodes_in_topological_order
    assert {"raw_run", "classical_index", "peaknet_index", "run_metrics"} <= {node.name for node in nodes}
