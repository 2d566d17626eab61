"""Live frames over a ZeroMQ socket: who receives them, and who sends them."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.arrivals import Arrival, Patience, Refuse
from peaknet_pipeline.infer.messages import EndMessage, FrameMessage, decode_message, encode_message
from peaknet_pipeline.types import FrameArray


def receive_frames(
    address: str,
    *,
    n_sources: int = 1,
    batch_frames: int = 8,
    shape: tuple[int, int, int] | None = None,
    refuse: Refuse | None = None,
    patience: Patience | None = None,
) -> Iterator[Arrival]:
    """Bind a ZeroMQ socket and yield the frames that are pushed to it; see :mod:`peaknet_pipeline.infer.messages`.

    It ends when ``n_sources`` senders have said so, or after ``patience.idle_s`` seconds without a message. Messages that
    are malformed, or whose frame has another shape than ``shape``, are left out; ``refuse`` is told, and without it the first
    of them is an error.

    Raises
    ------
    StreamError
        pyzmq is not installed, the address cannot be used, or a message is malformed.

    """
    patience = patience or Patience()
    _check_address(address)
    zmq = _zmq()
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVHWM, max(2, batch_frames))
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise StreamError(f"the socket cannot be bound ({error})", where=address) from error
        ended: set[str] = set()
        news = time.monotonic()
        while len(ended) < n_sources and not patience.is_stopped:
            if socket.poll(int(1000 * patience.poll_s)):
                news = time.monotonic()
                yield from _group(_take(zmq, socket, batch_frames, ended, shape, refuse or _raise))
            elif not patience.lasts(news):
                return


class FrameSender:
    """Pushes frames to a receiver; for detectors that have no sender of their own, and for tests.

    Sending waits until a receiver is connected and while it is behind. At the end of the block, the receiver has
    ``linger_s`` seconds to fetch the last frames.
    """

    def __init__(
        self, address: str, *, source: str = "detector", high_water: int = 16, linger_s: float = 60.0
    ) -> None:
        _check_address(address)
        zmq = _zmq()
        self._source, self._linger_s = source, linger_s
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, high_water)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.connect(address)

    def __enter__(self) -> "FrameSender":
        """Return the sender."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Say that there are no more frames, unless there is an exception, and close once all are sent."""
        if error[0] is None:
            self._socket.send_multipart(encode_message(EndMessage(self._source)))
        self._socket.close(linger=int(1000 * self._linger_s) if error[0] is None else 0)
        self._context.term()

    def send(self, frame: int, pixels: FrameArray, timestamp: float | None = None) -> None:
        """Send one frame (n_panels, ss, fs), taken at ``timestamp`` (now by default); wait if the receiver is behind."""
        taken = time.time() if timestamp is None else timestamp
        self._socket.send_multipart(encode_message(FrameMessage(frame, pixels, taken, self._source)))


def _check_address(address: str) -> None:
    """Refuse transports that lose frames: a sender that closes an ipc socket takes along what waits in the kernel."""
    if not address.startswith(("tcp://", "inproc://")):
        raise StreamError("not an address for frames", where=address, expected="tcp://HOST:PORT")


def _take(
    zmq: Any,
    socket: Any,
    most: int,
    ended: set[str],
    shape: tuple[int, int, int] | None,
    refuse: Refuse,
) -> list[FrameMessage]:
    """Take the messages that are there, at most ``most``."""
    taken: list[FrameMessage] = []
    with suppress(zmq.Again):
        for _ in range(most):
            parts = socket.recv_multipart(zmq.NOBLOCK)
            try:
                message = decode_message(parts, shape=shape)
            except StreamError as error:
                refuse(error)
                continue
            if isinstance(message, EndMessage):
                ended.add(message.source)
            else:
                taken.append(message)
    return taken


def _raise(error: StreamError) -> None:
    raise error


def _group(messages: list[FrameMessage]) -> Iterator[Arrival]:
    """Put neighbouring messages of the same shape and type together."""
    while messages:
        first = messages[0].pixels
        same = [m for m in messages if (m.pixels.shape, m.pixels.dtype) == (first.shape, first.dtype)]
        messages = [m for m in messages if (m.pixels.shape, m.pixels.dtype) != (first.shape, first.dtype)]
        numbers = np.array([m.frame for m in same], dtype=np.int64)
        yield Arrival(numbers, np.stack([m.pixels for m in same]), np.array([m.timestamp for m in same]))


def _zmq() -> Any:
    try:
        import zmq
    except ImportError as error:
        raise StreamError("pyzmq is not installed", remedy="Install peaknet-pipeline[live].") from error
    return zmq
