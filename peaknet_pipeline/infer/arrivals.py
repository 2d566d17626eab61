"""Frames that came together from a live source, and how long a source waits for more."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import PeaknetError, StreamError
from peaknet_pipeline.geometry.usable import Flags
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, IntArray


@dataclass(frozen=True)
class FileFacts:
    """What a file says about its frames, where it does.

    ``bad_pixels`` is its mask, (n_panels, ss, fs); photon energy, eV, and camera length without ``coffset``, m, are the
    medians of the shots that have them; ``flags`` are the limits of usable values.
    """

    bad_pixels: BoolArray | None = None
    photon_energy_ev: float | None = None
    flags: Flags | None = None
    clen_m: float | None = None


@dataclass(frozen=True)
class Arrival:
    """Frames that came together: their numbers (n,), pixels (n, n_panels, ss, fs) and Unix times (n,).

    ``facts`` come with the frames of a file; ``waiting`` is the number of frames that are there but not taken yet, where that
    is known.
    """

    numbers: IntArray
    frames: FrameArray
    times: Float64Array
    facts: FileFacts | None = None
    waiting: int | None = None

    def single_frames(self) -> Iterator["Arrival"]:
        """Yield the frames one by one."""
        for i in range(len(self.numbers)):
            one = slice(i, i + 1)
            yield Arrival(self.numbers[one], self.frames[one], self.times[one], self.facts, self.waiting)


@dataclass(frozen=True)
class Patience:
    """How long a source waits: seconds between looks, and without news before it ends; who may end it, who is told.

    Without ``idle_s`` it waits for ever. ``on_idle`` gets the seconds without news when they end the source.
    """

    poll_s: float = 0.05
    idle_s: float | None = None
    stop: threading.Event | None = None
    on_idle: Callable[[float], None] | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether the source should end now, frames or not."""
        return self.stop is not None and self.stop.is_set()

    def wait(self, since: float) -> bool:
        """Wait a little; return False once the source should end."""
        if self.stop is None:
            time.sleep(self.poll_s)
        elif self.stop.wait(self.poll_s):
            return False
        return self.lasts(since)

    def lasts(self, since: float) -> bool:
        """Return False, and tell, once there was no news for too long."""
        if self.idle_s is None:
            return True
        idle = time.monotonic() - since
        if idle >= self.idle_s and self.on_idle is not None:
            self.on_idle(idle)
        return idle < self.idle_s


Refuse = Callable[[PeaknetError], None]
"""Told why a message, a file or a frame is left out."""


def ignore(error: PeaknetError) -> None:
    """Leave something out in silence."""


def read_usable(
    read: Callable[[int, int], FrameArray], start: int, stop: int, offset: int, path: Path, refuse: Refuse
) -> Iterator[tuple[int, FrameArray]]:
    """Yield the frames numbered ``start`` to ``stop`` of a file, and the number of the first of each batch.

    ``read`` counts from 0, where the numbers count from ``offset``. Where a batch cannot be read, its frames are read one by
    one, and ``refuse`` is told of those that cannot be.
    """
    try:
        yield start, read(start - offset, stop - offset)
    except Exception as error:
        if stop - start > 1:
            for number in range(start, stop):
                yield from read_usable(read, number, number + 1, offset, path, refuse)
        else:
            refuse(
                StreamError("a frame cannot be read", where=path, found=f"{error}, frame {start - offset}")
            )


def arrived_from_file(first: int, frames: FrameArray, facts: FileFacts, waiting: int) -> Arrival:
    """Return frames of a file, numbered from ``first``, that were read now."""
    times = np.full(len(frames), time.time())
    return Arrival(np.arange(first, first + len(frames)), frames, times, facts, waiting)
