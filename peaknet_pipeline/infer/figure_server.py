"""A live stream's figures and picture over HTTP, at a cost that the stream does not feel, however many clients ask."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from peaknet_pipeline.infer.live_figures import LiveFigures
from peaknet_pipeline.infer.prometheus import metrics_text

CLIENTS_AT_ONCE = 4
PAUSE_S = 0.4
"""Seconds that a client's place stays taken after its answer: at most ``CLIENTS_AT_ONCE / PAUSE_S`` answers a second."""

WAIT_S = 2.0
"""Seconds that a client waits for a place before it is refused."""

REQUEST_S = 10.0
"""Seconds that a client has for its request and for taking the answer."""

FIGURES_S, PICTURE_S = 0.5, 5.0
"""Seconds for which figures and picture stay as they are, at least."""

SHARE = 0.02
"""Share of the time that may go into making an answer anew."""


class Cached:
    """An answer that is made anew once in a while, by one caller; meanwhile the others get the one before.

    It stays for ``least_s`` seconds at least, and for so long that making it takes no more than ``SHARE`` of the time.
    """

    def __init__(
        self, make: Callable[[], bytes], *, least_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make, self._least_s, self._clock = make, least_s, clock
        self._lock = threading.Lock()
        self._answer: bytes | None = None
        self._due = 0.0

    def __call__(self) -> bytes:
        """Return the answer."""
        if self._lock.acquire(blocking=self._answer is None):
            try:
                if self._answer is None or self._clock() >= self._due:
                    started = self._clock()
                    self._answer = self._make()
                    now = self._clock()
                    self._due = now + max(self._least_s, (now - started) / SHARE)
            finally:
                self._lock.release()
        return self._answer or b""


@contextmanager
def serve_figures(
    figures: Callable[[], LiveFigures],
    *,
    powder_png: Callable[[], bytes] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[str]:
    """Serve ``/metrics``, ``/figures.json`` and ``/powder.png`` within the block; yield the address.

    Only this machine can connect unless another ``host`` is given; port 0 takes a free one.
    """
    answers: dict[str, tuple[str, Cached]] = {
        "/metrics": (
            CONTENT_TYPE_PLAIN_0_0_4,
            Cached(lambda: metrics_text(figures()), least_s=FIGURES_S),
        ),
        "/figures.json": (
            "application/json",
            Cached(lambda: json.dumps(asdict(figures())).encode(), least_s=FIGURES_S),
        ),
    }
    if powder_png is not None:
        answers["/powder.png"] = ("image/png", Cached(powder_png, least_s=PICTURE_S))
    server = _PatientServer((host, port), _handler(answers))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _PatientServer(ThreadingHTTPServer):
    """Answers a few clients at once; the others wait in the line that the system keeps, and at last are refused."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.BoundedSemaphore(CLIENTS_AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread once there is a place."""
        if self._places.acquire(timeout=WAIT_S):
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and keep the place for a moment."""
        limit = threading.Timer(REQUEST_S, _cut_off, (request,))
        limit.daemon = True
        limit.start()
        try:
            super().process_request_thread(request, client_address)
            limit.cancel()
            time.sleep(PAUSE_S)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that goes away is none of the stream's business."""


def _cut_off(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def _handler(answers: dict[str, tuple[str, Cached]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_S

        def do_GET(self) -> None:
            """Answer one request."""
            kind, answer = answers.get(self.path.partition("?")[0], ("text/plain; charset=utf-8", None))
            body = b"not found\n" if answer is None else answer()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Handler
