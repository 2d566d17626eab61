"""Dagster's web server over a store, and questions to it."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.orchestration.instance import WORKSPACE, prepare_home, server_environment
from peaknet_pipeline.store.layout import Store

LOCATIONS_QUERY = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"


@contextlib.contextmanager
def web_server(store: Store, *, timeout_s: float = 300.0) -> Iterator[str]:
    """Start a web server on a free loopback port, wait until it has loaded the code, and give its address.

    Raises
    ------
    PeaknetError
        It ends, or is not ready in time; its last words are told.

    """
    home, port = prepare_home(store), _free_port()
    command = [str(Path(sys.executable).parent / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(port)]
    log = home / "webserver.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 (a fixed argument list, no shell)
            [*command, "-w", str(home / WORKSPACE)],
            env=server_environment(store),
            cwd=home,
            stdout=sink,
            stderr=sink,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, process, log, timeout_s)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def ask(
    address: str, query: str, variables: Mapping[str, Any] | None = None, *, timeout_s: float = 60.0
) -> dict[str, Any]:
    """Return the data of a GraphQL query.

    Raises
    ------
    PeaknetError
        The server refuses the query.

    """
    body = json.dumps({"query": query, "variables": dict(variables or {})}).encode()
    request = urllib.request.Request(  # noqa: S310 (the address is ours, http)
        f"{address}/graphql", data=body, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
        told = json.loads(answer.read())
    if told.get("errors"):
        raise PeaknetError("the web server refuses a query", where=address, found=told["errors"][0])
    data: dict[str, Any] = told["data"]
    return data


def _wait(address: str, process: "subprocess.Popen[bytes]", log: Path, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            entries = ask(address, LOCATIONS_QUERY)["workspaceOrError"]["locationEntries"]
            if entries and all(entry["loadStatus"] == "LOADED" for entry in entries):
                return
        time.sleep(0.5)
    words = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise PeaknetError("the web server does not start", where=log, found=words)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
