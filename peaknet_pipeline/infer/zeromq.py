"""Live frames over a ZeroMQ socket: who receives them, and who sends them."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.arrivals import Arrival, Patience, Refuse, ignore
from peaknet_pipeline.infer.frame_numbers import FrameNumbers
from peaknet_pipeline.infer.messages import (
    EndMessage,
    FrameMessage,
    decode_message,
    encode_message,
    largest_part,
)
from peaknet_pipeline.types import FrameArray


@dataclass(frozen=True)
class CurveKeys:
    """Keys for ZeroMQ's CURVE: encrypted, and only who is known may send.

    Attributes
    ----------
    own : Path
        This side's secret key file, as ``zmq.auth.create_certificates`` writes it (``NAME.key_secret``).
    others : Path
        The other side's public key: for a sender the receiver's file (``NAME.key``), for a receiver the folder with those of
        all senders that may connect.

    """

    own: Path
    others: Path


def receive_frames(
    address: str,
    *,
    n_sources: int = 1,
    batch_frames: int = 8,
    shape: tuple[int, int, int] | None = None,
    taken: FrameNumbers | None = None,
    refuse: Refuse = ignore,
    keys: CurveKeys | None = None,
    patience: Patience | None = None,
) -> Iterator[Arrival]:
    """Bind a ZeroMQ socket and yield the frames that are pushed to it; see :mod:`peaknet_pipeline.infer.messages`.

    It ends when ``n_sources`` senders of frames have said so, or after ``patience.idle_s`` seconds without a frame. Messages
    that are malformed, whose frame has another shape than ``shape`` or a number that is in ``taken`` or came before, and the
    end of a sender that sent no frame, are left out, and ``refuse`` told. A sender of much more than a frame of ``shape``
    is cut off.

    Raises
    ------
    StreamError
        pyzmq is not installed, the address or a key file cannot be used.

    """
    patience = patience or Patience()
    _check_address(address)
    zmq = _zmq()
    own = None if keys is None else _read_keys(keys.own, secret=True)
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        if keys is not None:
            stack.enter_context(_only_known(context, keys))
        socket = stack.enter_context(context.socket(zmq.PULL))
        socket.setsockopt(zmq.RCVHWM, max(2, batch_frames))
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, largest_part(shape))
        if own is not None:
            socket.curve_publickey, socket.curve_secretkey = own
            socket.curve_server = True
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise StreamError(f"the socket cannot be bound ({error})", where=address) from error
        desk = _Desk(shape, FrameNumbers() if taken is None else taken, refuse)
        news = time.monotonic()
        while len(desk.ended) < n_sources and not patience.is_stopped:
            messages = _take(zmq, socket, batch_frames, desk) if _has_news(socket, patience) else []
            if messages:
                news = time.monotonic()
                yield from _group(messages)
            elif not patience.lasts(news):
                return


class FrameSender:
    """Pushes frames to a receiver; for detectors that have no sender of their own, and for tests.

    Sending waits until a receiver is connected and while it is behind. At the end of the block, the receiver has
    ``linger_s`` seconds to fetch the last frames. With ``keys`` it speaks to a receiver that asks for them.
    """

    def __init__(
        self,
        address: str,
        *,
        source: str = "detector",
        high_water: int = 16,
        linger_s: float = 60.0,
        keys: CurveKeys | None = None,
    ) -> None:
        _check_address(address)
        zmq = _zmq()
        own = None if keys is None else _read_keys(keys.own, secret=True)
        receiver = None if keys is None else _read_keys(keys.others, secret=False)[0]
        self._source, self._linger_s = source, linger_s
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, high_water)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        if own is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey = own
            self._socket.curve_serverkey = receiver
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


class _Desk:
    """Decides which messages count."""

    def __init__(self, shape: tuple[int, int, int] | None, taken: FrameNumbers, refuse: Refuse) -> None:
        self._shape, self._taken, self._refuse = shape, taken, refuse
        self._senders: set[str] = set()
        self.ended: set[str] = set()

    def accept(self, parts: list[bytes]) -> FrameMessage | None:
        """Return the frame of a message; None for an end, and for what is left out."""
        try:
            message = decode_message(parts, shape=self._shape)
        except StreamError as error:
            self._refuse(error)
            return None
        if isinstance(message, EndMessage):
            if message.source in self._senders:
                self.ended.add(message.source)
            else:
                self._refuse(StreamError("an end from a sender of no frames", found=message.source))
            return None
        self._senders.add(message.source)
        if not self._taken.add(message.frame):
            self._refuse(StreamError("a frame that was sent twice counts once", found=message.frame))
            return None
        return message


def _check_address(address: str) -> None:
    """Refuse transports that lose frames: a sender that closes an ipc socket takes along what waits in the kernel."""
    if not address.startswith(("tcp://", "inproc://")):
        raise StreamError("not an address for frames", where=address, expected="tcp://HOST:PORT")


def _has_news(socket: Any, patience: Patience) -> bool:
    return bool(socket.poll(int(1000 * patience.poll_s)))


def _take(zmq: Any, socket: Any, most: int, desk: _Desk) -> list[FrameMessage]:
    """Take the messages that are there, at most ``most``."""
    taken: list[FrameMessage] = []
    with suppress(zmq.Again):
        for _ in range(most):
            message = desk.accept(socket.recv_multipart(zmq.NOBLOCK))
            if message is not None:
                taken.append(message)
    return taken


def _group(messages: list[FrameMessage]) -> Iterator[Arrival]:
    """Put neighbouring messages of the same shape and type together."""
    while messages:
        first = messages[0].pixels
        same = [m for m in messages if (m.pixels.shape, m.pixels.dtype) == (first.shape, first.dtype)]
        messages = [m for m in messages if (m.pixels.shape, m.pixels.dtype) != (first.shape, first.dtype)]
        numbers = np.array([m.frame for m in same], dtype=np.int64)
        yield Arrival(numbers, np.stack([m.pixels for m in same]), np.array([m.timestamp for m in same]))


def _only_known(context: Any, keys: CurveKeys) -> Any:
    """Return a block in which only senders whose public key lies in a folder may connect."""
    from zmq.auth.thread import ThreadAuthenticator

    if not any(keys.others.glob("*.key")):
        raise StreamError("no public keys of senders", where=keys.others, expected="NAME.key files")
    gate = ThreadAuthenticator(context)
    stack = ExitStack()
    gate.start()
    stack.callback(gate.stop)
    gate.configure_curve(domain="*", location=str(keys.others))
    return stack


def _read_keys(path: Path, *, secret: bool) -> tuple[bytes, bytes]:
    """Return the public and the secret key (empty without one) of a key file."""
    from zmq.auth import load_certificate

    try:
        public, private = load_certificate(path)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise StreamError(f"not a key file ({error})", where=path, remedy=KEYS_REMEDY) from error
    if secret and private is None:
        raise StreamError("no secret key", where=path, expected="NAME.key_secret", remedy=KEYS_REMEDY)
    return public, private or b""


KEYS_REMEDY = "zmq.auth.create_certificates(FOLDER, NAME) makes a pair of key files."


def _zmq() -> Any:
    try:
        import zmq
    except ImportError as error:
        raise StreamError("pyzmq is not installed", remedy="Install peaknet-pipeline[live].") from error
    return zmq
