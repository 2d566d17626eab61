"""A live stream follows what appears, counts it right, and serves its figures."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.arrivals import Arrival, Patience
from peaknet_pipeline.infer.frame_numbers import FrameNumbers
from peaknet_pipeline.infer.live import live_stream
from peaknet_pipeline.infer.live_figures import LiveFigures, LiveStatistics
from peaknet_pipeline.infer.live_sources import (
    CurveKeys,
    FrameSender,
    follow_file,
    follow_folder,
    receive_frames,
)
from peaknet_pipeline.infer.messages import EndMessage, FrameMessage, encode_message
from peaknet_pipeline.infer.sinks import TableCollector
from peaknet_pipeline.schemas import INDEX, IndexTable, PeakTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import FrameArray
from peaknet_pipeline_tests.infer.fakes import one_peak_per_frame

QUICK = Patience(poll_s=0.01, idle_s=0.5)
WRITER = """
import sys, time
import h5py, numpy as np
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    data = file.create_dataset("/data", (0, 6, 5), "i4", maxshape=(None, 6, 5), chunks=(1, 6, 5))
    file.swmr_mode = True
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[2])):
        data.resize(number + 1, axis=0)
        data[number] = number
        data.flush()
        time.sleep(0.004)
    print("done", flush=True)
    sys.stdin.readline()
"""


def loopback() -> str:
    """Return an address on this machine with a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def numbered(numbers: list[int]) -> FrameArray:
    return np.array(numbers, dtype=np.int32)[:, None, None, None] * np.ones((1, 1, 2, 3), dtype=np.int32)


def two_peaks_in_even_frames(frames: FrameArray, first_frame: int) -> PeakTable:
    table = one_peak_per_frame(frames, first_frame)
    return table.loc[table.index.repeat(np.where(frames[:, 0, 0, 0] % 2 == 0, 2, 1))].reset_index(drop=True)


def test_a_growing_file_is_followed_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    command = [sys.executable, "-c", WRITER, str(path), "40"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "open\n"
        source = follow_file(path, "/data", batch_frames=7, n_frames=40, patience=Patience(0.005, 20.0))
        writer.stdin.write("\n")
        writer.stdin.flush()
        arrivals = list(source)
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.wait(timeout=20) == 0
    assert len(arrivals) > 5
    np.testing.assert_array_equal(np.concatenate([a.numbers for a in arrivals]), np.arange(40))
    np.testing.assert_array_equal(np.concatenate([a.frames for a in arrivals])[:, 0, 0, 0], np.arange(40))
    assert arrivals[0].frames.shape[1:] == (1, 6, 5)


LATE_WRITER = """
import sys, time
import h5py, numpy as np
time.sleep(0.2)  # the reader looks for a file that is not there
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    time.sleep(0.3)  # it is locked, and its data set not there yet
    frames = np.arange(6)[:, None, None] * np.ones((1, 6, 5))
    file.create_dataset("/data", data=frames, dtype="i4", maxshape=(None, 6, 5), chunks=(1, 6, 5))
    file.swmr_mode = True
    sys.stdin.readline()
"""


def test_a_file_is_waited_for_until_its_writer_switches_on_swmr(tmp_path: Path) -> None:
    path = tmp_path / "late.h5"
    with subprocess.Popen([sys.executable, "-c", LATE_WRITER, str(path)], stdin=subprocess.PIPE) as writer:
        source = follow_file(path, "/data", batch_frames=4, n_frames=6, patience=Patience(0.005, 20.0))
        arrivals = list(source)
        writer.communicate(b"\n")
    assert writer.returncode == 0
    np.testing.assert_array_equal(np.concatenate([a.frames for a in arrivals])[:, 0, 0, 0], np.arange(6))
    assert [arrival.waiting for arrival in arrivals] == [2, 0]


def test_a_file_that_never_appears_is_an_error_and_a_stopped_wait_is_none(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"cannot be followed \(it is not there\).*Check the path"):
        list(follow_file(tmp_path / "no.h5", "/data", patience=Patience(0.01, 0.1)))
    stop = threading.Event()
    stop.set()
    assert list(follow_file(tmp_path / "no.h5", "/data", patience=Patience(0.01, 20.0, stop))) == []


def test_a_file_that_stops_growing_ends_the_source(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w", libver="latest") as file:
        file.create_dataset("/data", data=np.zeros((5, 6, 5), "i4"), maxshape=(None, 6, 5), chunks=(1, 6, 5))
    started = time.monotonic()
    arrivals = list(follow_file(tmp_path / "run.h5", "/data", patience=QUICK))
    assert sum(len(a.numbers) for a in arrivals) == 5
    assert time.monotonic() - started >= 0.5


def test_a_stop_event_ends_the_source_though_there_are_frames(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w", libver="latest") as file:
        file.create_dataset("/data", data=np.zeros((5, 6, 5), "i4"), maxshape=(None, 6, 5), chunks=(1, 6, 5))
    stop = threading.Event()
    source = follow_file(tmp_path / "run.h5", "/data", batch_frames=2, patience=Patience(5.0, 60.0, stop))
    assert len(next(source).numbers) == 2
    stop.set()
    assert list(source) == []


def test_a_silent_source_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w", libver="latest") as file:
        file.create_dataset("/data", data=np.zeros((5, 6, 5), "i4"), maxshape=(None, 6, 5), chunks=(1, 6, 5))
    idle: list[float] = []
    patience = Patience(0.01, 0.2, on_idle=idle.append)
    assert sum(len(a.numbers) for a in follow_file(tmp_path / "run.h5", "/data", patience=patience)) == 5
    assert len(idle) == 1
    assert idle[0] >= 0.2


def test_a_file_that_is_cut_off_while_followed_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with h5py.File(path, "w", libver="latest") as file:
        chunks = {"maxshape": (None, 60, 50), "chunks": (1, 60, 50)}
        file.create_dataset("/data", data=np.ones((50, 60, 50), "i4"), **chunks)
    source = follow_file(path, "/data", batch_frames=5, patience=QUICK)
    next(source)
    with path.open("r+b") as handle:
        handle.truncate(path.stat().st_size // 2)
    with pytest.raises(StreamError, match=r"cannot be followed any more.*cut off or replaced"):
        list(source)


def raw_message(address: str, messages: list[list[bytes]]) -> None:
    import zmq

    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(address)
        for parts in messages:
            socket.send_multipart(parts)


def header(**changed: object) -> bytes:
    values = {"format": "peaknet-frame-1", "type": "frame", "frame": 7, "shape": [1, 2, 3]}
    values |= {"dtype": "int32", "timestamp": 1.0, **changed}
    return json.dumps(values).encode()


PIXELS = bytes(24)
UNUSABLE = [
    [b"noise"],
    [b"{}", b"x", b"y"],
    [b"[" * 60_000, PIXELS],
    [header(timestamp=float("inf")), PIXELS],
    [header().replace(b"1.0", b"1" + b"0" * 400), PIXELS],
    [header().replace(b"1.0", b"1" + b"0" * 5000), PIXELS],
    [header(source=["a"]), PIXELS],
    [header(source="\x1b[2J"), PIXELS],
    [header(dtype={"a": 1}), PIXELS],
    [header(dtype="\ud800"), PIXELS],
    [header(shape=[1, 2, 2]), bytes(16)],
    [header(), PIXELS + b"."],
    [header(frame=-1), PIXELS],
    [b"x"] * 2000,
]


def frame_message(number: int, source: str = "detector") -> list[bytes]:
    return encode_message(FrameMessage(number, numbered([number])[0], 1.0, source))


def received(messages: list[list[bytes]], **options: Any) -> tuple[LiveStatistics, TableCollector, list[str]]:
    """Stream messages that are sent to a new address until an end that counts."""
    pytest.importorskip("zmq", reason="the extra [live] is not installed")
    address, sink, told = loopback(), TableCollector(), []
    statistics = LiveStatistics(min_peaks=1, say=told.append)
    sender = threading.Thread(target=raw_message, args=(address, messages))
    sender.start()
    source = receive_frames(
        address, shape=(1, 2, 3), refuse=statistics.refuse, patience=Patience(0.05, 20.0), **options
    )
    live_stream(source, one_peak_per_frame, statistics, sinks=[sink])
    sender.join()
    return statistics, sink, told


def test_what_cannot_be_used_is_left_out_before_and_between_frames_and_each_kind_named_once() -> None:
    end = encode_message(EndMessage())
    messages = [*UNUSABLE, frame_message(0), frame_message(1), *UNUSABLE, *UNUSABLE, frame_message(2), end]
    statistics, sink, told = received(messages)
    figures = statistics.figures()
    assert (figures.frames, figures.refused) == (3, 3 * len(UNUSABLE))
    assert list(sink.table()["frame"]) == [0, 1, 2]
    assert 5 < len(told) <= len(UNUSABLE)
    assert all(line.isprintable() and line.isascii() and len(line) < 500 for line in told)


def test_a_frame_sent_twice_counts_once() -> None:
    messages = [frame_message(n) for n in (4, 0, 4, 1, 0)] + [encode_message(EndMessage())]
    statistics, sink, told = received(messages, taken=FrameNumbers([1]))
    assert sorted(sink.table()["frame"]) == [0, 4]
    assert statistics.figures().refused == 3
    assert "sent twice counts once" in told[0]


def test_only_a_sender_of_frames_can_end_the_stream() -> None:
    stranger = encode_message(EndMessage("stranger"))
    messages = [stranger, frame_message(0), stranger, frame_message(1), encode_message(EndMessage())]
    statistics, sink, told = received(messages)
    assert list(sink.table()["frame"]) == [0, 1]
    assert statistics.figures().refused == 2
    assert "an end from a sender of no frames, found stranger" in told[0]


def test_a_message_much_larger_than_a_frame_is_not_taken_in() -> None:
    """The connection of its sender is cut off; it connects again, and the frames of others go on."""
    pytest.importorskip("zmq", reason="the extra [live] is not installed")
    address, told = loopback(), []
    source = receive_frames(address, shape=(1, 2, 3), refuse=told.append, patience=Patience(0.05, 20.0))
    flood = threading.Thread(target=raw_message, args=(address, [[header(), bytes(200_000)]]))
    flood.start()
    sender = threading.Thread(target=send, args=(address, "detector", [0, 1, 2]))
    sender.start()
    arrivals = list(source)
    flood.join()
    sender.join()
    assert [n for arrival in arrivals for n in arrival.numbers] == [0, 1, 2]
    assert told == []


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    auth = pytest.importorskip("zmq.auth", reason="the extra [live] is not installed")
    for name in ("receiver", "detector", "stranger"):
        auth.create_certificates(tmp_path, name)
    (tmp_path / "known").mkdir()
    shutil.copy(tmp_path / "detector.key", tmp_path / "known")
    return tmp_path


def test_with_keys_only_known_senders_are_heard(keys: Path) -> None:
    address, told = loopback(), []
    source = receive_frames(
        address,
        shape=(1, 2, 3),
        refuse=told.append,
        keys=CurveKeys(keys / "receiver.key_secret", keys / "known"),
        patience=Patience(0.05, 20.0),
    )

    def send_as(name: str | None, numbers: list[int], linger_s: float) -> None:
        own = None if name is None else CurveKeys(keys / f"{name}.key_secret", keys / "receiver.key")
        with FrameSender(address, source=str(name), keys=own, linger_s=linger_s) as sender:
            import zmq

            sender._socket.setsockopt(zmq.SNDTIMEO, int(1000 * linger_s))
            with contextlib.suppress(zmq.Again):
                for number in numbers:
                    sender.send(number, numbered([number])[0])
                return
            raise ConnectionError

    def refused(name: str | None) -> None:
        with contextlib.suppress(ConnectionError, Exception):
            send_as(name, [7, 8], 0.5)

    strangers = [threading.Thread(target=refused, args=(name,)) for name in ("stranger", None)]
    for thread in strangers:
        thread.start()
    sender = threading.Thread(target=send_as, args=("detector", [0, 1, 2], 20.0))
    sender.start()
    arrivals = list(source)
    for thread in (*strangers, sender):
        thread.join()
    assert [n for arrival in arrivals for n in arrival.numbers] == [0, 1, 2]
    assert told == []


def test_a_folder_without_keys_of_senders_is_refused(keys: Path) -> None:
    (keys / "none").mkdir()
    with pytest.raises(StreamError, match="no public keys of senders"):
        list(receive_frames(loopback(), keys=CurveKeys(keys / "receiver.key_secret", keys / "none")))
    with pytest.raises(StreamError, match="no secret key"):
        list(receive_frames(loopback(), keys=CurveKeys(keys / "receiver.key", keys / "known")))


def test_files_that_are_no_keys_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="the extra [live] is not installed")
    (tmp_path / "no.key_secret").write_text("nothing")
    with pytest.raises(StreamError, match="not a key file"):
        list(receive_frames(loopback(), keys=CurveKeys(tmp_path / "no.key_secret", tmp_path)))
    with pytest.raises(StreamError, match=r"not a key file.*create_certificates"):
        FrameSender(loopback(), keys=CurveKeys(tmp_path / "no.key_secret", tmp_path / "no.key_secret"))


def test_only_hits_reach_the_sinks_when_asked() -> None:
    sink = TableCollector()
    figures = live_stream(
        arrivals(10), two_peaks_in_even_frames, LiveStatistics(min_peaks=2), sinks=[sink], hits_only=True
    )
    assert (figures.frames, figures.peaks) == (10, 15)
    assert sorted(set(sink.table()["frame"])) == [0, 2, 4, 6, 8]


def test_files_that_cannot_be_followed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.h5").write_bytes(b"not HDF5" * 100)
    with pytest.raises(StreamError, match="cannot be followed"):
        list(follow_file(tmp_path / "noise.h5", "/data"))
    with h5py.File(tmp_path / "run.h5", "w", libver="latest") as file:
        file["/other"] = np.zeros((2, 3, 4))
    with pytest.raises(StreamError, match="no such data set"):
        list(follow_file(tmp_path / "run.h5", "/data"))


def test_new_files_in_a_folder_are_read_once_each(tmp_path: Path) -> None:
    def write(name: str, values: list[int]) -> None:
        with h5py.File(tmp_path / name, "w") as file:
            file["/entry_1/data_1/data"] = np.array(values)[:, None, None] * np.ones((1, 6, 5), "i4")

    write("r1.h5", [0, 1, 2])
    (tmp_path / "notes.txt").write_text("no run")
    source = follow_folder(tmp_path, settle_s=0.0, patience=Patience(0.05, 3.0), batch_frames=2)
    seen = [next(source), next(source)]
    write("r2.h5", [3, 4])
    seen += list(source)
    np.testing.assert_array_equal(np.concatenate([a.numbers for a in seen]), np.arange(5))
    np.testing.assert_array_equal(np.concatenate([a.frames for a in seen])[:, 0, 0, 0], np.arange(5))


def send(address: str, source: str, numbers: list[int]) -> None:
    with FrameSender(address, source=source) as sender:
        for number in numbers:
            sender.send(number, numbered([number])[0])


def test_frames_of_two_senders_all_arrive(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="the extra [live] is not installed")
    address = loopback()
    threads = [
        threading.Thread(target=send, args=(address, name, list(range(first, 60, 2))))
        for first, name in enumerate(("even", "odd"))
    ]
    for thread in threads:
        thread.start()
    statistics, sink = LiveStatistics(min_peaks=2), TableCollector()
    source = receive_frames(address, n_sources=2, patience=Patience(0.05, 20.0))
    figures = live_stream(source, two_peaks_in_even_frames, statistics, sinks=[sink])
    for thread in threads:
        thread.join()
    assert (figures.frames, figures.hits, figures.peaks) == (60, 30, 90)
    table = sink.table().drop_duplicates("frame").sort_values("frame")
    np.testing.assert_array_equal(table["frame"], np.arange(60))
    np.testing.assert_array_equal(table["intensity"], np.arange(60))
    powder = statistics.virtual_powder()
    assert powder is not None
    assert powder.max() == powder.min() == 59
    assert 0 <= figures.latency_p50_s <= figures.latency_p99_s < 20


def test_a_sender_waits_for_its_receiver(tmp_path: Path) -> None:
    """More frames than the queues hold are sent long before there is anyone to receive them."""
    pytest.importorskip("zmq", reason="the extra [live] is not installed")
    address = loopback()
    thread = threading.Thread(target=send, args=(address, "early", list(range(80))))
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()
    arrivals = list(receive_frames(address, patience=Patience(0.05, 20.0)))
    thread.join()
    np.testing.assert_array_equal(np.concatenate([a.numbers for a in arrivals]), np.arange(80))


def test_a_receiver_without_senders_ends_after_its_patience(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="the extra [live] is not installed")
    assert list(receive_frames(loopback(), patience=Patience(0.01, 0.2))) == []


def test_an_address_that_cannot_be_bound_is_refused() -> None:
    pytest.importorskip("zmq", reason="the extra [live] is not installed")
    with pytest.raises(StreamError, match="cannot be bound"):
        list(receive_frames("tcp://256.0.0.1:1"))


def arrivals(n: int) -> Iterator[Arrival]:
    for number in range(0, n, 2):
        yield Arrival(np.array([number + 1, number]), numbered([number + 1, number]), np.full(2, 1000.0))


def one_lattice_per_frame(peaks: PeakTable) -> IndexTable:
    frames = peaks["frame"].unique()
    zeros = {name: np.zeros(len(frames)) for name in INDEX.column_names()}
    return make_table(INDEX, {**zeros, "frame": frames})


def test_figures_are_counts_over_frames() -> None:
    statistics = LiveStatistics(min_peaks=2, clock=lambda: 1000.25)
    seen: list[LiveFigures] = []
    figures = live_stream(
        arrivals(10),
        two_peaks_in_even_frames,
        statistics,
        index=one_lattice_per_frame,
        report=seen.append,
    )
    assert (figures.frames, figures.hits, figures.indexed, figures.peaks) == (10, 5, 5, 15)
    assert (figures.hit_rate, figures.indexing_rate, figures.indexing_yield) == (0.5, 1.0, 0.5)
    assert figures.latency_p50_s == figures.latency_p99_s == 0.25
    assert [f.frames for f in seen] == [2, 4, 6, 8, 10]


def test_the_mean_rate_is_that_of_the_whole_stream() -> None:
    now = 1000.0
    statistics = LiveStatistics(min_peaks=2, clock=lambda: now)
    peaks = one_peak_per_frame(numbered([0, 1]), 0)
    for now in (1000.0, 1000.5, 1020.0):
        statistics.add(Arrival(np.arange(2), numbered([0, 1]), np.full(2, now)), peaks)
    now = 1500.0
    assert statistics.figures().mean_frames_per_second == pytest.approx(4 / 20)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    now = 1000.0
    statistics = LiveStatistics(min_peaks=2, clock=lambda: now)
    peaks = one_peak_per_frame(numbered([0, 1]), 0)
    for now in (1000.0, 1000.5, 1001.0, 1001.5):
        statistics.add(Arrival(np.arange(2), numbered([0, 1]), np.full(2, now)), peaks)
    assert statistics.figures().frames_per_second == pytest.approx(4.0)
    now = 1008.0
    assert statistics.figures().frames_per_second == pytest.approx(6 / 8)
    now = 1100.0
    assert statistics.figures().frames_per_second == 0.0


def test_no_frames_give_zeros() -> None:
    statistics = LiveStatistics(min_peaks=2)
    figures = live_stream(iter(()), one_peak_per_frame, statistics)
    assert figures == LiveFigures()
    assert (figures.hit_rate, figures.indexed, figures.indexing_rate) == (0.0, None, 0.0)
    assert statistics.virtual_powder() is None


class BrokenError(Exception):
    pass


def broken_source() -> Iterator[Arrival]:
    yield from arrivals(4)
    raise BrokenError("source")


def broken_report(figures: LiveFigures) -> None:
    raise BrokenError("report")


@pytest.mark.parametrize("where", ["source", "report"])
def test_an_exception_of_the_source_or_the_report_ends_the_live_stream(where: str) -> None:
    with pytest.raises(BrokenError, match=where):
        live_stream(
            broken_source() if where == "source" else arrivals(1000),
            one_peak_per_frame,
            LiveStatistics(min_peaks=1),
            report=broken_report if where == "report" else None,
        )
    assert not [t for t in threading.enumerate() if t.name in ("receive", "find")]


def test_a_frame_that_the_finder_fails_on_is_left_out_alone() -> None:
    def find(frames: FrameArray, first_frame: int) -> PeakTable:
        if (frames[:, 0, 0, 0] == 5).any():
            raise BrokenError("finder")
        return one_peak_per_frame(frames, first_frame)

    sink, told = TableCollector(), []
    statistics = LiveStatistics(min_peaks=1, say=told.append)
    figures = live_stream(arrivals(10), find, statistics, sinks=[sink])
    assert (figures.frames, figures.refused) == (9, 1)
    assert list(sink.table()["frame"]) == [1, 0, 3, 2, 4, 7, 6, 9, 8]
    assert told == ["left out: no peaks can be found in a frame (BrokenError), found finder, frame 5"]


def test_a_hit_that_the_indexer_fails_on_does_not_index() -> None:
    def index(peaks: PeakTable) -> IndexTable:
        if (peaks["frame"] == 4).any():
            raise BrokenError("indexer")
        return one_lattice_per_frame(peaks)

    statistics = LiveStatistics(min_peaks=1)
    figures = live_stream(arrivals(10), one_peak_per_frame, statistics, index=index)
    assert (figures.frames, figures.hits, figures.indexed, figures.refused) == (10, 10, 9, 1)


def test_powder_ignores_nan_and_starts_anew_for_another_detector() -> None:
    statistics = LiveStatistics(min_peaks=1)
    empty = one_peak_per_frame(numbered([]), 0)
    frames = np.array([[[[1.0, np.nan]]], [[[np.nan, 5.0]]]])
    statistics.add(Arrival(np.arange(2), frames, np.zeros(2)), empty)
    powder = statistics.virtual_powder()
    assert powder is not None
    np.testing.assert_array_equal(powder, [[[1.0, 5.0]]])
    statistics.add(Arrival(np.arange(1), np.zeros((1, 2, 3, 3)), np.zeros(1)), empty)
    assert statistics.virtual_powder().shape == (2, 3, 3)  # type: ignore[union-attr]


def test_a_transport_that_can_lose_frames_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="the extra [live] is not installed")
    with pytest.raises(StreamError, match="not an address for frames"):
        FrameSender(f"ipc://{tmp_path}/frames")
