"""Where live frames come from: a file that grows, a folder that fills, a ZeroMQ socket."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters)
import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.geometry.crystfel_text import energy_ev
from peaknet_pipeline.geometry.slabs import mask_layers
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.infer.messages import EndMessage, FrameMessage, decode_message, encode_message
from peaknet_pipeline.runs.listing import list_runs
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run_masks import read_run_mask
from peaknet_pipeline.runs.slabs import map_panels, map_plain
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry, IntArray


@dataclass(frozen=True)
class FileFacts:
    """What a file says about its frames: mask (n_panels, ss, fs) and first photon energy in eV, where it does."""

    bad_pixels: BoolArray | None = None
    photon_energy_ev: float | None = None


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


@dataclass(frozen=True)
class Patience:
    """How long a source waits: seconds between looks, and without news before it ends; who may end it, who is told.

    ``on_idle`` gets the seconds without news when they end the source.
    """

    poll_s: float = 0.05
    idle_s: float = 30.0
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
        idle = time.monotonic() - since
        if idle >= self.idle_s and self.on_idle is not None:
            self.on_idle(idle)
        return idle < self.idle_s


def follow_file(
    path: Path,
    data_path: str,
    *,
    geometry: Geometry | None = None,
    batch_frames: int = 8,
    n_frames: int | None = None,
    patience: Patience | None = None,
) -> Iterator[Arrival]:
    """Yield the frames of an HDF5 file that another process is writing in SWMR mode, as they appear.

    A file that is not there yet, or not in SWMR mode yet, is waited for. It ends with frame ``n_frames``, or after
    ``patience.idle_s`` seconds without a new frame. The writer extends the data set and flushes after writing the pixels.

    Raises
    ------
    StreamError
        The file did not appear, cannot be read while it is written, or has no such data set.
    RunError
        The mask that the geometry names cannot be read.

    """
    patience = patience or Patience()
    opened = _open_growing(path, patience)
    if opened is None:
        return
    with opened as file:
        growing = GrowingData(path, file, data_path, geometry)
        facts = _facts_of_growing(path, geometry)
        most = n_frames if n_frames is not None else np.iinfo(np.int64).max
        done, news = 0, time.monotonic()
        while done < most and not patience.is_stopped:
            there = min(growing.count(done), most)
            last = min(there, done + batch_frames)
            if last == done:
                if not patience.wait(news):
                    return
                continue
            yield _arrived(done, growing.read(done, last), facts, there - last)
            done, news = last, time.monotonic()


class GrowingData:
    """A data set that another process extends: it may only grow, in the same file.

    Raises
    ------
    StreamError
        There is no such data set, its first dimension doesn't count frames, or later: the file shrank or was replaced.

    """

    def __init__(self, path: Path, file: Any, data_path: str, geometry: Geometry | None) -> None:
        self._path, self._state = path, path.stat()
        dataset = file.get(data_path)
        if not isinstance(dataset, h5py.Dataset):
            raise StreamError("no such data set", where=path, found=data_path)
        self._dataset = dataset
        self._slabs = map_plain(dataset.shape) if geometry is None else map_panels(dataset.shape, geometry)
        if self._slabs.frame_axis != 0:
            raise StreamError(
                "frames are not counted by the first dimension", where=path, found=dataset.shape
            )

    def count(self, done: int) -> int:
        """Return the frames that are there by now, at least ``done``."""
        try:
            self._dataset.refresh()
        except (OSError, RuntimeError) as error:
            raise self._damaged(done, str(error)) from error
        self._check_file(done)
        n_frames = int(self._dataset.shape[0])
        if n_frames < done:
            raise self._damaged(done, f"it has only {n_frames} frames now")
        return n_frames

    def read(self, start: int, stop: int) -> FrameArray:
        """Return the frames ``start`` to ``stop``, (n, n_panels, ss, fs)."""
        try:
            frames = self._slabs.to_stack(self._dataset[self._slabs.selection(start, stop)])
        except (OSError, RuntimeError, ValueError) as error:
            raise self._damaged(start, str(error)) from error
        self._check_file(start)
        return frames

    def _check_file(self, frame: int) -> None:
        # The HDF5 library reads zeros beyond the end of a file that was cut off.
        try:
            before, now = self._state, self._path.stat()
        except OSError as error:
            raise self._damaged(frame, str(error)) from error
        if now.st_size < before.st_size or now.st_ino != before.st_ino:
            raise self._damaged(frame, f"{before.st_size} bytes have become {now.st_size}")
        self._state = now

    def _damaged(self, frame: int, why: str) -> StreamError:
        return StreamError(
            f"the file cannot be followed any more ({why})",
            where=f"{self._path}, frame {frame}",
            remedy="It was cut off or replaced: follow a file that only its detector writes.",
        )


def follow_folder(
    folder: Path,
    *,
    geometry: Geometry | None = None,
    batch_frames: int = 8,
    settle_s: float = 2.0,
    patience: Patience | None = None,
) -> Iterator[Arrival]:
    """Yield the frames of every complete run file that appears in a folder, numbered through."""
    patience = patience or Patience(poll_s=1.0)
    known: set[Path] = set()
    first, news = 0, time.monotonic()
    while True:
        listed = list_runs(folder, settle_s=settle_s, known=known)
        for path in (run.path for run in listed if run.state == "complete"):
            known.add(path)
            with open_run(path, geometry) as run:
                facts = FileFacts(run.bad_pixels, _first_known(run.photon_energy_ev))
                for start, frames in run.batches(batch_frames):
                    if patience.is_stopped:
                        return
                    waiting = run.n_frames - start - len(frames)
                    yield _arrived(first + start, frames, facts, waiting)
                first += run.n_frames
            news = time.monotonic()
        if not patience.wait(news):
            return


Refuse = Callable[[StreamError], None]
"""Told why a message cannot be used; it may raise the error, which ends the source."""


def receive_frames(
    address: str,
    *,
    n_sources: int = 1,
    batch_frames: int = 8,
    shape: tuple[int, int, int] | None = None,
    refuse: Refuse | None = None,
    patience: Patience | None = None,
) -> Iterator[Arrival]:
    """Bind a ZeroMQ socket and yield the frames that are pushed to it; see :mod:`peaknet_pipeline.infer.messages`.

    It ends when ``n_sources`` senders have said so, or after ``patience.idle_s`` seconds without a message. Messages that
    are malformed, or whose frame has another shape than ``shape``, are left out; ``refuse`` is told, and without it the first
    of them is an error.

    Raises
    ------
    StreamError
        pyzmq is not installed, the address cannot be used, or a message is malformed.

    """
    patience = patience or Patience()
    _check_address(address)
    zmq = _zmq()
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVHWM, max(2, batch_frames))
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise StreamError(f"the socket cannot be bound ({error})", where=address) from error
        ended: set[str] = set()
        news = time.monotonic()
        while len(ended) < n_sources and not patience.is_stopped:
            if socket.poll(int(1000 * patience.poll_s)):
                news = time.monotonic()
                yield from _group(_take(zmq, socket, batch_frames, ended, shape, refuse or _raise))
            elif not patience.lasts(news):
                return


class FrameSender:
    """Pushes frames to a receiver; for detectors that have no sender of their own, and for tests.

    Sending waits until a receiver is connected and while it is behind. At the end of the block, the receiver has
    ``linger_s`` seconds to fetch the last frames.
    """

    def __init__(
        self, address: str, *, source: str = "detector", high_water: int = 16, linger_s: float = 60.0
    ) -> None:
        _check_address(address)
        zmq = _zmq()
        self._source, self._linger_s = source, linger_s
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, high_water)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.connect(address)

    def __enter__(self) -> "FrameSender":
        """Return the sender."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Say that there are no more frames, unless there is an exception, and close once all are sent."""
        if error[0] is None:
            self._socket.send_multipart(encode_message(EndMessage(self._source)))
        self._socket.close(linger=int(1000 * self._linger_s) if error[0] is None else 0)
        self._context.term()

    def send(self, frame: int, pixels: FrameArray, timestamp: float | None = None) -> None:
        """Send one frame (n_panels, ss, fs), taken at ``timestamp`` (now by default); wait if the receiver is behind."""
        taken = time.time() if timestamp is None else timestamp
        self._socket.send_multipart(encode_message(FrameMessage(frame, pixels, taken, self._source)))


def _check_address(address: str) -> None:
    """Refuse transports that lose frames: a sender that closes an ipc socket takes along what waits in the kernel."""
    if not address.startswith(("tcp://", "inproc://")):
        raise StreamError("not an address for frames", where=address, expected="tcp://HOST:PORT")


def _take(
    zmq: Any,
    socket: Any,
    most: int,
    ended: set[str],
    shape: tuple[int, int, int] | None,
    refuse: Refuse,
) -> list[FrameMessage]:
    """Take the messages that are there, at most ``most``."""
    taken: list[FrameMessage] = []
    with suppress(zmq.Again):
        for _ in range(most):
            parts = socket.recv_multipart(zmq.NOBLOCK)
            try:
                message = decode_message(parts, shape=shape)
            except StreamError as error:
                refuse(error)
                continue
            if isinstance(message, EndMessage):
                ended.add(message.source)
            else:
                taken.append(message)
    return taken


def _raise(error: StreamError) -> None:
    raise error


def _group(messages: list[FrameMessage]) -> Iterator[Arrival]:
    """Put neighbouring messages of the same shape and type together."""
    while messages:
        first = messages[0].pixels
        same = [m for m in messages if (m.pixels.shape, m.pixels.dtype) == (first.shape, first.dtype)]
        messages = [m for m in messages if (m.pixels.shape, m.pixels.dtype) != (first.shape, first.dtype)]
        numbers = np.array([m.frame for m in same], dtype=np.int64)
        yield Arrival(numbers, np.stack([m.pixels for m in same]), np.array([m.timestamp for m in same]))


def _arrived(first: int, frames: FrameArray, facts: FileFacts, waiting: int) -> Arrival:
    times = np.full(len(frames), time.time())
    return Arrival(np.arange(first, first + len(frames)), frames, times, facts, waiting)


def _open_growing(path: Path, patience: Patience) -> Any:
    """Open a file that another process writes in SWMR mode, once it is there; None if the stream is to end before."""
    opener: Callable[..., Any] = h5py.File
    since = time.monotonic()
    while True:
        try:
            return opener(path, "r", libver="latest", swmr=True)
        except (FileNotFoundError, BlockingIOError) as error:
            if patience.wait(since):
                continue
            if patience.is_stopped:
                return None
            why = "it is not there" if isinstance(error, FileNotFoundError) else "its writer keeps it locked"
            remedy = "Check the path; its writer must switch on swmr_mode. Or follow the folder."
            raise StreamError(f"the file cannot be followed ({why})", where=path, remedy=remedy) from error
        except OSError as error:
            raise StreamError(
                f"the file cannot be followed ({error})",
                where=path,
                remedy="Its writer must use libver='latest' and swmr_mode; else follow the folder.",
            ) from error


def _facts_of_growing(path: Path, geometry: Geometry | None) -> FileFacts:
    if geometry is None:
        return FileFacts()
    with LinkedFiles(path, growing=True) as files:
        named = [layer.path for layer in mask_layers(geometry) if layer.file is None]
        there = all(files.find(path) is not None for path in named)
        bad = read_run_mask(files, geometry, geometry.stack_shape)[1] if there else None
        energy = files.find(geometry.photon_energy_path) if geometry.photon_energy_path else None
        values = np.ravel(energy[()]) if isinstance(energy, h5py.Dataset) else np.empty(0)
    return FileFacts(
        bad, _first_known(np.array([energy_ev(v, geometry.photon_energy_unit) for v in values[:1]]))
    )


def _first_known(energies: Float64Array) -> float | None:
    """Return the first photon energy; None where there is none, or it is no number above zero."""
    return float(energies[0]) if energies.size and energies[0] > 0 else None


def _zmq() -> Any:
    try:
        import zmq
    except ImportError as error:
        raise StreamError("pyzmq is not installed", remedy="Install peaknet-pipeline[live].") from error
    return zmq
