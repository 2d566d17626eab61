"""The embedded Dagster instance: SQLite under the data root, settings that suit one machine."""

import os
import sys
from importlib.resources import files
from pathlib import Path

import dagster as dg

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.orchestration.deployment import deployment_text
from peaknet_pipeline.orchestration.resources import DATA_VARIABLE
from peaknet_pipeline.stages.store import Store

WORKSPACE = "workspace.yaml"
"""The code location under one name, wherever the server is started from."""


def open_instance(store: Store) -> dg.DagsterInstance:
    """Open the instance in the store's ``dagster_home``, made on first use, and point this process at it."""
    home = prepare_home(store)
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ[DATA_VARIABLE] = str(store.root.absolute())
    return dg.DagsterInstance.get()


def prepare_home(store: Store) -> Path:
    """Make the instance's home with its ``dagster.yaml`` unless it is there."""
    home = store.dagster_home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    texts = {
        "dagster.yaml": deployment_text("machine/dagster.yaml"),
        WORKSPACE: files("peaknet_pipeline.orchestration").joinpath(WORKSPACE).read_text(encoding="utf-8"),
    }
    for name, text in texts.items():
        if not (home / name).is_file():
            with replace_atomically(home / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return home


def serve_ui(store: Store, *, host: str, port: int) -> None:
    """Become the Dagster web server and daemon over the store's instance; does not return."""
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(prepare_home(store)),
        DATA_VARIABLE: str(store.root.absolute()),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-w",
        str(prepare_home(store) / WORKSPACE),
        "-h",
        host,
        "-p",
        str(port),
    ]
    os.execve(sys.executable, command, environment)  # noqa: S606 - a fixed argument list, no shell
