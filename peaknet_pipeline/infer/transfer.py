"""Frames from the host to the device, without waiting where the device allows it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.types import FrameArray

UNSIGNED_AS_SIGNED = {np.dtype(np.uint32): np.int64, np.dtype(np.uint64): np.float64}
"""What torch computes little with is widened on the host."""


class Lane:
    """One thread's way to the device: a stream and a pinned buffer that is used again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._pinned: Tensor | None = None
        self._arrived: torch.cuda.Event | None = None

    def upload(self, frames: FrameArray) -> Tensor:
        """Return the frames, same shape and dtype (see :data:`UNSIGNED_AS_SIGNED`), on the device."""
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
    """View frames as a tensor; foreign byte orders and 32- and 64-bit unsigned integers are converted."""
    native = frames.dtype.newbyteorder("=")
    dtype = UNSIGNED_AS_SIGNED.get(native, native)
    array = np.ascontiguousarray(frames, dtype=dtype)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
