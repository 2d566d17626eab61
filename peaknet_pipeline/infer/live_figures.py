"""What a live stream has done so far: counts, rates, delays, a running virtual powder."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, usable_maximum
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.infer.arrivals import Arrival
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import Float32Array

LATENCIES_KEPT = 10_000
RATE_WINDOW_S = 10.0
KINDS_NAMED = 1000
"""Kinds of things left out that are named; more of them are only counted."""


@dataclass(frozen=True)
class LiveFigures:
    """What a live stream has done so far; latencies in seconds from the frame's time to its peaks' writing.

    A frame's time is its sender's, or, from files, when it was read. ``indexed`` is None without indexing; ``refused`` counts
    messages, files and frames that could not be used; ``waiting`` frames in the followed file that were not taken yet (None:
    not known). ``frames_per_second`` is of the last seconds, ``mean_frames_per_second`` of the whole stream.
    """

    frames: int = 0
    hits: int = 0
    indexed: int | None = None
    peaks: int = 0
    frames_per_second: float = 0.0
    latency_p50_s: float = 0.0
    latency_p99_s: float = 0.0
    refused: int = 0
    waiting: int | None = None
    mean_frames_per_second: float = 0.0

    @property
    def hit_rate(self) -> float:
        """hits / frames"""
        return self.hits / self.frames if self.frames else 0.0

    @property
    def indexing_rate(self) -> float:
        """indexed / hits; 0 without indexing"""
        return (self.indexed or 0) / self.hits if self.hits else 0.0

    @property
    def indexing_yield(self) -> float:
        """indexed / frames; 0 without indexing"""
        return (self.indexed or 0) / self.frames if self.frames else 0.0


class LiveStatistics:
    """Running figures and virtual powder; safe to read from other threads while the stream runs."""

    def __init__(
        self,
        *,
        min_peaks: int,
        clock: Callable[[], float] = time.time,
        usable: UsableValues = ALL_VALUES,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.min_peaks, self._usable = min_peaks, usable
        self._clock, self._say = clock, say
        self._named: set[tuple[str, str]] = set()
        self.first_refusal: PeaknetError | None = None
        self._lock = threading.Lock()
        self._frames = self._hits = self._peaks = self._refused = 0
        self._indexed: int | None = None
        self._waiting: int | None = None
        self._first: tuple[float, int] | None = None
        self._last = 0.0
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._recent: deque[tuple[float, int]] = deque()
        self._powder: Float32Array | None = None

    def use(self, usable: UsableValues) -> None:
        """Take these pixel values alone into the virtual powder from now on."""
        self._usable = usable

    def add(self, arrival: Arrival, peaks: PeakTable, n_indexed: int | None = None) -> None:
        """Count a batch whose peaks are written; ``n_indexed`` of its frames index, if that was tried."""
        now = self._clock()
        powder = usable_maximum(arrival.frames, self._usable)
        n_hits = len(hit_frames(peaks, min_peaks=self.min_peaks))
        with self._lock:
            self._frames += len(arrival.frames)
            self._hits += n_hits
            if n_indexed is not None:
                self._indexed = (self._indexed or 0) + n_indexed
            self._waiting, self._last = arrival.waiting, now
            self._first = self._first or (now, len(arrival.frames))
            self._peaks += len(peaks)
            self._latencies.extend(now - arrival.times)
            self._recent.append((now, len(arrival.frames)))
            while len(self._recent) > 1 and self._recent[0][0] < now - RATE_WINDOW_S:
                self._recent.popleft()
            if self._powder is not None and self._powder.shape == powder.shape:
                powder = np.fmax(self._powder, powder)
            self._powder = powder

    def refuse(self, error: PeaknetError) -> None:
        """Count a message, file or frame that cannot be used; name the first one of each kind and place."""
        kind = (error.what, str(error.where))
        with self._lock:
            self._refused += 1
            self.first_refusal = self.first_refusal or error
            is_new = kind not in self._named and len(self._named) < KINDS_NAMED
            if is_new:
                self._named.add(kind)
        if is_new:
            self._say(f"left out: {error}")

    def figures(self) -> LiveFigures:
        """Return the figures so far; the rate is that of the last seconds."""
        now = self._clock()
        with self._lock:
            latencies = np.array(self._latencies) if self._latencies else np.zeros(1)
            recent = [(when, n) for when, n in self._recent if when >= now - RATE_WINDOW_S]
            # A batch is counted when it is done: the first one's work lies before the span.
            rate = sum(n for _, n in recent[1:]) / max(now - recent[0][0], 1e-3) if recent else 0.0
            p50, p99 = (float(q) for q in np.percentile(latencies, (50, 99)))
            counts = (self._frames, self._hits, self._indexed, self._peaks)
            since, n_first = self._first or (0.0, 0)
            mean = (self._frames - n_first) / (self._last - since) if self._last > since > 0 else 0.0
            return LiveFigures(*counts, rate, p50, p99, self._refused, self._waiting, mean)

    def virtual_powder(self) -> Float32Array | None:
        """Return each pixel's highest usable value so far, (n_panels, ss, fs); None before the first frame."""
        with self._lock:
            return None if self._powder is None else self._powder.copy()
