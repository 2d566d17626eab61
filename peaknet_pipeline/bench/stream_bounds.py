"""What a stream could reach at most: its slowest stage alone, and the cores that its stages share.

A stage alone has the machine to itself. In the stream, all stages want cores at the same time, so that on few cores
a second bound holds: cores / (CPU seconds per frame of all stages together). Side by side, the stages run
at once on frames in memory, without handing anything over: what is missing from *that* is lost by the stream itself.
"""

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import Finder, RunOpener, as_found, stream_run
from peaknet_pipeline.types import FrameArray, PeakTable

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
class Round:
    """One measurement of everything, close together in time."""

    alone: dict[str, Timing]
    side_by_side: Timing
    stream: Timing
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


def measure_round(opener: RunOpener, find: Finder, params: StreamParams, folder: Path) -> Round:
    """Measure every stage alone, before and after the stream, and all of them side by side."""
    batches = _read_all(opener, params)
    peaks = [as_found(find(frames, first)).peaks for first, frames in batches]
    n_frames = sum(len(frames) for _, frames in batches)
    works: dict[str, Callable[[], object]] = {
        "read": lambda: _read_all(opener, params, keep=False),
        "find": lambda: _find_all(find, batches, params),
        "write": lambda: _write_all(batches, peaks, folder / "alone.parquet"),
    }
    before = {name: _time(n_frames, work) for name, work in works.items()}
    side_by_side = _time(n_frames, lambda: _all_at_once(list(works.values())))
    reports = []

    def stream() -> None:
        sinks = [ParquetSink(folder / "streamed.parquet")]
        reports.append(stream_run(opener, find, params=params, sinks=sinks)[1])

    streamed = _time(n_frames, stream)
    after = {name: _time(n_frames, work) for name, work in works.items()}
    alone = {name: _middle(before[name], after[name]) for name in works}
    busy = {stage.name: stage.busy_fraction for stage in reports[0].stages}
    return Round(alone, side_by_side, streamed, reports[0].limiting_stage, busy)


def summarise(rounds: list[Round]) -> dict[str, Any]:
    """Return medians over all rounds: rates, CPU time, and the stream's share of each bound."""

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    efficiency = median([r.stream.rate / min(r.bounds.values()) for r in rounds])
    cpu_ms = {stage: median([1e3 * r.alone[stage].cpu_s for r in rounds]) for stage in STAGES}
    return {
        "cores": usable_cores(),
        "frames_per_second": median([r.stream.rate for r in rounds]),
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


def _read_all(opener: RunOpener, params: StreamParams, *, keep: bool = True) -> Batches:
    """Read everything with as many threads as the stream has readers; keep it only if told so, as the stream does."""
    with opener() as opened:
        starts = list(range(0, opened.n_frames, params.batch_frames))
        total = opened.n_frames

    def read(part: list[int]) -> Batches:
        kept = []
        with opener() as opened:
            for first in part:
                frames = opened.read(first, min(first + params.batch_frames, total))
                kept.append((first, frames if keep else frames[:0]))
        return kept

    with ThreadPoolExecutor(params.readers) as pool:
        parts = list(pool.map(read, [starts[i :: params.readers] for i in range(params.readers)]))
    return sorted((batch for part in parts for batch in part), key=lambda batch: batch[0])


def _find_all(find: Finder, batches: Batches, params: StreamParams) -> None:
    with ThreadPoolExecutor(params.finders) as pool:
        list(pool.map(lambda batch: find(batch[1], batch[0]), batches))


def _write_all(batches: Batches, peaks: list[PeakTable], path: Path) -> None:
    with ParquetSink(path) as sink:
        for (first, frames), table in zip(batches, peaks, strict=True):
            sink.write(table, frames, first)
