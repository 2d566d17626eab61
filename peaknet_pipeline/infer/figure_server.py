"""A live stream's figures, pictures and page over HTTP, at a cost that the stream does not feel, however many clients ask.

Counts (``/metrics``, ``/figures.json``) are answered to whoever can connect. All that shows frames is guarded: on the loopback
interface only requests that name it are answered, so that no site in a browser can read here by another name; elsewhere only
those with the token.
"""

import hashlib
import hmac
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

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

FIGURES_S = 0.5
"""Seconds for which figures stay as they are, at least."""

SHARE = 0.02
"""Share of the time that may go into making an answer anew."""

COOKIE = "peaknet_live_token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""The page runs its own script and nothing else; a browser keeps answers, and asks each time whether they still hold."""


class Cached:
    """An answer that is made anew once in a while, by one caller; meanwhile the others get the one before.

    It stays for ``least_s`` seconds at least, and for so long that making it takes no more than ``SHARE`` of a core's time.
    ``work`` tells the CPU time of the caller's thread: a wait for others who need the cores does not count.
    """

    def __init__(
        self,
        make: Callable[[], bytes],
        *,
        least_s: float,
        clock: Callable[[], float] = time.monotonic,
        work: Callable[[], float] = time.thread_time,
    ) -> None:
        self._make, self._least_s, self._clock, self._work = make, least_s, clock, work
        self._lock = threading.Lock()
        self._answer: tuple[bytes, str] | None = None
        self._due = 0.0

    def __call__(self) -> bytes:
        """Return the answer."""
        return self.tagged()[0]

    def tagged(self) -> tuple[bytes, str]:
        """Return the answer, and a tag that another answer would not have."""
        if self._lock.acquire(blocking=self._answer is None):
            try:
                if self._answer is None or self._clock() >= self._due:
                    started = self._work()
                    answer = self._make()
                    self._answer = answer, f'"{hashlib.blake2b(answer, digest_size=12).hexdigest()}"'
                    self._due = self._clock() + max(self._least_s, (self._work() - started) / SHARE)
            finally:
                self._lock.release()
        return self._answer or (b"", '""')


@dataclass(frozen=True)
class Served:
    """What is served at a path.

    Attributes
    ----------
    kind : str
        The content type.
    make : callable
        Makes the answer.
    least_s : float
        Seconds for which an answer stays as it is, at least.
    packed : bool
        It is compressed for the way.
    open : bool
        Whoever can connect gets it.

    """

    kind: str
    make: Callable[[], bytes]
    least_s: float = float("inf")
    packed: bool = False
    open: bool = False


@contextmanager
def serve_figures(
    figures: Callable[[], LiveFigures],
    *,
    shown: Mapping[str, Served] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
) -> Iterator[str]:
    """Serve ``/metrics``, ``/figures.json`` and what else is ``shown``, by path, within the block; yield the address.

    Only this machine can connect unless another ``host`` is given; port 0 takes a free one. What is ``shown`` needs the
    ``token``, if there is one; without one it is shown on the loopback interface only.
    """
    counts = {
        "/metrics": Served(
            CONTENT_TYPE_PLAIN_0_0_4, lambda: metrics_text(figures()), least_s=FIGURES_S, open=True
        ),
        "/figures.json": Served(
            "application/json", lambda: json.dumps(asdict(figures())).encode(), least_s=FIGURES_S, open=True
        ),
    }
    answers = {path: (served, _kept(served)) for path, served in (counts | dict(shown or {})).items()}
    server = _PatientServer((host, port), _handler(answers, host, token))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _kept(served: Served) -> Cached:
    make = (lambda: _gzip(served.make())) if served.packed else served.make
    return Cached(make, least_s=served.least_s)


def _gzip(content: bytes) -> bytes:
    packer = zlib.compressobj(level=1, wbits=31)  # 31: in gzip's frame, without a time in it
    return packer.compress(content) + packer.flush()


def _guard(host: str, token: str | None) -> Callable[[str | None, str | None], bool]:
    """Return what tells, by a request's host and token, whether frames may be shown to it."""

    def may_see(asked_host: str | None, given: str | None) -> bool:
        if token is not None:
            return given is not None and hmac.compare_digest(given.encode(), token.encode())
        with suppress(ValueError):
            return host in LOOPBACK and urlsplit(f"//{asked_host}").hostname in LOOPBACK
        return False

    return may_see


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


def _handler(
    answers: Mapping[str, tuple[Served, Cached]], host: str, token: str | None
) -> type[BaseHTTPRequestHandler]:
    may_see = _guard(host, token)

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_S

        def do_GET(self) -> None:
            """Answer one request."""
            path, _, query = self.path.partition("?")
            if path not in answers:
                self._tell(HTTPStatus.NOT_FOUND, "not found")
                return
            served, cached = answers[path]
            in_address = parse_qs(query).get("token", [None])[-1]
            if not served.open and not may_see(self.headers["Host"], in_address or self._kept_token()):
                self._tell(
                    HTTPStatus.UNAUTHORIZED, "Open the address that the stream printed, token and all."
                )
            elif token is not None and in_address == token and not served.open:
                self._keep_token(path, token)
            else:
                self._answer(served, *cached.tagged())

        def _answer(self, served: Served, body: bytes, tag: str) -> None:
            known = tag in (self.headers["If-None-Match"] or "")
            self.send_response(HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK)
            self.send_header("ETag", tag)
            self._send_headers()
            if known:
                self.end_headers()
                return
            self.send_header("Content-Type", served.kind)
            if served.packed:
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _tell(self, status: HTTPStatus, text: str) -> None:
            self.send_response(status)
            self._send_headers()
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.end_headers()
            self.wfile.write(f"{text}\n".encode())

        def _keep_token(self, path: str, token: str) -> None:
            """Have the browser keep the token, so that it does not stay in the address line."""
            self.send_response(HTTPStatus.SEE_OTHER)
            self._send_headers()
            self.send_header("Set-Cookie", f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/")
            self.send_header("Location", path)
            self.end_headers()

        def _kept_token(self) -> str | None:
            with suppress(CookieError):
                kept = SimpleCookie(self.headers["Cookie"] or "").get(COOKIE)
                return None if kept is None else kept.value
            return None

        def _send_headers(self) -> None:
            for name, value in HEADERS.items():
                self.send_header(name, value)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Handler
