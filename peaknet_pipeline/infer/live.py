"""Frames as they come: found, counted and written; one that cannot be used is left out."""

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.infer.arrivals import Arrival
from peaknet_pipeline.infer.channel import Channel, StopSignal, StreamStopped
from peaknet_pipeline.infer.found import Found, RawImages
from peaknet_pipeline.infer.heap import kept_heap
from peaknet_pipeline.infer.live_figures import LiveFigures, LiveStatistics
from peaknet_pipeline.infer.sinks import PeakSink
from peaknet_pipeline.infer.stream import Finder, as_found
from peaknet_pipeline.schemas import INDEX, IndexTable, PeakTable
from peaknet_pipeline.tables import empty_table

TICK_S = 1.0
"""Seconds without a frame after which parts are looked after."""

Indexer = Callable[[PeakTable], IndexTable]
"""Peaks of a batch's hits to their lattices."""

Watcher = Callable[[Arrival, PeakTable, IndexTable | None], None]
"""Shown a batch with its peaks and, where that was tried, its lattices."""


def no_tick() -> None:
    """Look after nothing."""


def no_watcher(arrival: Arrival, peaks: PeakTable, lattices: IndexTable | None) -> None:
    """Look at nothing."""


def live_stream(
    source: Iterable[Arrival],
    find: Finder,
    statistics: LiveStatistics,
    *,
    sinks: Sequence[PeakSink] = (),
    with_images: bool = False,
    hits_only: bool = False,
    index: Indexer | None = None,
    watch: Watcher = no_watcher,
    queue_batches: int = 4,
    report: Callable[[LiveFigures], None] | None = None,
    tick: Callable[[], None] = no_tick,
) -> LiveFigures:
    """Find the peaks of frames as they come, until the source ends.

    A frame that the finder or the indexer fails on is left out, and ``statistics`` told.

    Parameters
    ----------
    source : iterable of Arrival
        It runs in a thread of its own; when the finder is behind, it waits.
    find : callable
        As for :func:`peaknet_pipeline.infer.stream.stream_run`.
    statistics : LiveStatistics
        Kept up to date; served to others by :mod:`peaknet_pipeline.infer.prometheus`.
    sinks : sequence of PeakSink
        Take what is found in the order of arrival, with the frames' own numbers.
    with_images : bool
        Sinks get the raw frames too.
    hits_only : bool
        Sinks get peaks and raw frames of hits only.
    index : callable, optional
        Finds the lattices of hits from their peaks.
    watch : callable, optional
        Shown each batch after its peaks are written.
    report : callable, optional
        Called with the figures after each batch.
    tick : callable, optional
        Called about once a second while there are no frames.

    Raises
    ------
    BaseException
        Whatever the source, a sink or the report raised first.

    """
    stop = StopSignal()
    arrivals: Channel[Arrival] = Channel(queue_batches, 1, stop)
    found: Channel[tuple[Arrival, Found]] = Channel(queue_batches, 1, stop)
    threads = [
        threading.Thread(target=_guarded, args=(stop, _receive, source, arrivals), name="receive"),
        threading.Thread(
            target=_guarded, args=(stop, _find_all, arrivals, find, statistics, found), name="find"
        ),
    ]
    try:
        with ExitStack() as stack:
            stack.enter_context(kept_heap())
            for sink in sinks:
                stack.enter_context(sink)
            for thread in threads:
                thread.start()
            for arrival, batch in _until_end(found, tick):
                hits = hit_frames(batch.peaks, min_peaks=statistics.min_peaks)
                of_hits = batch.peaks[batch.peaks["frame"].isin(hits)]
                wanted = dataclasses.replace(batch, peaks=of_hits) if hits_only else batch
                if with_images:
                    rows = np.isin(arrival.numbers, hits) if hits_only else slice(None)
                    images = RawImages.in_memory(arrival.frames[rows], arrival.numbers[rows])
                    wanted = dataclasses.replace(wanted, images=images)
                for sink in sinks:
                    sink.write(wanted, arrival.numbers)
                lattices = None if index is None else _index(index, of_hits, statistics)
                n_indexed = None if lattices is None else int(lattices["frame"].nunique())
                statistics.add(arrival, batch.peaks, n_indexed)
                watch(arrival, batch.peaks, lattices)
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


def _find_all(
    arrivals: Channel[Arrival],
    find: Finder,
    statistics: LiveStatistics,
    found: Channel[tuple[Arrival, Found]],
) -> None:
    while (arrival := arrivals.get()[0]) is not None:
        for batch in _find_in(arrival, find, statistics):
            found.put(batch)
    found.close()


def _find_in(arrival: Arrival, find: Finder, statistics: LiveStatistics) -> Iterator[tuple[Arrival, Found]]:
    """Yield what is found in a batch; where the finder fails, frame by frame, without those that it fails on."""
    try:
        batch = as_found(find(arrival.frames, 0))
    except Exception as error:
        if len(arrival.numbers) > 1:
            for one in arrival.single_frames():
                yield from _find_in(one, find, statistics)
        else:
            what = f"no peaks can be found in a frame ({type(error).__name__})"
            statistics.refuse(StreamError(what, found=f"{error}, frame {arrival.numbers[0]}"))
        return
    numbers = arrival.numbers[batch.peaks["frame"].to_numpy()]
    peaks = batch.peaks.assign(frame=numbers.astype(np.int32))
    yield arrival, Found(peaks, batch.pixels)


def _index(index: Indexer, of_hits: PeakTable, statistics: LiveStatistics) -> IndexTable:
    """Return the lattices of hits; where the indexer fails, hit by hit, without those that it fails on."""
    frames = of_hits["frame"].unique()
    try:
        return index(of_hits) if len(frames) else empty_table(INDEX)
    except Exception as error:
        if len(frames) > 1:
            parts = [_index(index, hit, statistics) for _, hit in of_hits.groupby("frame")]
            filled = [part for part in parts if len(part)]
            return pd.concat(filled, ignore_index=True) if filled else empty_table(INDEX)
        what = f"a hit cannot be indexed ({type(error).__name__})"
        statistics.refuse(StreamError(what, found=f"{error}, frame {frames[0]}"))
        return empty_table(INDEX)


def _until_end(
    found: Channel[tuple[Arrival, Found]], tick: Callable[[], None]
) -> Iterator[tuple[Arrival, Found]]:
    while True:
        try:
            batch = found.get(timeout_s=TICK_S)[0]
        except TimeoutError:
            tick()
            continue
        if batch is None:
            return
        yield batch


def _guarded(stop: StopSignal, work: Callable[..., None], *arguments: object) -> None:
    try:
        work(*arguments)
    except StreamStopped:
        pass
    except BaseException as error:
        stop.stop(error)
