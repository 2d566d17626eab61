"""A headless Chromium, driven by its DevTools protocol: pages are opened, keys pressed, what they show is read."""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1400,900",
)  # fmt: skip
TIMEOUT_S = 90.0


class Page:
    """One page; ``complaints`` are the errors that its console shows."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._number = connection, 0
        self.complaints: list[str] = []
        for domain in ("Runtime", "Log", "Page"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._connection.recv(timeout=TIMEOUT_S))
            if told.get("id") == self._number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                return told["result"]
            if (
                told["method"] == "Runtime.exceptionThrown"
                or told.get("params", {}).get("entry", {}).get("level") == "error"
            ):
                self.complaints.append(json.dumps(told["params"]))

    def open(self, address: str) -> None:
        """Go to an address."""
        self.ask("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; None where it cannot be evaluated."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + TIMEOUT_S
        while not self.value(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression} did not come true; console: {self.complaints}")
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """Press and release a key that writes a character."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window, in pixels from its upper left corner."""
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@contextmanager
def browser_page() -> Iterator[Page]:
    """Yield an empty page of a new browser; the test is skipped, and says so, where there is no Chromium."""
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        with log.open("wb") as written:
            command = [
                program,
                *FLAGS,
                f"--user-data-dir={folder}/profile",
                "--remote-debugging-port=0",
                "about:blank",
            ]
            process = subprocess.Popen(command, stdout=written, stderr=written)
        try:
            port = _port(Path(folder) / "profile" / "DevToolsActivePort", process, log)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=TIMEOUT_S) as answer:
                address = next(
                    page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page"
                )
            with client.connect(address, max_size=None, open_timeout=TIMEOUT_S, proxy=None) as connection:
                yield Page(connection)
        finally:
            process.terminate()
            process.wait(20)


def _port(told: Path, process: "subprocess.Popen[bytes]", log: Path) -> int:
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        if told.exists() and "\n" in (text := told.read_text()):
            return int(text.split()[0])
        time.sleep(0.1)
    raise RuntimeError(f"Chromium did not start: {log.read_text(errors='replace')[-2000:]}")
