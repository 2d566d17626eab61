"""How busy each stage of a stream was, and which one limits."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class StageReport:
    """One stage: its threads, the seconds they worked (summed over threads) and waited, and their share."""

    name: str
    workers: int
    busy_s: float
    starved_s: float
    """Waiting for input."""
    blocked_s: float
    """Waiting for room in the next queue."""
    busy_fraction: float
    """busy_s / (workers · seconds)"""


@dataclass(frozen=True)
class StreamReport:
    """What a stream did: frames, peaks, wall-clock seconds, and each stage's occupancy."""

    frames: int
    peaks: int
    seconds: float
    stages: tuple[StageReport, ...]

    @property
    def frames_per_second(self) -> float:
        """Frames per second of wall-clock time; 0 without frames."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def limiting_stage(self) -> str:
        """Name of the busiest stage."""
        return max(self.stages, key=lambda stage: stage.busy_fraction).name

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return {
            **asdict(self),
            "stages": [asdict(stage) for stage in self.stages],
            "frames_per_second": self.frames_per_second,
            "limiting_stage": self.limiting_stage,
        }


class StageClock:
    """Adds up the working and waiting time of one stage's threads."""

    def __init__(self, name: str, workers: int) -> None:
        self.name, self.workers = name, workers
        self._busy = self._starved = self._blocked = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the block as work."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(busy=time.perf_counter() - started)

    def add(self, *, busy: float = 0.0, starved: float = 0.0, blocked: float = 0.0) -> None:
        """Add seconds."""
        with self._lock:
            self._busy += busy
            self._starved += starved
            self._blocked += blocked

    def report(self, seconds: float) -> StageReport:
        """Return the totals over a stream of ``seconds``."""
        share = self._busy / (self.workers * seconds) if seconds > 0 else 0.0
        return StageReport(self.name, self.workers, self._busy, self._starved, self._blocked, share)


def report_stream(clocks: Sequence[StageClock], *, frames: int, peaks: int, seconds: float) -> StreamReport:
    """Put the stages' clocks together."""
    return StreamReport(frames, peaks, seconds, tuple(clock.report(seconds) for clock in clocks))
