"""A run killed with SIGKILL leaves nothing half-written, nothing blocked, and the next run completes to the same."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from peaknet_pipeline.orchestration.launcher import HOST_TAG, is_process_alive, worker_health
from peaknet_pipeline_tests.orchestration import crash_driver
from peaknet_pipeline_tests.orchestration.conftest import KEYS

PROJECT = Path(crash_driver.__file__).resolve().parents[2]
PLAN = {"raw_run": "1", "run_statistics": "1", "classical_peaks": "0.5", "classical_index": "2"}
"""Kill points: 1 is before the output gets its name, 2 right after it and before its side tables, 0.5 anywhere."""


@pytest.mark.timeout(1800)
def test_killed_assets_leave_nothing_half_written_and_complete_when_run_again(small_raw, tmp_path):
    shutil.copytree(small_raw, tmp_path / "data")
    plans = [f"{asset}:{points}" for asset, points in PLAN.items()]
    command = [sys.executable, crash_driver.__file__, str(tmp_path / "data"), KEYS[0], *plans]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["asset"] for one in told] == list(PLAN)
    assert {one["asset"]: one["problems"] for one in told} == {asset: [] for asset in PLAN}
    assert all(one["kills"] == 1 for one in told)
    assert told[1]["leftovers"] == 1  # killed between writing and renaming; gone after the next run


def test_a_process_is_told_from_a_dead_one_and_from_a_later_one_of_the_same_number():
    with subprocess.Popen(["sleep", "60"]) as process:
        assert is_process_alive(process.pid, time.time())
        assert not is_process_alive(process.pid, time.time() - 3600)
        process.kill()
        process.wait()
        assert not is_process_alive(process.pid, time.time())


@pytest.mark.parametrize(("host", "status"), [(os.uname().nodename, "FAILED"), ("elsewhere", "RUNNING")])
def test_only_runs_of_this_machine_are_called_dead(host, status):
    """A run that says it runs on another machine may live there, whatever its number means here."""
    with dg.DagsterInstance.ephemeral() as instance, subprocess.Popen(["true"]) as gone:
        gone.wait()
        run = instance.create_run_for_job(_nothing, tags={HOST_TAG: host})
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name, pid=gone.pid)
        instance.report_dagster_event(event, run_id=run.run_id)
        assert worker_health(instance, run).status.value == status


@dg.job
def _nothing():
    pass
