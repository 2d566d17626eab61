"""What a stream could reach at most: its slowest stage alone, and the cores that its stages share.

A stage alone has the machine to itself. In the stream, all stages want cores at the same time, so that on few cores
a second bound holds: cores / (CPU seconds per frame of all stages together). Side by side, the stages run
at once on frames in memory, without handing anything over: what is missing from *that* is lost by the stream itself.
"""

import math
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from peaknet_pipeline.bench.stream_runs import RepeatedRun
from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.infer.occupancy import StreamReport
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import Finder, RunOpener, as_found, stream_run
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import FrameArray

TARGET_EFFICIENCY = 0.9
STAGES = ("read", "find", "write")

Batches = list[tuple[int, FrameArray]]
"""First frame's number and frames (n, n_panels, ss, fs)."""


@dataclass(frozen=True)
class Timing:
    """One piece of work: frames per second of wall-clock time, and CPU seconds per frame over all threads."""

    rate: float
    cpu_s: float


@dataclass(frozen=True)
class Edges:
    """Seconds of a stream until its first batch is written, and after its last one; frames per second in between."""

    fill_s: float
    drain_s: float
    steady_rate: float


@dataclass(frozen=True)
class Round:
    """One measurement of everything, close together in time. The stream's timing includes its edges."""

    alone: dict[str, Timing]
    side_by_side: Timing
    stream: Timing
    edges: Edges
    limiting: str
    busy: dict[str, float]

    @property
    def bounds(self) -> dict[str, float]:
        """Frames per second that cannot be surpassed, by reason."""
        cpu_s = sum(timing.cpu_s for timing in self.alone.values())
        return {
            "slowest_stage_alone": min(timing.rate for timing in self.alone.values()),
            "shared_cores": usable_cores() / cpu_s if cpu_s > 0 else float("inf"),
        }


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Workload:
    """What is measured: a run that is read over and over, its batches and their peaks in memory for the stages alone."""

    opener: RunOpener
    find: Finder
    params: StreamParams
    folder: Path
    batches: Batches
    peaks: list[PeakTable]
    n_frames: int
    """Frames of the stream, a multiple of the distinct ones; a stage alone gets half of them."""

    @classmethod
    def prepare(
        cls, opener: RunOpener, find: Finder, params: StreamParams, folder: Path, *, seconds: float
    ) -> Self:
        """Read the run, find once to warm up, and choose how often it is repeated to last ``seconds``."""
        with opener() as run:
            size = min(params.batch_frames, run.n_frames)
            batches = [
                (first, run.read(first, first + size)) for first in range(0, run.n_frames - size + 1, size)
            ]
        peaks = [as_found(find(frames, first)).peaks for first, frames in batches]
        distinct = size * len(batches)
        started = time.perf_counter()
        for first, frames in batches:
            find(frames, first)
        one = time.perf_counter() - started
        repeats = max(1, math.ceil(seconds / (2 * one)))
        return cls(opener, find, params, folder, batches, peaks, 2 * repeats * distinct)

    @property
    def repeats(self) -> int:
        """How often a stage alone gets the batches."""
        return self.n_frames // (2 * self.distinct)

    @property
    def distinct(self) -> int:
        """Number of the distinct frames."""
        return sum(len(frames) for _, frames in self.batches)

    def open(self, share: int = 1) -> RepeatedRun:
        """Open the long run, or the first 1 / ``share`` of it."""
        return RepeatedRun(self.opener, self.n_frames // share, self.distinct)

    def read(self) -> None:
        """Read half of the run with as many threads as the stream has readers."""
        starts = range(0, self.n_frames // 2, self.params.batch_frames)

        def read(part: range) -> None:
            with self.open(2) as run:
                for first in part:
                    run.read(first, min(first + self.params.batch_frames, run.n_frames))

        with ThreadPoolExecutor(self.params.readers) as pool:
            list(pool.map(read, [starts[i :: self.params.readers] for i in range(self.params.readers)]))

    def seek(self) -> None:
        """Find the peaks of half of the run, which is in memory, with as many threads as the stream has."""
        with ThreadPoolExecutor(self.params.finders) as pool:
            list(pool.map(lambda batch: self.find(batch[1], batch[0]), self.batches * self.repeats))

    def write(self) -> None:
        """Write the peaks of half of the run."""
        with ParquetSink(self.folder / "alone.parquet") as sink:
            for (first, frames), table in zip(
                self.batches * self.repeats, self.peaks * self.repeats, strict=True
            ):
                sink.write(Found(table), np.arange(first, first + len(frames)))


def measure_round(work: Workload) -> Round:
    """Measure every stage alone, before and after the stream, and all of them side by side."""
    stages: dict[str, Callable[[], None]] = {"read": work.read, "find": work.seek, "write": work.write}
    half = work.n_frames // 2
    before = {name: _time(half, stage) for name, stage in stages.items()}
    side_by_side = _time(half, lambda: _all_at_once(list(stages.values())))
    streamed, edges, report = _time_stream(work)
    after = {name: _time(half, stage) for name, stage in stages.items()}
    alone = {name: _middle(before[name], after[name]) for name in stages}
    busy = {stage.name: stage.busy_fraction for stage in report.stages}
    return Round(alone, side_by_side, streamed, edges, report.limiting_stage, busy)


def _time_stream(work: Workload) -> tuple[Timing, Edges, StreamReport]:
    """Time the stream from before the run is opened until its files are closed."""
    seen: list[tuple[int, float]] = []
    reports = []

    def watch(done: int, total: int) -> None:
        seen.append((done, time.perf_counter()))

    def stream() -> None:
        sinks = [ParquetSink(work.folder / "streamed.parquet")]
        reports.append(stream_run(work.open, work.find, params=work.params, sinks=sinks, progress=watch)[1])

    started = time.perf_counter()
    streamed = _time(work.n_frames, stream)
    ended = time.perf_counter()
    (first, filled), (last, drained) = seen[0], seen[-1]
    steady = (last - first) / (drained - filled) if last > first else streamed.rate
    return streamed, Edges(filled - started, ended - drained, steady), reports[0]


def summarise(rounds: list[Round]) -> dict[str, Any]:
    """Return medians over all rounds: rates, CPU time, and the stream's share of each bound."""

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    efficiency = median([r.stream.rate / min(r.bounds.values()) for r in rounds])
    cpu_ms = {stage: median([1e3 * r.alone[stage].cpu_s for r in rounds]) for stage in STAGES}
    return {
        "cores": usable_cores(),
        "frames_per_second": median([r.stream.rate for r in rounds]),
        "frames_per_second_steady": median([r.edges.steady_rate for r in rounds]),
        "fill_s": median([r.edges.fill_s for r in rounds]),
        "drain_s": median([r.edges.drain_s for r in rounds]),
        "frames_per_second_alone": {s: median([r.alone[s].rate for r in rounds]) for s in STAGES},
        "frames_per_second_bounds": {b: median([r.bounds[b] for r in rounds]) for b in rounds[0].bounds},
        "frames_per_second_side_by_side": median([r.side_by_side.rate for r in rounds]),
        "cpu_ms_per_frame": cpu_ms | {"stream": median([1e3 * r.stream.cpu_s for r in rounds])},
        "busy_fraction": {s: median([r.busy[s] for r in rounds]) for s in STAGES},
        "limiting_stage": statistics.mode(r.limiting for r in rounds),
        **{f"share_of_{b}": median([r.stream.rate / r.bounds[b] for r in rounds]) for b in rounds[0].bounds},
        "share_of_side_by_side": median([r.stream.rate / r.side_by_side.rate for r in rounds]),
        "efficiency": efficiency,
        "target_efficiency": TARGET_EFFICIENCY,
        "target_met": efficiency >= TARGET_EFFICIENCY,
    }


def _middle(before: Timing, after: Timing) -> Timing:
    rate = statistics.harmonic_mean([before.rate, after.rate])
    return Timing(rate, (before.cpu_s + after.cpu_s) / 2)


def _time(n_frames: int, work: Callable[[], object]) -> Timing:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    seconds = max(time.perf_counter() - started, 1e-9)
    return Timing(n_frames / seconds, (time.process_time() - cpu) / n_frames)


def _all_at_once(works: list[Callable[[], object]]) -> None:
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()
