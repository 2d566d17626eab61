"""On Ray the stream gives the local stream's file bit for bit, whoever dies on the way."""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.parts import parts_folder
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.infer.ray_stream import stream_run_on_ray
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import Finder, stream_run
from peaknet_pipeline.types import FrameArray, PeakTable
from peaknet_pipeline_tests.infer.fakes import (
    ArrayRun,
    gaussian_frames,
    one_peak_per_frame,
)

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
# Ray leaves files and subprocesses to the interpreter's end and warns of coming changes: not this package's doing.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

N_FRAMES = 48
FRAMES = np.arange(N_FRAMES, dtype=np.int32)[:, None, None, None] * np.ones((1, 2, 3, 4), dtype=np.int32)
PARAMS = RayParams(batch_frames=2, in_flight=6)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    paths = os.pathsep.join(path for path in sys.path if path)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


def slow_finder(seconds: float) -> Finder:
    def find(frames: FrameArray, first_frame: int) -> PeakTable:
        time.sleep(seconds)
        return one_peak_per_frame(frames, first_frame)

    return find


def failing_finder(at: int) -> Finder:
    def find(frames: FrameArray, first_frame: int) -> PeakTable:
        if first_frame >= at:
            raise StreamError("the finder broke", where=f"frame {first_frame}")
        return one_peak_per_frame(frames, first_frame)

    return find


class CountingRun(ArrayRun):
    """Notes every batch that is read in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(FRAMES)
        self.folder = folder

    def read(self, start: int, stop: int) -> FrameArray:
        (self.folder / str(start)).touch()
        return super().read(start, stop)


def local_file(path: Path, find: Finder = one_peak_per_frame, frames: FrameArray = FRAMES) -> bytes:
    stream_run(lambda: ArrayRun(frames), find, params=StreamParams(batch_frames=2), sinks=[ParquetSink(path)])
    return path.read_bytes()


@pytest.mark.parametrize(("producers", "consumers", "writers"), [(1, 1, 1), (2, 3, 2)])
def test_any_number_of_actors_gives_the_local_file(
    tmp_path: Path, producers: int, consumers: int, writers: int
) -> None:
    out = tmp_path / "ray.parquet"
    params = RayParams(batch_frames=2, in_flight=5, producers=producers, consumers=consumers, writers=writers)
    seen: list[tuple[int, int]] = []
    report = stream_run_on_ray(
        functools.partial(ArrayRun, FRAMES),
        functools.partial(slow_finder, 0.0),
        out,
        params=params,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert out.read_bytes() == local_file(tmp_path / "local.parquet")
    assert (report.frames, report.peaks) == (N_FRAMES, N_FRAMES)
    assert [stage.workers for stage in report.stages] == [producers, consumers, writers]
    assert seen[-1] == (N_FRAMES, N_FRAMES)
    assert [path.name for path in tmp_path.iterdir() if path.name != "local.parquet"] == ["ray.parquet"]


def make_engine() -> Finder:
    from peaknet_pipeline.infer.engine import Engine
    from peaknet_pipeline_tests.infer.fake_network import threshold_network

    return Engine(threshold_network(), bad_pixels=np.zeros((2, 40, 48), dtype=bool))


def test_the_engine_on_ray_gives_the_local_file(tmp_path: Path) -> None:
    spots = np.array([[f, f % 2, 8 + 2.3 * f, 40 - 3.1 * f, 150.0] for f in range(10)])
    frames = gaussian_frames(spots, (10, 2, 40, 48)).astype(np.float32)
    out = tmp_path / "ray.parquet"
    report = stream_run_on_ray(
        functools.partial(ArrayRun, frames), make_engine, out, params=RayParams(batch_frames=2, consumers=2)
    )
    assert report.peaks == 10
    assert out.read_bytes() == local_file(tmp_path / "local.parquet", make_engine(), frames)


def kill_one(kind: str, folder: Path, killed: list[int]) -> None:
    """Kill an actor of this kind with SIGKILL once a few parts are written."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(list(folder.glob("*.parquet"))) < 4:
        time.sleep(0.01)
    names = [name for name in ray.util.list_named_actors() if f"-{kind}-" in name]
    process = ray.get(ray.get_actor(max(names)).pid.remote())
    os.kill(process, signal.SIGKILL)
    killed.append(process)


@pytest.mark.parametrize("kind", ["producer", "consumer", "writer"])
def test_killing_an_actor_loses_and_doubles_nothing(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "ray.parquet"
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(kind, parts_folder(out), killed))
    killer.start()
    report = stream_run_on_ray(
        functools.partial(ArrayRun, FRAMES), functools.partial(slow_finder, 0.1), out, params=PARAMS
    )
    killer.join()
    assert len(killed) == 1
    assert report.frames == N_FRAMES
    assert out.read_bytes() == local_file(tmp_path / "local.parquet")


def test_an_actor_that_may_not_restart_ends_the_stream_and_keeps_what_is_written(tmp_path: Path) -> None:
    out = tmp_path / "ray.parquet"
    killer = threading.Thread(target=kill_one, args=("consumer", parts_folder(out), []))
    killer.start()
    params = RayParams(batch_frames=2, in_flight=6, max_restarts=0, max_retries=0)
    with pytest.raises(StreamError, match=r"an actor died.*goes on from there"):
        stream_run_on_ray(
            functools.partial(ArrayRun, FRAMES), functools.partial(slow_finder, 0.1), out, params=params
        )
    killer.join()
    assert not out.exists()
    assert len(list(parts_folder(out).glob("*.parquet"))) >= 4


def test_a_stages_exception_ends_the_stream_with_that_exception(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"frame 2[0-9]: the finder broke"):
        stream_run_on_ray(
            functools.partial(ArrayRun, FRAMES),
            functools.partial(failing_finder, 20),
            tmp_path / "ray.parquet",
            params=PARAMS,
        )


def test_a_restart_reads_only_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "ray.parquet"
    arguments: dict[str, Any] = {"params": PARAMS, "recipe": "model-1"}
    with pytest.raises(StreamError, match="the finder broke"):
        stream_run_on_ray(
            functools.partial(ArrayRun, FRAMES), functools.partial(failing_finder, 30), out, **arguments
        )
    n_kept = len(list(parts_folder(out).glob("*.parquet")))
    assert 5 <= n_kept <= 15
    counted = tmp_path / "read"
    counted.mkdir()
    report = stream_run_on_ray(
        functools.partial(CountingRun, counted), functools.partial(slow_finder, 0.0), out, **arguments
    )
    assert len(list(counted.iterdir())) == N_FRAMES // 2 - n_kept
    assert report.frames == N_FRAMES - 2 * n_kept
    assert out.read_bytes() == local_file(tmp_path / "local.parquet")


def test_frames_outside_the_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="no such frames"):
        stream_run_on_ray(
            functools.partial(ArrayRun, FRAMES), functools.partial(slow_finder, 0.0), tmp_path / "o", stop=99
        )
