"""Figures are served right, to this machine, and so seldom that the stream doesn't feel it."""

import gzip
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from peaknet_pipeline.infer import figure_server
from peaknet_pipeline.infer.figure_server import SHARE, Cached, Served, serve_figures
from peaknet_pipeline.infer.live_figures import LiveFigures
from peaknet_pipeline.infer.prometheus import metrics_text


def test_metrics_are_well_formed() -> None:
    text = metrics_text(LiveFigures(10, 5, 4, 50, 12.5, 0.1, 0.2)).decode()
    values = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    assert values["peaknet_frames_total"] == 10
    assert values["peaknet_hit_rate"] == 0.5
    assert values['peaknet_latency_seconds{quantile="0.99"}'] == 0.2
    assert text.endswith("\n")
    for name in {name.partition("{")[0] for name in values}:
        assert text.count(f"# TYPE {name} ") == text.count(f"# HELP {name} ") == 1


def get(address: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(address, timeout=10) as response:  # noqa: S310
        return response.headers["Content-Type"], response.read()


def test_figures_are_served_on_this_machine_only() -> None:
    shown = {"/powder.png": Served("image/png", lambda: b"png")}
    with serve_figures(lambda: LiveFigures(frames=7), shown=shown) as address:
        assert address.startswith("http://127.0.0.1:")
        kind, body = get(f"{address}/metrics?x=1")
        assert "version=0.0.4" in kind
        assert b"peaknet_frames_total 7" in body
        assert json.loads(get(f"{address}/figures.json")[1])["frames"] == 7
        assert get(f"{address}/powder.png") == ("image/png", b"png")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{address}/../etc/passwd")
    with pytest.raises(urllib.error.URLError):
        get(f"{address}/metrics")


def test_what_is_not_measured_is_not_told() -> None:
    text = metrics_text(LiveFigures(frames=3))
    assert b"peaknet_index" not in text
    assert b"peaknet_waiting" not in text
    assert b"peaknet_waiting_frames 4.0" in metrics_text(LiveFigures(waiting=4))


def test_an_answer_is_made_anew_only_once_in_a_while() -> None:
    now, made = [0.0], []

    def make() -> bytes:
        made.append(now[0])
        now[0] += 2.0  # seconds that it takes
        return str(len(made)).encode()

    cached = Cached(make, least_s=5.0, clock=lambda: now[0], work=lambda: now[0])
    assert [cached(), cached()] == [b"1", b"1"]
    now[0] = 2.0 + 2.0 / SHARE - 0.1
    assert cached() == b"1"
    now[0] += 0.2
    assert cached() == b"2"
    assert len(made) == 2


def test_while_one_client_waits_for_a_new_picture_the_others_get_the_old_one() -> None:
    begun, go_on, n = threading.Event(), threading.Event(), []

    def make() -> bytes:
        n.append(1)
        if len(n) == 2:
            begun.set()
            assert go_on.wait(20)
        return str(len(n)).encode()

    cached = Cached(
        make, least_s=0.0, clock=lambda: 0.0, work=lambda: 0.0
    )  # no time passes: an answer is due again at once
    assert cached() == b"1"
    thread = threading.Thread(target=cached)
    thread.start()
    assert begun.wait(20)
    assert cached() == b"1"
    go_on.set()
    thread.join()
    assert cached() in (b"2", b"3")


def test_many_clients_are_answered_a_few_at_a_time_and_the_figures_made_once() -> None:
    made: list[int] = []

    def figures() -> LiveFigures:
        made.append(1)
        return LiveFigures(frames=7)

    def picture() -> bytes:
        return b"png"

    lock, answered = threading.Lock(), []

    def ask(path: str) -> None:
        body = get(f"{address}{path}")[1]
        with lock:
            answered.append(body[:3])

    started = time.monotonic()
    with serve_figures(figures, shown={"/powder.png": Served("image/png", picture)}) as address:
        paths = ["/metrics", "/powder.png", "/figures.json"] * 8
        clients = [threading.Thread(target=ask, args=(path,)) for path in paths]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    seconds = time.monotonic() - started
    assert sorted(answered) == sorted([b"# H", b"png", b'{"f'] * 8)
    assert seconds >= (len(paths) / figure_server.CLIENTS_AT_ONCE - 1) * figure_server.PAUSE_S
    assert len(made) <= 2 * (seconds / figure_server.FIGURES_S + 1)


def answer(address: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask without following where the answer leads."""
    connection = http.client.HTTPConnection(address.split("/")[2], timeout=10)
    connection.request("GET", "/" + address.split("/", 3)[3], headers=headers)
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def test_an_answer_that_a_browser_has_is_not_sent_again_and_packed_ones_are_gzip() -> None:
    shown = {"/hit.bin": Served("application/octet-stream", lambda: b"pixels" * 1000, packed=True)}
    with serve_figures(LiveFigures, shown=shown) as address:
        status, headers, body = answer(f"{address}/hit.bin")
        assert (status, gzip.decompress(body)) == (200, b"pixels" * 1000)
        assert headers["Content-Encoding"] == "gzip"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        status, _, body = answer(f"{address}/hit.bin", **{"If-None-Match": headers["ETag"]})
        assert (status, body) == (304, b"")
        assert answer(f"{address}/hit.bin", **{"If-None-Match": '"another"'})[0] == 200


def test_frames_are_shown_to_requests_that_name_this_machine_only() -> None:
    """A site whose name is made to lead here may read counts, but no frames."""
    with serve_figures(LiveFigures, shown={"/": Served("text/html", lambda: b"page")}) as address:
        assert answer(f"{address}/")[0] == 200
        for name in ("localhost:80", "[::1]:1"):
            assert answer(f"{address}/", Host=name)[0] == 200
        for name in ("evil.example", "127.0.0.1.evil.example", "[", ""):
            assert answer(f"{address}/", Host=name)[0] == 401
        assert answer(f"{address}/metrics", Host="beamline.example")[0] == 200


def test_a_token_opens_the_page_and_goes_into_a_cookie() -> None:
    page, token = Served("text/html", lambda: b"page"), "s3cret"
    with serve_figures(LiveFigures, shown={"/": page}, token=token) as address:
        for refused in ("/", "/?token=", "/?token=s3cre", "/?token=s3cret%0d%0aX:y"):
            assert answer(f"{address}{refused}")[0] == 401
        assert answer(f"{address}/", Cookie="peaknet_live_token=other")[0] == 401
        status, headers, _ = answer(f"{address}/?token=s3cret")
        assert (status, headers["Location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=Strict"} <= set(headers["Set-Cookie"].split("; "))
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert answer(f"{address}/", Cookie=cookie)[::2] == (200, b"page")
        assert answer(f"{address}/metrics")[0] == 200


def test_clients_that_say_nothing_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_server, "REQUEST_S", 0.3)
    with serve_figures(LiveFigures) as address:
        host, port = address.removeprefix("http://").split(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(figure_server.CLIENTS_AT_ONCE)]
        for connection in silent:
            connection.sendall(b"GET /metrics")
        assert b"peaknet_frames_total 0" in get(f"{address}/metrics")[1]
        for connection in silent:
            assert connection.recv(100) == b""
            connection.close()
