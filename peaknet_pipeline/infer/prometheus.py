"""A live stream's figures over HTTP, in Prometheus's text format and as a page for people."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from peaknet_pipeline.infer.live_figures import LiveFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(figures: LiveFigures) -> str:
    """Return the figures in Prometheus's text exposition format."""
    lines: list[str] = []
    rate = None if figures.indexed is None else figures.indexing_rate
    for name, kind, meaning, value in (
        ("frames_total", "counter", "Frames processed.", figures.frames),
        ("hits_total", "counter", "Frames with enough peaks.", figures.hits),
        ("indexed_total", "counter", "Hits that index.", figures.indexed),
        ("peaks_total", "counter", "Peaks found.", figures.peaks),
        ("refused_total", "counter", "Messages that could not be used.", figures.refused),
        ("hit_rate", "gauge", "Hits / frames.", figures.hit_rate),
        ("indexing_rate", "gauge", "Indexed / hits.", rate),
        ("frames_per_second", "gauge", "Frames per second over the last seconds.", figures.frames_per_second),
        ("waiting_frames", "gauge", "Frames in the followed file that are not taken yet.", figures.waiting),
    ):
        if value is None:  # not measured, which is not zero
            continue
        lines += [
            f"# HELP peaknet_{name} {meaning}",
            f"# TYPE peaknet_{name} {kind}",
            f"peaknet_{name} {value}",
        ]
    name = "peaknet_latency_seconds"
    lines += [
        f"# HELP {name} From the frame's time to its written peaks, recent frames.",
        f"# TYPE {name} gauge",
    ]
    lines += [
        f'{name}{{quantile="0.5"}} {figures.latency_p50_s}',
        f'{name}{{quantile="0.99"}} {figures.latency_p99_s}',
    ]
    return "\n".join(lines) + "\n"


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

    def answer(path: str) -> tuple[str, bytes] | None:
        if path == "/metrics":
            return CONTENT_TYPE, metrics_text(figures()).encode()
        if path == "/figures.json":
            return "application/json", json.dumps(asdict(figures())).encode()
        if path == "/powder.png" and powder_png is not None:
            return "image/png", powder_png()
        return None

    server = ThreadingHTTPServer((host, port), _handler(answer))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(answer: Callable[[str], tuple[str, bytes] | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            """Answer one request."""
            found = answer(self.path.partition("?")[0])
            kind, body = found or ("text/plain; charset=utf-8", b"not found\n")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Handler
