"""A run as a stream in one process: reader threads → queue → finder threads → queue → sinks, in frame order.

Any finder fits: the network's :class:`~peaknet_pipeline.infer.engine.Engine` or a classical one.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.batches import Batches, Stretch
from peaknet_pipeline.infer.channel import Channel, StopSignal, StreamStopped, Window
from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.infer.heap import kept_heap
from peaknet_pipeline.infer.occupancy import StageClock, StreamReport, report_stream
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.sinks import PeakSink, TableCollector
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import FrameArray


class FrameReader(Protocol):
    """Gives frames by range, raw, (n, n_panels, ss, fs); a ``runs.run.Run`` is one."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""

    def read(self, start: int, stop: int) -> FrameArray:
        """Return the frames ``start`` to ``stop``."""


RunOpener = Callable[[], AbstractContextManager[FrameReader]]
"""Opens the run anew; called once for each reader thread."""

Finder = Callable[[FrameArray, int], PeakTable | Found]
"""Raw frames and the first one's number to peaks, with or without their pixels; called from each finder thread."""

Progress = Callable[[int, int], None]
"""Frames done and frames in all."""


@dataclass(frozen=True)
class Batch:
    """Consecutive frames on their way, with their peaks once found."""

    number: int
    span: Stretch
    frames: FrameArray
    found: Found | None = None


def stream_run(
    open_run: RunOpener,
    find: Finder,
    *,
    params: StreamParams | None = None,
    sinks: Sequence[PeakSink] | None = None,
    stretches: Sequence[Stretch] | None = None,
    progress: Progress | None = None,
) -> tuple[PeakTable, StreamReport]:
    """Find the peaks of a run, reading, finding and writing at the same time.

    Parameters
    ----------
    open_run : callable
        Opens the run; every reader thread has its own.
    find : callable
        Frames (n, n_panels, ss, fs) and the first frame's number to a PeakTable.
    params : StreamParams, optional
    sinks : sequence of PeakSink, optional
        Take what is found in frame order. None collects the peaks in memory instead.
    stretches : sequence of (first, stop), optional
        The frames that are wanted, ascending; all by default.
    progress : callable, optional
        Called in the calling thread after each batch.

    Returns
    -------
    PeakTable
        All peaks; empty if ``sinks`` were given.
    StreamReport

    Raises
    ------
    StreamError
        The stretches are not within the run.
    BaseException
        Whatever was raised first in any stage: all threads have ended then, and the sinks have given up.

    """
    collector = TableCollector()
    params = params or StreamParams()
    with kept_heap(), open_run() as run:
        wanted = [(0, run.n_frames)] if stretches is None else stretches
        batches = Batches(wanted, params.batch_frames, n_frames=run.n_frames)
        stream = _Stream(run, open_run, find, params, batches)
        report = stream.run([collector] if sinks is None else sinks, progress)
    return collector.table(), report


class _Stream:
    def __init__(
        self,
        run: FrameReader,
        open_run: RunOpener,
        find: Finder,
        params: StreamParams,
        batches: Batches,
    ) -> None:
        self.open_run, self.find, self.params = open_run, find, params
        self.opened: list[FrameReader] = [run]
        self.batches = batches
        self.stop = StopSignal()
        self.window = Window(params.in_flight, len(batches), self.stop)
        self.to_find: Channel[Batch] = Channel(params.queue_batches, params.readers, self.stop)
        self.to_write: Channel[Batch] = Channel(params.queue_batches, params.finders, self.stop)
        self.clocks = (
            StageClock("read", params.readers),
            StageClock("find", params.finders),
            StageClock("write", 1),
        )

    def run(self, sinks: Sequence[PeakSink], progress: Progress | None) -> StreamReport:
        """Run all threads; the calling thread writes, so that it is the one that Ctrl-C interrupts."""
        started = time.perf_counter()
        workers = [(self._read, "read")] * self.params.readers + [(self._find, "find")] * self.params.finders
        threads = [threading.Thread(target=self._guard, args=(work,), name=name) for work, name in workers]
        n_peaks = 0
        try:
            with ExitStack() as stack:
                for sink in sinks:
                    stack.enter_context(sink)
                for thread in threads:
                    thread.start()
                n_peaks = self._write(sinks, progress)
        except StreamStopped:
            raise self.stop.error or StreamError("the stream was stopped") from None
        except BaseException as error:
            self.stop.stop(error)
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        seconds = time.perf_counter() - started
        return report_stream(self.clocks, frames=self.batches.n_frames, peaks=n_peaks, seconds=seconds)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StreamStopped:
            pass
        except BaseException as error:
            self.stop.stop(error)

    def _read(self) -> None:
        clock = self.clocks[0]
        with self._opened() as run:
            while True:
                number, waited = self.window.take()
                clock.add(blocked=waited)
                if number is None:
                    break
                span = self.batches[number]
                with clock.working():
                    frames = run.read(*span)
                clock.add(blocked=self.to_find.put(Batch(number, span, frames)))
        self.to_find.close()

    def _opened(self) -> AbstractContextManager[FrameReader]:
        """Give the run that is open already to the first reader that asks; the others open their own."""
        try:
            return nullcontext(self.opened.pop())
        except IndexError:
            return self.open_run()

    def _find(self) -> None:
        clock = self.clocks[1]
        while True:
            batch, waited = self.to_find.get()
            clock.add(starved=waited)
            if batch is None:
                break
            with clock.working():
                found = as_found(self.find(batch.frames, batch.span[0]))
            done = Batch(batch.number, batch.span, batch.frames, found)
            clock.add(blocked=self.to_write.put(done))
        self.to_write.close()

    def _write(self, sinks: Sequence[PeakSink], progress: Progress | None) -> int:
        clock = self.clocks[2]
        early: dict[int, Batch] = {}
        n_peaks, n_done, next_number = 0, 0, 0
        while next_number < len(self.batches):
            batch, waited = self.to_write.get()
            clock.add(starved=waited)
            if batch is None:
                raise StreamError(
                    "the stream ended early", expected=len(self.batches), found=f"{next_number} batches"
                )
            early[batch.number] = batch
            while (ready := early.pop(next_number, None)) is not None:
                with clock.working():
                    n_peaks += _deliver(ready, sinks)
                next_number += 1
                self.window.finish()
                n_done += len(ready.frames)
                if progress is not None:
                    progress(n_done, self.batches.n_frames)
        return n_peaks


def as_found(found: PeakTable | Found) -> Found:
    """Return what a finder gave as a record."""
    return found if isinstance(found, Found) else Found(found)


def _deliver(batch: Batch, sinks: Sequence[PeakSink]) -> int:
    found = batch.found
    if found is None:
        raise StreamError("the finder gave no table", where=f"frame {batch.span[0]}", found=None)
    for sink in sinks:
        sink.write(found, np.arange(*batch.span))
    return len(found.peaks)
