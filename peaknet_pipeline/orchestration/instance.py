"""The embedded Dagster instance: SQLite under the data root, settings that suit one machine."""

import fcntl
import os
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import dagster as dg

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.orchestration.deployment import deployment_text
from peaknet_pipeline.orchestration.resources import DATA_VARIABLE
from peaknet_pipeline.store.layout import Store

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
            write_file(home / name, text)
    return home


def server_environment(store: Store) -> dict[str, str]:
    """Return the environment of a Dagster process over the store's instance."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(prepare_home(store)),
        DATA_VARIABLE: str(store.root.absolute()),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def serve_ui(store: Store, *, host: str, port: int, claimed: Callable[[], None]) -> None:
    """Become the Dagster web server and daemon over the store's instance; does not return.

    ``claimed`` is called when the instance is this server's, before it starts.

    Raises
    ------
    ParameterError
        Another one serves the same instance: the two would be handed runs of each other's code.

    """
    claim_instance(store, f"http://{host}:{port}")
    claimed()
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
    os.execve(sys.executable, command, server_environment(store))  # noqa: S606 - a fixed argument list, no shell


def claim_instance(store: Store, address: str) -> None:
    """Keep other servers off the store's instance for as long as this process lives, through ``exec`` as well.

    Raises
    ------
    ParameterError
        Another server has it.

    """
    path = prepare_home(store) / "server.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ParameterError(
            "another server has this instance",
            where=store.dagster_home,
            found=path.read_text(encoding="utf-8").strip(),
            remedy="Use that one, stop it, or give another data root with --data.",
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{address} (process {os.getpid()})\n".encode())
    os.set_inheritable(descriptor, True)
