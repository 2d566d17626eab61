"""Slurm through its own three commands: a job is submitted, asked after, and cancelled. Nothing here knows Dagster.

The job's script is a fixed text; everything that differs between jobs travels in the environment or in options, so that nothing
is ever put together into a line for a shell.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.params import Parameters, parameter

SCRIPT = """#!/bin/sh
exec "$PEAKNET_PYTHON" -m peaknet_pipeline.cli stage "$PEAKNET_STAGE" "$PEAKNET_KEY"
"""
UNKNOWN_POLLS = 3
"""Times in a row that neither queue nor accounting may know a job before it counts as lost: accounting lags behind."""

WAITING = frozenset(
    (
        "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "RESIZING", "SIGNALING", "STAGE_OUT",
        "STOPPED",
    )
)  # fmt: skip
MACHINES_FAULT = frozenset(("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED", "LOST"))
"""How jobs end that may well succeed on another node."""


class SlurmError(PeaknetError):
    """Slurm refused a command, or a job ended badly."""


@dataclass(frozen=True)
class SlurmParams(Parameters):
    """Which assets are Slurm jobs, and what a job asks for."""

    assets: tuple[str, ...] = parameter(
        (), meaning="assets whose work is a Slurm job; all others run beside the code server"
    )
    partition: str = parameter("", meaning="Slurm partition; the site's default without it")
    account: str = parameter("", meaning="Slurm account; the user's default without it")
    time_minutes: int = parameter(120, meaning="time limit of a job", unit="min", ge=1)
    cpus_per_job: int = parameter(8, meaning="processors of a job", ge=1)
    memory_gb: int = parameter(16, meaning="memory of a job", unit="GB", ge=1)
    gpus_per_job: int = parameter(1, meaning="GPUs of a job whose asset is in the GPU pool", ge=0)
    poll_s: float = parameter(10.0, meaning="time between two questions after a job", unit="s", gt=0)
    attempts: int = parameter(2, meaning="submissions of a job that is lost or whose node fails", ge=1)


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: Slurm's state (``LOST`` where nobody knows it), exit code, seconds, and nodes."""

    state: str
    exit_code: str = ""
    seconds: int = 0
    nodes: int = 0

    @property
    def node_hours(self) -> float:
        """What the job is accounted with."""
        return self.seconds * self.nodes / 3600.0


def submit(
    name: str, params: SlurmParams, *, gpus: int, log: Path, environment: Mapping[str, str], folder: Path
) -> str:
    """Submit a job that runs ``peaknet stage``; return its number.

    ``environment`` is added to this process's own, ``folder`` is where it starts.

    Raises
    ------
    SlurmError
        sbatch isn't there or refuses.

    """
    asked = {
        "job-name": name,
        "output": str(log),
        "chdir": str(folder),
        "export": "ALL",
        "nodes": "1",
        "ntasks": "1",
        "time": str(params.time_minutes),
        "cpus-per-task": str(params.cpus_per_job),
        "mem": f"{params.memory_gb}G",
        "partition": params.partition,
        "account": params.account,
        "gpus": str(gpus) if gpus else "",
    }
    options = [f"--{option}={value}" for option, value in asked.items() if value]
    told = _call(
        ["sbatch", "--parsable", "--no-requeue", *options],
        given=SCRIPT,
        environment={**os.environ, **environment},
    )
    number = told.strip().split(";")[0]
    if not number.isdigit():
        raise SlurmError("sbatch gives no job number", expected="a number", found=told.strip()[:200])
    return number


def await_end(number: str, params: SlurmParams, *, sleep: Callable[[float], None] = time.sleep) -> JobEnd:
    """Wait until a job has ended; one that neither queue nor accounting knows any more is lost."""
    unknown = 0
    while unknown < UNKNOWN_POLLS:
        if _in_queue(number):
            unknown = 0
        elif (end := _accounted(number)) is not None:
            if end.state not in WAITING:
                return end
            unknown = 0
        else:
            unknown += 1
        sleep(params.poll_s)
    return JobEnd("LOST")


def cancel(number: str) -> None:
    """Cancel a job; Slurm refuses that for one that it has forgotten, which is no error here."""
    _run(["scancel", number])


def _in_queue(number: str) -> bool:
    """Say whether the queue lists the job as waiting or running; it refuses numbers that it has forgotten."""
    done = _run(["squeue", "--noheader", f"--jobs={number}", "--format=%T"])
    return done.returncode == 0 and any(state in WAITING for state in done.stdout.split())


def _accounted(number: str) -> JobEnd | None:
    told = _call(
        ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={number}",
         "--format=State,ExitCode,ElapsedRaw,NNodes"]
    )  # fmt: skip
    lines = told.strip().splitlines()
    if not lines:
        return None
    fields = lines[-1].split("|")
    if len(fields) != 4 or not fields[0]:
        raise SlurmError(
            "sacct's answer is not understood", expected="State|ExitCode|ElapsedRaw|NNodes", found=lines[-1]
        )
    seconds, nodes = (int(text) if text.isdigit() else 0 for text in fields[2:])
    return JobEnd(fields[0].split()[0], fields[1], seconds, nodes)  # "CANCELLED by 1000"


def _call(command: list[str], *, given: str = "", environment: Mapping[str, str] | None = None) -> str:
    done = _run(command, given=given, environment=environment)
    if done.returncode:
        raise SlurmError(
            f"{command[0]} refused", found=done.stderr.strip()[:500] or f"exit {done.returncode}"
        )
    return done.stdout


def _run(
    command: list[str], *, given: str = "", environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(  # noqa: S603 - a list of arguments, without a shell
            command, input=given, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
    except FileNotFoundError as error:
        remedy = "Run the code server where Slurm's commands are, or take slurm out of pipeline.yaml."
        raise SlurmError(f"no {command[0]} here", remedy=remedy) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]} gives no answer for two minutes") from error
