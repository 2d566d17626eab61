"""The stream on Ray against the local one: the same run, read over and over, through the same engine."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peaknet_pipeline.bench.stream_bounds import STAGES, Workload
from peaknet_pipeline.bench.stream_runs import RepeatedRun
from peaknet_pipeline.infer.occupancy import StreamReport
from peaknet_pipeline.infer.part_sink import PartSink
from peaknet_pipeline.infer.parts import Parts, open_parts
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.infer.ray_stream import FinderFactory, stream_run_on_ray
from peaknet_pipeline.infer.stream import stream_run

Progress = Callable[[int, int], None]
Stream = Callable[[Parts, Progress], StreamReport]
"""Finds what is missing, and tells the frames done."""


@dataclass(frozen=True)
class Passage:
    """One stream: frames per second from the first batch written to the last, seconds until the first, and its report."""

    rate: float
    fill_s: float
    report: StreamReport


def compare(work: Workload, make_finder: FinderFactory, *, repeats: int) -> dict[str, Any]:
    """Measure both streams in turn, medians over ``repeats``; on Ray with one and with two threads per consumer.

    Until the first batch, Ray starts its processes, and each of them its Python and compiled code; that is told by itself.
    """
    n_frames, params, folder = work.n_frames, work.params, work.folder
    open_run = partial(RepeatedRun, work.opener, n_frames, work.distinct)

    def local(parts: Parts, progress: Progress) -> StreamReport:
        return stream_run(open_run, work.find, params=params, sinks=[PartSink(parts)], progress=progress)[1]

    def on_ray(threads: int, parts: Parts, progress: Progress) -> StreamReport:
        asked = RayParams(
            producers=params.readers,
            threads_per_consumer=threads,
            batch_frames=params.batch_frames,
            in_flight=params.in_flight,
        )
        return stream_run_on_ray(open_run, make_finder, parts, params=asked, progress=progress)

    streams: dict[str, Stream] = {
        "local": local,
        "ray": partial(on_ray, 1),
        "ray_2_threads": partial(on_ray, 2),
    }
    rounds = [{name: _pass(folder, n_frames, streams[name]) for name in streams} for _ in range(repeats)]

    def median(name: str, value: Callable[[Passage], float]) -> float:
        return round(statistics.median(value(one[name]) for one in rounds), 3)

    shares = {
        name: round(statistics.median(one[name].rate / one["local"].rate for one in rounds), 3)
        for name in streams
    }
    return {
        "frames_per_second": {name: median(name, lambda p: p.rate) for name in streams},
        "share_of_local": shares,
        "finding_share_of_time": {
            name: median(name, lambda p: p.rate * p.report.stages[1].busy_s / n_frames) for name in streams
        },
        "to_first_batch_s": {name: median(name, lambda p: p.fill_s) for name in streams},
        "ms_per_frame": {
            name: {
                stage: median(name, lambda p, i=i: 1e3 * p.report.stages[i].busy_s / n_frames)  # type: ignore[misc]
                for i, stage in enumerate(STAGES)
            }
            for name in streams
        },
    }


def _pass(folder: Path, n_frames: int, stream: Stream) -> Passage:
    seen: list[tuple[int, float]] = []
    with open_parts(folder / "work", recipe="", n_frames=n_frames) as parts:
        started = time.perf_counter()
        report = stream(parts, lambda done, total: seen.append((done, time.perf_counter())))
    (first, filled), (last, drained) = seen[0], seen[-1]
    return Passage((last - first) / max(drained - filled, 1e-9), filled - started, report)
