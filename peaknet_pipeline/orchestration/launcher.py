"""Dagster's own run launcher, plus the question whether a run's process is still there."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

HOST_TAG = "peaknet/host"
"""Tag of runs that are executed without a code server: the machine whose process they are."""

START_SLACK_S = 5.0
"""Seconds by which a process may seem younger than the run that it started."""

ALIVE = CheckRunHealthResult(WorkerStatus.RUNNING)


class CheckedRunLauncher(DefaultRunLauncher):
    """Launches runs through the code server, and tells run monitoring when a run's process is gone.

    The default launcher leaves that to the code server that started the run; when that is gone too (a reboot, no
    memory left), the run would stay "started" and keep its place in the queue and the pool for a day.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Tell whether the process of a started run lives; in doubt it does."""
        return worker_health(self._instance, run)


def worker_health(instance: dg.DagsterInstance, run: dg.DagsterRun) -> CheckRunHealthResult:
    """Tell whether the process of a started run lives; in doubt, and on other machines, it does."""
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    if server.get("port"):
        return _ask_server(run.run_id, server)
    if not server and run.tags.get(HOST_TAG) != socket.gethostname():
        return ALIVE
    started = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_START)
    pid = started[0].get_dagster_event().pid if started else None
    if pid is None or is_process_alive(pid, started[0].timestamp):
        return ALIVE
    return CheckRunHealthResult(WorkerStatus.FAILED, f"process {pid} is gone")


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark started runs without a process as failed, give their places in pools back, and return their ids."""
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        health = worker_health(instance, run)
        if health.status is WorkerStatus.FAILED:
            instance.report_run_failed(run, f"{health.msg}; the run was killed")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended.append(run.run_id)
    return ended


def is_process_alive(pid: int, since: float) -> bool:
    """Tell whether a process exists and is no younger than ``since``, seconds since 1970: numbers are given again."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    born = _start_time(pid)
    return born is None or born <= since + START_SLACK_S


def _start_time(pid: int) -> float | None:
    """Return when a process was started, seconds since 1970; None where the system doesn't tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(
            line.split()[1]
            for line in Path("/proc/stat").read_text().splitlines()
            if line.startswith("btime")
        )
    except (OSError, StopIteration):
        return None
    if fields[0] in ("Z", "X"):
        return float("inf")  # ended; only its parent has not asked yet
    return float(boot) + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _ask_server(run_id: str, server: dict[str, Any]) -> CheckRunHealthResult:
    """Ask a code server with an address of its own; one that was started again knows nothing of the run."""
    client = DagsterGrpcClient(
        host=server["host"], port=int(server["port"]), use_ssl=bool(server.get("use_ssl"))
    )
    try:
        answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id), timeout=10)
    except dg.DagsterUserCodeUnreachableError:
        return ALIVE
    if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
        return ALIVE
    return CheckRunHealthResult(WorkerStatus.FAILED, "the code server does not have the run")
