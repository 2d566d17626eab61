"""Frames from the host to the device, without waiting where the device allows it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.types import FrameArray

WIDENED = {np.dtype(np.uint64): np.float64, np.dtype(np.float16): np.float32, np.dtype(np.bool_): np.uint8}
"""What torch computes little with is converted on the host."""


class Lane:
    """One thread's way to the device: a stream and a pinned buffer that is used again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._pinned: Tensor | None = None
        self._arrived: torch.cuda.Event | None = None

    def upload(self, frames: FrameArray) -> Tensor:
        """Return the frames, same shape and dtype (see :data:`WIDENED`), on the device."""
        source = as_tensor(frames)
        if self.stream is None:
            return source.to(self.device)
        if self._arrived is not None:
            self._arrived.synchronize()
        staged = self._stage(source)
        moved = staged.to(self.device, non_blocking=True)
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrived.record(self.stream)
        return moved

    def _stage(self, source: Tensor) -> Tensor:
        n_bytes = source.numel() * source.element_size()
        if self._pinned is None or self._pinned.numel() < n_bytes:
            self._pinned = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
        staged = self._pinned[:n_bytes].view(source.dtype).reshape(source.shape)
        return staged.copy_(source)


class Uploader:
    """Gives every calling thread its own lane."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._local = threading.local()

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """Work on the calling thread's stream within the block."""
        lane: Lane | None = getattr(self._local, "lane", None)
        if lane is None:
            lane = self._local.lane = Lane(self._device)
        with torch.cuda.stream(lane.stream) if lane.stream is not None else nullcontext():
            yield lane


def as_tensor(frames: FrameArray) -> Tensor:
    """View frames as a tensor; foreign byte orders and the types of :data:`WIDENED` are converted."""
    native = frames.dtype.newbyteorder("=")
    array = np.ascontiguousarray(frames, dtype=WIDENED.get(native, native))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def as_int32(raw: Tensor) -> Tensor:
    """Return raw values of at most 16 bits as int32: torch computes little with unsigned ones."""
    return (
        raw.view(torch.int16).to(torch.int32) & 0xFFFF if raw.dtype == torch.uint16 else raw.to(torch.int32)
    )


def as_float32(raw: Tensor) -> Tensor:
    """Return raw values as float32, on the device that holds them."""
    if raw.dtype == torch.uint16:
        return as_int32(raw).to(torch.float32)
    if raw.dtype == torch.uint32:
        return (raw.view(torch.int32).to(torch.int64) & 0xFFFFFFFF).to(torch.float32)
    return raw.to(torch.float32)
