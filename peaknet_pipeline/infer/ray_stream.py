"""The stream on a Ray cluster: producers read, consumers find, writers write; Ray restarts what dies.

A batch goes from actor to actor as an object reference, so frames never pass through the process that drives the
stream. That process keeps a bounded number of batches under way. When an actor dies, Ray restarts it and repeats
what it was doing; since a batch's part is a file of its own, repeating changes nothing.
"""

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.batches import Batches, Stretch
from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.infer.occupancy import StageReport, StreamReport
from peaknet_pipeline.infer.part_files import write_part
from peaknet_pipeline.infer.parts import Parts
from peaknet_pipeline.infer.ray_guard import guarded
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.infer.stream import Finder, Progress, RunOpener, as_found
from peaknet_pipeline.types import FrameArray

FinderFactory = Callable[[], Finder]
"""Makes a finder; called once in each consumer, where its GPU is."""

_STREAMS = itertools.count()
STAGES = ("read", "find", "write")


def stream_run_on_ray(
    open_run: RunOpener,
    make_finder: FinderFactory,
    parts: Parts,
    *,
    params: RayParams | None = None,
    progress: Progress | None = None,
) -> StreamReport:
    """Find the missing parts of a run with Ray actors.

    Parameters
    ----------
    open_run, make_finder : callable
        Opens the run, makes the finder; both are sent to the actors, so they must be picklable.
    parts : Parts
        What is found already, on a file system that all writers and the calling process share; complete afterwards.
    params : RayParams, optional
    progress : callable, optional
        Called with the frames done and the frames to do.

    Returns
    -------
    StreamReport
        Of the frames that were still to do.

    Raises
    ------
    StreamError
        Ray is not installed, or an actor died again and again on the same batch.
    Exception
        Whatever a stage raised.

    """
    params = params or RayParams()
    batches = Batches(parts.missing, params.batch_frames, n_frames=parts.n_frames or 0)
    started = time.perf_counter()
    with _connected(params) as ray:
        work = _Crew(ray, params, open_run, make_finder, parts.folder).run(batches, progress)
    parts.written += batches
    return _report(work, params, time.perf_counter() - started)


class _Actor:
    def pid(self) -> int:
        """Return the process that this actor lives in."""
        return os.getpid()


class Producer(_Actor):
    """Reads batches."""

    def __init__(self, open_run: RunOpener) -> None:
        self._opened = open_run()
        self._run = self._opened.__enter__()

    def read(self, span: Stretch) -> tuple[FrameArray, float]:
        """Return a batch's frames and the seconds taken."""
        started = time.perf_counter()
        return self._run.read(*span), time.perf_counter() - started


class Consumer(_Actor):
    """Finds peaks."""

    def __init__(self, make_finder: FinderFactory) -> None:
        self._find = make_finder()

    def find(self, batch: tuple[FrameArray, float], span: Stretch) -> tuple[Found, float, float]:
        """Return a batch's peaks and the seconds taken so far."""
        frames, read_s = batch
        started = time.perf_counter()
        found = as_found(self._find(frames, span[0]))
        return found, read_s, time.perf_counter() - started


class Writer(_Actor):
    """Writes parts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, batch: tuple[Found, float, float], span: Stretch) -> tuple[int, float, float, float]:
        """Write a batch's part; return the number of its peaks and the seconds of each stage."""
        found, read_s, find_s = batch
        started = time.perf_counter()
        write_part(self._folder, span, found)
        return len(found.peaks), read_s, find_s, time.perf_counter() - started


@dataclass
class _Work:
    """What was done: frames, peaks, and seconds per stage."""

    frames: int = 0
    peaks: int = 0
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)


Chosen = list[tuple[str, int]]
"""The actor of each stage that a batch goes to."""


class _Crew:
    """The actors, and who has how many batches."""

    def __init__(
        self,
        ray: ModuleType,
        params: RayParams,
        open_run: RunOpener,
        make_finder: FinderFactory,
        folder: Path,
    ) -> None:
        self._ray, self._params = ray, params
        self._number = next(_STREAMS)
        # References that are held here stay alive, so that a restarted actor finds what it is made of.
        self._kept: list[Any] = []
        self._actors = {
            "read": self._hire(Producer, params.producers, open_run, scheduling_strategy="SPREAD"),
            "find": self._hire(
                Consumer,
                params.consumers,
                make_finder,
                num_gpus=params.gpus_per_consumer,
                max_concurrency=params.threads_per_consumer,
            ),
            "write": self._hire(Writer, params.writers, folder),
        }
        self._load: Counter[tuple[str, int]] = Counter()

    def run(self, batches: Batches, progress: Progress | None) -> _Work:
        """Send all batches through, a bounded number at a time."""
        waiting: dict[Any, tuple[Stretch, Chosen]] = {}
        todo, work = iter(batches), _Work()
        while True:
            for span in itertools.islice(todo, self._params.in_flight - len(waiting)):
                reference, chosen = self._send(span)
                waiting[reference] = (span, chosen)
            if not waiting:
                return work
            for reference in self._ray.wait(list(waiting))[0]:
                span, chosen = waiting.pop(reference)
                self._load.subtract(chosen)
                n_peaks, *seconds = self._result(reference, span)
                work.frames += span[1] - span[0]
                work.peaks += n_peaks
                work.seconds = tuple(a + b for a, b in zip(work.seconds, seconds, strict=True))
                if progress is not None:
                    progress(work.frames, batches.n_frames)

    def _send(self, span: Stretch) -> tuple[Any, Chosen]:
        """Start a batch on the least loaded actor of each stage; return the reference to its end."""
        chosen = [
            (stage, min(range(len(self._actors[stage])), key=lambda i: self._load[stage, i]))
            for stage in STAGES
        ]
        self._load.update(chosen)
        producer, consumer, writer = (self._actors[stage][i] for stage, i in chosen)
        frames = producer.read.remote(span)
        peaks = consumer.find.remote(frames, span)
        return writer.write.remote(peaks, span), chosen

    def _result(self, reference: Any, span: Stretch) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayError as error:
            cause = _cause_of(error)
            if not isinstance(cause, errors.RayError):
                raise cause from error
            raise StreamError(
                f"an actor died {self._params.max_retries + 1} times ({type(cause).__name__})",
                where=f"frames {span[0]} to {span[1] - 1}",
                remedy="Look at its log; what was written is kept, and the same command goes on from there.",
            ) from error

    def _hire(self, kind: type, count: int, *arguments: Any, **options: Any) -> list[Any]:
        kept = {
            "max_restarts": self._params.max_restarts,
            "max_task_retries": self._params.max_retries,
            "num_cpus": self._params.cpus_per_actor,
        }
        remote = self._ray.remote(**kept, **options)(kind)
        given = [self._ray.put(argument) for argument in arguments]
        self._kept += given
        stream = f"peaknet-{os.getpid()}-{self._number}-{kind.__name__.lower()}"
        return [remote.options(name=f"{stream}-{i}").remote(*given) for i in range(count)]


def _cause_of(error: BaseException) -> BaseException:
    """Return what a stage raised; actors that need a failed batch wrap its error in another."""
    cause = getattr(error, "cause", None)
    return _cause_of(cause) if isinstance(cause, BaseException) else error


@contextmanager
def _connected(params: RayParams) -> Any:
    """Use the Ray that is already connected, else connect to the cluster or start one, and leave it again."""
    try:
        import ray
    except ImportError as error:
        raise StreamError("Ray is not installed", remedy="Install peaknet-pipeline[ray].") from error
    if ray.is_initialized():
        yield ray
        return
    is_local = params.address == "local"
    try:
        with _own_end_by_sigterm():
            if is_local:
                ray.init(address="local", include_dashboard=False, log_to_driver=False)
            else:
                ray.init(address=params.address)
    except (ConnectionError, ValueError) as error:
        raise StreamError(
            f"no connection to the Ray cluster ({error.__cause__ or error})",
            where=params.address,
            remedy="Check the address, and that RAY_AUTH_MODE and Ray's version are the cluster's.",
        ) from error
    with guarded(ray.get_runtime_context().get_session_name()) if is_local else nullcontext():
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _own_end_by_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: Ray makes the process tell its C++ stack and abort."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:  # None: set by a library, and not from Python
            signal.signal(signal.SIGTERM, before)


def _report(work: _Work, params: RayParams, seconds: float) -> StreamReport:
    workers = (params.producers, params.consumers, params.writers)
    stages = tuple(
        StageReport(name, n, busy, 0.0, 0.0, busy / (n * seconds) if seconds > 0 else 0.0)
        for name, n, busy in zip(STAGES, workers, work.seconds, strict=True)
    )
    return StreamReport(work.frames, work.peaks, seconds, stages)
