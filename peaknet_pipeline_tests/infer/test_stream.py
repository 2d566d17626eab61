"""The stream keeps order, bounds what is under way, ends explicitly, and fails as a whole."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.sinks import ParquetSink, TableCollector
from peaknet_pipeline.infer.stream import stream_run
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import read_table, read_table_metadata
from peaknet_pipeline.types import FrameArray, IntArray
from peaknet_pipeline_tests.infer.fakes import ArrayRun, one_peak_per_frame


def numbered_frames(n: int) -> FrameArray:
    return np.arange(n, dtype=np.int32)[:, None, None, None] * np.ones((1, 2, 3, 4), dtype=np.int32)


def assert_no_stream_threads() -> None:
    assert not [t.name for t in threading.enumerate() if t.name in ("read", "find")]


class SlowRun(ArrayRun):
    """A reader that takes a varying time, so that batches overtake each other."""

    def read(self, start: int, stop: int) -> FrameArray:
        time.sleep(0.004 if (start // 3) % 3 == 0 else 0.0)
        return super().read(start, stop)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 50),
    batch=st.integers(1, 9),
    readers=st.integers(1, 4),
    finders=st.integers(1, 3),
    queue=st.integers(1, 3),
)
def test_every_frame_comes_once_and_in_order(
    n: int, batch: int, readers: int, finders: int, queue: int
) -> None:
    params = StreamParams(batch_frames=batch, readers=readers, finders=finders, queue_batches=queue)
    frames = numbered_frames(n)
    table, report = stream_run(lambda: ArrayRun(frames), one_peak_per_frame, params=params)
    np.testing.assert_array_equal(table["frame"], np.arange(n))
    np.testing.assert_array_equal(table["intensity"], np.arange(n))
    assert (report.frames, report.peaks) == (n, n)
    assert_no_stream_threads()


def test_order_is_kept_when_batches_overtake_each_other() -> None:
    frames = numbered_frames(60)
    params = StreamParams(batch_frames=3, readers=4, finders=3, queue_batches=2)
    table, _ = stream_run(lambda: SlowRun(frames), one_peak_per_frame, params=params)
    np.testing.assert_array_equal(table["frame"], np.arange(60))


def test_stretches_of_the_run() -> None:
    table, report = stream_run(
        lambda: ArrayRun(numbered_frames(30)), one_peak_per_frame, stretches=[(2, 3), (7, 19), (19, 22)]
    )
    np.testing.assert_array_equal(table["frame"], [2, *range(7, 22)])
    np.testing.assert_array_equal(table["intensity"], table["frame"])
    assert report.frames == 16


@pytest.mark.parametrize("stretches", [[(-1, 3)], [(2, 31)], [(5, 4)], [(0, 4), (3, 5)]])
def test_stretches_outside_the_run_or_out_of_order_are_refused(stretches: list[tuple[int, int]]) -> None:
    with pytest.raises(StreamError, match=r"no such frames.*0 … 30"):
        stream_run(lambda: ArrayRun(numbered_frames(30)), one_peak_per_frame, stretches=stretches)


def test_an_empty_queue_is_not_the_end() -> None:
    """The reader stalls long after the finder has emptied the queue; nothing may be lost."""

    class Stalling(ArrayRun):
        def read(self, start: int, stop: int) -> FrameArray:
            time.sleep(0.15)
            return super().read(start, stop)

    params = StreamParams(batch_frames=2, readers=1)
    table, report = stream_run(lambda: Stalling(numbered_frames(6)), one_peak_per_frame, params=params)
    assert len(table) == 6
    assert report.limiting_stage == "read"
    assert report.stages[0].busy_fraction > 0.8
    assert report.stages[1].starved_s > 0.3


def test_the_stream_is_as_fast_as_its_slowest_stage() -> None:
    """Stages that wait, not compute, so that the machine's load counts little: 8, 25 and 5 ms a batch."""

    class Reading(ArrayRun):
        def read(self, start: int, stop: int) -> FrameArray:
            time.sleep(0.008)
            return super().read(start, stop)

    class Writing(TableCollector):
        def write(self, found: Found, numbers: IntArray) -> None:
            time.sleep(0.005)

    def find(frames: FrameArray, first_frame: int) -> PeakTable:
        time.sleep(0.025)
        return peaks

    peaks = one_peak_per_frame(numbered_frames(1), 0)
    params = StreamParams(batch_frames=1, readers=1)
    _, report = stream_run(lambda: Reading(numbered_frames(40)), find, params=params, sinks=[Writing()])
    assert report.limiting_stage == "find"
    assert report.stages[1].busy_fraction >= 0.9


def test_back_pressure_bounds_the_batches_under_way() -> None:
    params = StreamParams(batch_frames=1, readers=3, finders=1, queue_batches=2)
    done = 0
    ahead: list[int] = []

    class Watched(ArrayRun):
        def read(self, start: int, stop: int) -> FrameArray:
            ahead.append(start - done)
            return super().read(start, stop)

    class SlowSink(TableCollector):
        def write(self, found: Found, numbers: IntArray) -> None:
            nonlocal done
            time.sleep(0.01)
            super().write(found, numbers)
            done += 1

    _, report = stream_run(
        lambda: Watched(numbered_frames(80)), one_peak_per_frame, params=params, sinks=[SlowSink()]
    )
    assert max(ahead) <= params.in_flight == 2 * 2 + 3 + 1
    assert report.stages[0].blocked_s > 0.4


class BrokenError(Exception):
    pass


def failing_finder(frames: FrameArray, first_frame: int) -> PeakTable:
    if first_frame >= 12:
        raise BrokenError("finder")
    return one_peak_per_frame(frames, first_frame)


class FailingRun(ArrayRun):
    def read(self, start: int, stop: int) -> FrameArray:
        if start >= 12:
            raise BrokenError("reader")
        return super().read(start, stop)


class UnopenableRun(ArrayRun):
    def __enter__(self) -> "UnopenableRun":
        if threading.current_thread().name == "read":
            raise BrokenError("opener")
        return self


class FailingSink(TableCollector):
    def write(self, found: Found, numbers: IntArray) -> None:
        if numbers[0] >= 12:
            raise BrokenError("sink")


@pytest.mark.parametrize(
    ("run", "find", "sink", "message"),
    [
        (FailingRun, one_peak_per_frame, TableCollector, "reader"),
        (UnopenableRun, one_peak_per_frame, TableCollector, "opener"),
        (ArrayRun, failing_finder, TableCollector, "finder"),
        (ArrayRun, one_peak_per_frame, FailingSink, "sink"),
    ],
)
def test_an_exception_anywhere_stops_everything(
    tmp_path: Path,
    run: type[ArrayRun],
    find: Callable[[FrameArray, int], PeakTable],
    sink: type[TableCollector],
    message: str,
) -> None:
    out = tmp_path / "peaks.parquet"
    params = StreamParams(batch_frames=2, readers=3, finders=2, queue_batches=1)
    with pytest.raises(BrokenError, match=message):
        stream_run(lambda: run(numbered_frames(400)), find, params=params, sinks=[ParquetSink(out), sink()])
    assert_no_stream_threads()
    assert list(tmp_path.iterdir()) == []


def test_parquet_sink_equals_the_collected_table(tmp_path: Path) -> None:
    out = tmp_path / "peaks.parquet"
    frames = numbered_frames(50)
    sink = ParquetSink(out, group_rows=7, extra={"run": "demo-r0001"})
    stream_run(lambda: ArrayRun(frames), one_peak_per_frame, sinks=[sink])
    expected, _ = stream_run(lambda: ArrayRun(frames), one_peak_per_frame)
    assert read_table(out, PEAKS).equals(expected)
    assert read_table_metadata(out)["run"] == "demo-r0001"


@pytest.mark.parametrize("counts", [(3, 20, 0, 5), (7, 7), (0, 0, 1), (30,)])
def test_row_groups_are_full_whatever_the_batches_hold(tmp_path: Path, counts: tuple[int, ...]) -> None:
    whole = one_peak_per_frame(numbered_frames(sum(counts)), 0)
    ends = np.cumsum(counts)
    with ParquetSink(tmp_path / "peaks.parquet", group_rows=7) as sink:
        for n, end in zip(counts, ends, strict=True):
            sink.write(Found(whole.iloc[end - n : end]), np.arange(end - n, end))
    groups = pq.ParquetFile(tmp_path / "peaks.parquet").metadata
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert sizes == [7] * (sum(counts) // 7) + [n for n in [sum(counts) % 7] if n]
    pd.testing.assert_frame_equal(read_table(tmp_path / "peaks.parquet", PEAKS), whole)


def test_a_run_without_peaks_gives_an_empty_file(tmp_path: Path) -> None:
    out = tmp_path / "peaks.parquet"

    def nothing(frames: FrameArray, first_frame: int) -> PeakTable:
        return one_peak_per_frame(frames[:0], first_frame)

    stream_run(lambda: ArrayRun(numbered_frames(5)), nothing, sinks=[ParquetSink(out)])
    assert len(read_table(out, PEAKS)) == 0


def test_progress_counts_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    stream_run(
        lambda: ArrayRun(numbered_frames(20)),
        one_peak_per_frame,
        stretches=[(2, 20)],
        params=StreamParams(batch_frames=8),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(8, 18), (16, 18), (18, 18)]


def test_every_reader_has_a_run_of_its_own() -> None:
    opened: list[str] = []
    params = StreamParams(batch_frames=1, readers=3)
    stream_run(lambda: ArrayRun(numbered_frames(9), opened), one_peak_per_frame, params=params)
    assert len(opened) == 3


INTERRUPTED = """
import signal, sys, time, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from pathlib import Path
import numpy as np
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import stream_run
from peaknet_pipeline_tests.infer.fakes import ArrayRun, one_peak_per_frame

def slow(frames, first_frame):
    print("going", flush=True)
    time.sleep(0.05)
    return one_peak_per_frame(frames, first_frame)

frames = np.ones((100_000, 1, 2, 2), dtype=np.int16)
try:
    stream_run(lambda: ArrayRun(frames), slow, sinks=[ParquetSink(Path(sys.argv[1]), group_rows=1)])
except KeyboardInterrupt:
    print("threads", threading.active_count(), flush=True)
    sys.exit(130)
"""


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path) -> None:
    out = tmp_path / "out" / "peaks.parquet"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        for _ in range(5):
            assert process.stdout.readline() == "going\n"
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(timeout=20) == 130
    assert rest.splitlines()[-1] == "threads 1"
    assert list(out.parent.iterdir()) == []


def test_many_readers_of_one_compressed_file(tmp_path: Path) -> None:
    frames = numbered_frames(60)[:, 0]
    with h5py.File(tmp_path / "run.h5", "w") as file:
        storage = hdf5plugin.Bitshuffle(cname="lz4")
        file.create_dataset("/entry_1/data_1/data", data=frames, chunks=(1, 3, 4), **storage)
    params = StreamParams(batch_frames=3, readers=4)
    table, _ = stream_run(lambda: open_run(tmp_path / "run.h5"), one_peak_per_frame, params=params)
    np.testing.assert_array_equal(table["intensity"], np.arange(60))
