"""Frames as ZeroMQ messages: two parts, a JSON header and the raw pixels.

The header is a UTF-8 JSON object:

``format``
    ``"peaknet-frame-1"``.
``type``
    ``"frame"``, or ``"end"`` (one part only): this sender has no more frames.
``source``
    Name of the sender; a receiver that expects several waits for an end from each.
``frame``
    Number of the frame in the run, from 0.
``shape``
    ``[n_panels, ss, fs]``.
``dtype``
    ``uint8``, ``int16``, ``uint16``, ``int32``, ``uint32``, ``float32`` or ``float64``, little-endian, C order.
``timestamp``
    When the frame was taken, Unix time in seconds; latencies are counted from it.

The socket pair is PUSH (sender) and PULL (receiver): with several receivers each frame goes to one of them, and a
sender waits while its receivers are behind.
"""

import json
import math
from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.types import FrameArray

FORMAT = "peaknet-frame-1"
DTYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
MAX_FRAME_BYTES = 2**30
MAX_HEADER_BYTES = 64 * 1024
MAX_SOURCE_CHARACTERS = 200
WIDEST_BYTES = 8
"""Bytes of a pixel of the widest type."""


@dataclass(frozen=True)
class FrameMessage:
    """One frame on its way: its number, pixels (n_panels, ss, fs), Unix time and sender."""

    frame: int
    pixels: FrameArray
    timestamp: float
    source: str = "detector"


@dataclass(frozen=True)
class EndMessage:
    """A sender's last word."""

    source: str = "detector"


def encode_message(message: FrameMessage | EndMessage) -> list[bytes]:
    """Return the message's parts.

    Raises
    ------
    StreamError
        Pixels that are not (n_panels, ss, fs) of a known type.

    """
    if isinstance(message, EndMessage):
        return [_header({"type": "end", "source": message.source})]
    pixels = message.pixels
    if pixels.ndim != 3 or pixels.dtype.name not in DTYPES:
        found = f"{pixels.shape} {pixels.dtype}"
        raise StreamError(
            "no frame to send", expected=f"(n_panels, ss, fs) of {', '.join(DTYPES)}", found=found
        )
    header = {
        "type": "frame",
        "source": message.source,
        "frame": message.frame,
        "shape": list(pixels.shape),
        "dtype": pixels.dtype.name,
        "timestamp": message.timestamp,
    }
    return [_header(header), np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes()]


def decode_message(
    parts: list[bytes], *, shape: tuple[int, int, int] | None = None
) -> FrameMessage | EndMessage:
    """Return what the parts say; frames have the shape (n_panels, ss, fs) where one is given.

    Raises
    ------
    StreamError
        Naming the first thing that is wrong with them.

    """
    try:
        return _decode(parts, shape)
    except (ValueError, OverflowError, TypeError) as error:  # numbers of any length, types of any kind
        raise _wrong("header", "numbers, text and lists as the format says", error) from error


def _decode(parts: list[bytes], shape: tuple[int, int, int] | None) -> FrameMessage | EndMessage:
    header = _read_header(parts)
    source = header.get("source", "detector")
    if not isinstance(source, str) or not source.isprintable() or len(source) > MAX_SOURCE_CHARACTERS:
        raise _wrong("source", f"a name of at most {MAX_SOURCE_CHARACTERS} printable characters", source)
    if header.get("type") == "end" and len(parts) == 1:
        return EndMessage(source)
    if header.get("type") != "frame" or len(parts) != 2:
        raise _wrong(
            "type and parts", "frame with 2 parts, or end with 1", f"{header.get('type')}, {len(parts)}"
        )
    frame, sides, dtype, timestamp = (header.get(k) for k in ("frame", "shape", "dtype", "timestamp"))
    if not _is_count(frame) or frame > np.iinfo(np.int32).max:  # type: ignore[operator]
        raise _wrong("frame", "a number from 0", frame)
    if dtype not in DTYPES:
        raise _wrong("dtype", f"one of {', '.join(DTYPES)}", dtype)
    if not isinstance(sides, list) or len(sides) != 3 or not all(_is_count(n) and n > 0 for n in sides):
        raise _wrong("shape", "[n_panels, ss, fs]", sides)
    if shape is not None and tuple(sides) != shape:
        raise _wrong("shape", f"{list(shape)}, as the geometry says", sides)
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not math.isfinite(timestamp):
        raise _wrong("timestamp", "Unix time in seconds", timestamp)
    native = np.dtype(str(dtype)).newbyteorder("<")
    size = math.prod(sides) * native.itemsize
    if size > MAX_FRAME_BYTES or len(parts[1]) != size:
        raise _wrong("pixels", f"{size} bytes, at most {MAX_FRAME_BYTES}", f"{len(parts[1])} bytes")
    pixels = np.frombuffer(parts[1], dtype=native).reshape(sides)
    return FrameMessage(int(frame), pixels, float(timestamp), source)  # type: ignore[call-overload]


def largest_part(shape: tuple[int, int, int] | None) -> int:
    """Return how many bytes a part of a message may have, for frames of a shape (n_panels, ss, fs) or of any."""
    frame = MAX_FRAME_BYTES if shape is None else min(WIDEST_BYTES * math.prod(shape), MAX_FRAME_BYTES)
    return max(frame, MAX_HEADER_BYTES)


def _header(values: dict[str, object]) -> bytes:
    return json.dumps({"format": FORMAT, **values}).encode()


def _read_header(parts: list[bytes]) -> dict[str, object]:
    if not parts or len(parts[0]) > MAX_HEADER_BYTES:
        raise _wrong("header", f"at most {MAX_HEADER_BYTES} bytes", len(parts[0]) if parts else "nothing")
    try:
        header = json.loads(parts[0])
    except (ValueError, RecursionError) as error:
        raise _wrong("header", "a JSON object", str(error)) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _wrong(
            "format", FORMAT, header.get("format") if isinstance(header, dict) else type(header).__name__
        )
    return header


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _wrong(what: str, expected: object, found: object) -> StreamError:
    return StreamError(f"a message's {what} cannot be used", expected=expected, found=ascii(found)[:200])
