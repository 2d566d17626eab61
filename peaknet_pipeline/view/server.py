"""The web server of the page: every answer is of a run that was opened, by its place in the list and a frame's number.

No address names a file, none is written but the mask that the user draws, as a new file in the folder that the command
line chose. Away from the loopback interface every request needs the token that the command prints.
"""

import hmac
import json
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from peaknet_pipeline.errors import ParameterError, PeaknetError, printable
from peaknet_pipeline.view.drawn_mask import draw_mask, save_mask
from peaknet_pipeline.view.openers import Opener
from peaknet_pipeline.view.scene import Scene
from peaknet_pipeline.view.tune import Tuner, finder_forms

PAGE = Path(__file__).with_name("page")
FILES = {"": "index.html", "app.js": "app.js", "image.js": "image.js", "style.css": "style.css"}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
COOKIE = "peaknet_token"
MAX_BODY_BYTES = 2**20
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page runs its own two scripts and nothing else, whatever a file's names hold."""


class Viewer:
    """The runs that may be looked at; each is opened when somebody does, and stays open. Drawn masks go to ``masks_to``."""

    def __init__(self, openers: Sequence[Opener], masks_to: Path) -> None:
        self.openers, self.masks_to = openers, masks_to
        self._open: dict[int, tuple[Scene, Tuner]] = {}
        self._lock = threading.Lock()

    def scene(self, place: int) -> tuple[Scene, Tuner]:
        """Return a run by its place in the list.

        Raises
        ------
        ParameterError
            There is no such place.
        PeaknetError
            The run cannot be opened.

        """
        if not 0 <= place < len(self.openers):
            raise ParameterError("no such run", expected=f"0 to {len(self.openers) - 1}", found=place)
        with self._lock:
            if place not in self._open:
                scene = self.openers[place].open()
                self._open[place] = scene, Tuner(scene)
            return self._open[place]

    def close(self) -> None:
        """Close all runs."""
        for scene, _ in self._open.values():
            scene.close()
        self._open.clear()


class Guard:
    """Lets nothing through without the token, where there is one, and gives every answer its policy."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        given = request.query_params.get("token")
        answer: ASGIApp = self._app
        if self._token is not None and not _same(request.cookies.get(COOKIE), self._token):
            if _same(given, self._token):
                welcome = RedirectResponse("/")
                welcome.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
                answer = welcome
            else:
                text = "Open the address that `peaknet view` printed: it holds the token."
                answer = Response(text, 401, media_type="text/plain")

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        await answer(scope, receive, with_policy)


def _same(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), token.encode())


def make_app(viewer: Viewer, *, token: str | None = None, hosts: Sequence[str] = LOOPBACK) -> Starlette:
    """Return the application that serves some runs.

    Parameters
    ----------
    viewer : Viewer
    token : str, optional
        Without it every request is answered: for the loopback interface.
    hosts : sequence of str
        Names by which the server may be addressed, so that no other site's name can be made to lead here.

    """

    def of_scene(answer: Any) -> Any:
        """Make a route of a function of scene, tuner and request: bad requests and damaged files become messages."""

        async def route(request: Request) -> Response:
            try:
                body = await _body(request)
                return await run_in_threadpool(_answer, request, body)
            except PeaknetError as error:
                return JSONResponse({"error": printable(str(error))}, 400)

        def _answer(request: Request, body: dict[str, Any]) -> Response:
            scene, tuner = viewer.scene(int(request.path_params["run"]))
            number = request.path_params.get("frame", body.get("frame"))
            if number is not None:
                scene.run.check_range(int(number), int(number) + 1)
            made = answer(scene, tuner, number, request, body)
            return made if isinstance(made, Response) else JSONResponse(made)

        return route

    def save(scene: Scene, _t: Tuner, _n: int | None, _r: Request, body: dict[str, Any]) -> Any:
        path, n = save_mask(scene, _shapes(body), viewer.masks_to)
        return {"path": str(path), "n_pixels": n}

    async def runs(_: Request) -> Response:
        return JSONResponse({"runs": [opener.name for opener in viewer.openers], "finders": finder_forms()})

    async def page(request: Request) -> Response:
        name = FILES[request.url.path.lstrip("/")]
        return Response((PAGE / name).read_bytes(), media_type=TYPES[Path(name).suffix])

    get: dict[str, Any] = {
        "about": lambda scene, *_: scene.about(),
        "frames": lambda scene, *_: scene.frames(),
        "layout": lambda scene, *_: _array(scene.layout),
        "reasons": lambda scene, *_: _array(scene.reasons),
        "frame/{frame:int}": lambda scene, _, number, *__: _array(scene.frame(number)),
        "marks/{frame:int}": lambda scene, _, number, *__: scene.marks(number),
        "powder/mean": lambda scene, *_: _array(scene.powder("mean")),
        "powder/max": lambda scene, *_: _array(scene.powder("max")),
    }
    post: dict[str, Any] = {
        "find": lambda scene, tuner, number, _, body: tuner.find(
            _whole(number),
            str(body.get("finder")),
            _mapping(body.get("settings")),
            index=bool(body.get("index")),
        ),
        "mask/count": lambda scene, _t, _n, _r, body: {
            "n_pixels": int(draw_mask(scene, _shapes(body)).sum())
        },
        "mask/save": save,
    }
    routes = [Route(f"/{name}", page) for name in FILES]
    routes += [Route("/api/runs", runs)]
    routes += [Route(f"/api/{{run:int}}/{name}", of_scene(answer)) for name, answer in get.items()]
    routes += [Route(f"/api/{{run:int}}/{name}", of_scene(a), methods=["POST"]) for name, a in post.items()]
    guards = [
        Middleware(Guard, token=token),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
    ]
    return Starlette(routes=routes, middleware=guards)


async def _body(request: Request) -> dict[str, Any]:
    """Return what a page of this server sent; another site's cannot send JSON here without asking first."""
    if request.method != "POST":
        return {}
    if request.headers.get("content-type") != "application/json":
        raise ParameterError(
            "not a request of the page", expected="JSON", found=request.headers.get("content-type")
        )
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > MAX_BODY_BYTES:
            raise ParameterError("the request is too large", expected=f"≤ {MAX_BODY_BYTES} bytes")
    try:
        return _mapping(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise ParameterError("not JSON", found=printable(str(error))) from error


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ParameterError("not names with values", found=type(value).__name__)
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ParameterError("not a frame's number", expected="a whole number", found=value)
    return value


def _shapes(body: dict[str, Any]) -> list[dict[str, Any]]:
    shapes = body.get("shapes")
    if not isinstance(shapes, list):
        raise ParameterError("no shapes", expected="a list", found=type(shapes).__name__)
    return [_mapping(shape) for shape in shapes]


def _array(values: npt.NDArray[Any]) -> Response:
    """Return an array's bytes, little-endian; a header names its type as JavaScript's arrays are named by numpy's."""
    content = np.ascontiguousarray(values).tobytes()
    return Response(content, media_type="application/octet-stream", headers={"x-dtype": values.dtype.str})


def serve(viewer: Viewer, *, host: str, port: int, told: Any) -> None:
    """Serve until interrupted; ``told`` is called with the address to open when the port is taken.

    Raises
    ------
    ParameterError
        The port is in use, or the interface isn't this machine's.

    """
    import socket

    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        remedy = "Choose another --port; 0 takes a free one."
        raise ParameterError(
            f"cannot listen ({error.strerror})", found=f"{host}:{port}", remedy=remedy
        ) from error
    is_own = host in LOOPBACK
    token = None if is_own else secrets.token_urlsafe(16)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/"
    hosts = LOOPBACK if is_own else ("*",)
    app = make_app(viewer, token=token, hosts=hosts)
    told(address if token is None else f"{address}?token={token}")
    config = uvicorn.Config(app, log_level="error", access_log=False)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])
