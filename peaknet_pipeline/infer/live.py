"""Frames as they come: find, count, measure the delay, keep a running virtual powder."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, usable_maximum
from peaknet_pipeline.infer.arrivals import Arrival
from peaknet_pipeline.infer.channel import Channel, StopSignal, StreamStopped
from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.infer.heap import kept_heap
from peaknet_pipeline.infer.sinks import PeakSink
from peaknet_pipeline.infer.stream import Finder, as_found
from peaknet_pipeline.metrics import hit_frames
from peaknet_pipeline.runs.cxi_append import CxiFile
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import Float32Array, IntArray

LATENCIES_KEPT = 10_000
RATE_WINDOW_S = 10.0

Indexer = Callable[[PeakTable], int]
"""Peaks of a batch's hits to the number of frames that index."""


@dataclass(frozen=True)
class LiveFigures:
    """What a live stream has done so far; latencies in seconds from the frame's time to its peaks' writing.

    A frame's time is its sender's, or, from files, when it was read. ``indexed`` is None without indexing; ``refused`` counts
    messages that could not be used; ``waiting`` frames in the followed file that were not taken yet (None: not
    known). ``frames_per_second`` is of the last seconds, ``mean_frames_per_second`` of the whole stream.
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
    ) -> None:
        self.min_peaks, self._usable = min_peaks, usable
        self._clock = clock
        self._lock = threading.Lock()
        self._frames = self._hits = self._peaks = self._refused = 0
        self._indexed: int | None = None
        self._waiting: int | None = None
        self._first: tuple[float, int] | None = None
        self._last = 0.0
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._recent: deque[tuple[float, int]] = deque()
        self._powder: Float32Array | None = None

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

    def refuse(self, error: StreamError) -> None:
        """Count a message that cannot be used; before the first frame it is an error, since all may be so."""
        with self._lock:
            if not self._frames:
                raise error
            self._refused += 1

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


def live_stream(
    source: Iterable[Arrival],
    find: Finder,
    statistics: LiveStatistics,
    *,
    sinks: Sequence[PeakSink] = (),
    cxi: CxiFile | None = None,
    hits_only: bool = False,
    index: Indexer | None = None,
    queue_batches: int = 4,
    report: Callable[[LiveFigures], None] | None = None,
) -> LiveFigures:
    """Find the peaks of frames as they come, until the source ends.

    Parameters
    ----------
    source : iterable of Arrival
        It runs in a thread of its own; when the finder is behind, it waits.
    find : callable
        As for :func:`peaknet_pipeline.infer.stream.stream_run`.
    statistics : LiveStatistics
        Kept up to date; served to others by :mod:`peaknet_pipeline.infer.prometheus`.
    sinks : sequence of PeakSink
        Take the peaks in the order of arrival, with the frames' own numbers.
    cxi : CxiFile, optional
        Takes frames and peaks.
    hits_only : bool
        Sinks and CXI file get hits only.
    index : callable, optional
        Counts the frames that index, among the peaks of hits.
    report : callable, optional
        Called with the figures after each batch.

    Raises
    ------
    BaseException
        Whatever was raised first, in any stage; Ctrl-C ends the stream and discards what the sinks hold.

    """
    stop = StopSignal()
    arrivals: Channel[Arrival] = Channel(queue_batches, 1, stop)
    found: Channel[tuple[Arrival, Found]] = Channel(queue_batches, 1, stop)
    threads = [
        threading.Thread(target=_guarded, args=(stop, _receive, source, arrivals), name="receive"),
        threading.Thread(target=_guarded, args=(stop, _find_all, arrivals, find, found), name="find"),
    ]
    try:
        with ExitStack() as stack:
            stack.enter_context(kept_heap())
            for sink in sinks:
                stack.enter_context(sink)
            if cxi is not None:
                stack.enter_context(cxi)
            for thread in threads:
                thread.start()
            for arrival, batch in _until_end(found):
                peaks = batch.peaks
                hits = hit_frames(peaks, min_peaks=statistics.min_peaks)
                of_hits = peaks[peaks["frame"].isin(hits)]
                wanted = Found(of_hits, batch.pixels) if hits_only else batch
                _write(arrival, wanted, hits if hits_only else arrival.numbers, sinks, cxi)
                n_indexed = None if index is None else index(of_hits) if len(hits) else 0
                statistics.add(arrival, peaks, n_indexed)
                if report is not None:
                    report(statistics.figures())
    except StreamStopped:
        raise stop.error or StreamError("the stream was stopped") from None
    except BaseException as error:
        stop.stop(error)
        raise
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    return statistics.figures()


def _receive(source: Iterable[Arrival], arrivals: Channel[Arrival]) -> None:
    for arrival in source:
        arrivals.put(arrival)
    arrivals.close()


def _find_all(arrivals: Channel[Arrival], find: Finder, found: Channel[tuple[Arrival, Found]]) -> None:
    while (arrival := arrivals.get()[0]) is not None:
        batch = as_found(find(arrival.frames, 0))
        numbers = arrival.numbers[batch.peaks["frame"].to_numpy()]
        peaks = batch.peaks.assign(frame=numbers.astype(np.int32))
        found.put((arrival, Found(peaks, batch.pixels)))
    found.close()


def _until_end(found: Channel[tuple[Arrival, Found]]) -> Iterator[tuple[Arrival, Found]]:
    while (batch := found.get()[0]) is not None:
        yield batch


def _write(
    arrival: Arrival, found: Found, wanted: IntArray, sinks: Sequence[PeakSink], cxi: CxiFile | None
) -> None:
    for sink in sinks:
        sink.write(found, arrival.numbers)
    rows = np.isin(arrival.numbers, wanted)
    if cxi is not None and rows.any():
        cxi.append(found.peaks, arrival.frames[rows], arrival.numbers[rows])


def _guarded(stop: StopSignal, work: Callable[..., None], *arguments: object) -> None:
    try:
        work(*arguments)
    except StreamStopped:
        pass
    except BaseException as error:
        stop.stop(error)
