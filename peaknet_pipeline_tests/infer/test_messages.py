"""Messages come through unchanged, and what is malformed is refused before it can do harm."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.messages import (
    DTYPES,
    FORMAT,
    EndMessage,
    FrameMessage,
    decode_message,
    encode_message,
)
from peaknet_pipeline.types import FrameArray

FRAME = FrameMessage(3, np.arange(24, dtype=np.uint16).reshape(2, 3, 4), 1.7e9, "det")


@settings(max_examples=80, deadline=None)
@given(
    pixels=st.sampled_from(DTYPES).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4))
    ),
    frame=st.integers(0, 2**31 - 1),
    timestamp=st.floats(0, 4e9),
    source=st.text(max_size=20).filter(str.isprintable),
)
def test_frames_come_through(pixels: FrameArray, frame: int, timestamp: float, source: str) -> None:
    for sent in (pixels, pixels.astype(pixels.dtype.newbyteorder(">"))):
        got = decode_message(encode_message(FrameMessage(frame, sent, timestamp, source)))
        assert isinstance(got, FrameMessage)
        assert (got.frame, got.timestamp, got.source) == (frame, timestamp, source)
        assert got.pixels.dtype.name == pixels.dtype.name
        np.testing.assert_array_equal(got.pixels, pixels)


def test_an_end_comes_through() -> None:
    assert decode_message(encode_message(EndMessage("det"))) == EndMessage("det")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "peaknet-frame-2"}, "format"),
        ({"type": "picture"}, "type"),
        ({"type": "end"}, "type"),
        ({"frame": -1}, "frame"),
        ({"frame": 2**31}, "frame"),
        ({"frame": "3"}, "frame"),
        ({"frame": True}, "frame"),
        ({"dtype": "object"}, "dtype"),
        ({"dtype": None}, "dtype"),
        ({"shape": [2, 3]}, "shape"),
        ({"shape": [2, 3, 0]}, "shape"),
        ({"shape": [2, 3, 5]}, "pixels"),
        ({"shape": [2**20, 2**20, 2**20]}, "pixels"),
        ({"shape": "234"}, "shape"),
        ({"timestamp": "now"}, "timestamp"),
        ({"timestamp": float("nan")}, "timestamp"),
    ],
)
def test_malformed_headers_are_refused(change: dict[str, Any], message: str) -> None:
    header, pixels = encode_message(FRAME)
    with pytest.raises(StreamError, match=f"a message's {message}"):
        decode_message([json.dumps({**json.loads(header), **change}).encode(), pixels])


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b""],
        [b"\xff\xfe"],
        [b"[1, 2]"],
        [b"[" * 100_000],
        [json.dumps({"format": FORMAT, "type": "frame"}).encode()],
        [b" " * 100_000],
        encode_message(FRAME)[:1],
        [*encode_message(FRAME), b"more"],
        [encode_message(FRAME)[0], b"short"],
    ],
)
def test_malformed_parts_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(StreamError, match="cannot be used"):
        decode_message(parts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=3))
def test_noise_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(StreamError):
        decode_message(parts)


@pytest.mark.parametrize(
    "pixels", [np.zeros((3, 4)), np.zeros((1, 3, 4), dtype=complex), np.zeros((1, 2, 2), "M8[s]")]
)
def test_what_is_no_frame_is_not_sent(pixels: FrameArray) -> None:
    with pytest.raises(StreamError, match="no frame to send"):
        encode_message(FrameMessage(0, pixels, 0.0))
