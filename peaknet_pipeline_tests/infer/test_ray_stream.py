"""On Ray the stream gives the local stream's file bit for bit, whoever dies on the way."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.occupancy import StreamReport
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.parts import open_parts
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.infer.ray_stream import _own_end_by_sigterm, stream_run_on_ray
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import Finder, RunOpener, stream_run
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import FrameArray
from peaknet_pipeline_tests.infer import killed_stream
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


def ray_stream(
    open_run: RunOpener, make_finder: Callable[[], Finder], out: Path, *, params: RayParams, **options: Any
) -> StreamReport:
    """Stream on Ray into parts, and join them to the table ``out``."""
    with open_run() as run:
        n_frames = run.n_frames
    with open_parts(work_of(out), recipe="model-1", n_frames=n_frames) as parts:
        report = stream_run_on_ray(open_run, make_finder, parts, params=params, **options)
        parts.join([ParquetSink(out)])
    return report


def work_of(out: Path) -> Path:
    return out.with_name("work")


def parts_of(out: Path) -> list[range]:
    """Return the frames of the parts that are written."""
    return [range(*map(int, path.stem.split("-"))) for path in work_of(out).glob("*/[0-9]*.parquet")]


def local_file(path: Path, find: Finder = one_peak_per_frame, frames: FrameArray = FRAMES) -> bytes:
    stream_run(lambda: ArrayRun(frames), find, params=StreamParams(batch_frames=2), sinks=[ParquetSink(path)])
    return path.read_bytes()


@pytest.mark.parametrize(("producers", "consumers", "threads", "writers"), [(1, 1, 1, 1), (2, 3, 2, 2)])
def test_any_number_of_actors_gives_the_local_file(
    tmp_path: Path, producers: int, consumers: int, threads: int, writers: int
) -> None:
    out = tmp_path / "ray.parquet"
    params = RayParams(
        batch_frames=2,
        in_flight=5,
        producers=producers,
        consumers=consumers,
        threads_per_consumer=threads,
        writers=writers,
    )
    seen: list[tuple[int, int]] = []
    report = ray_stream(
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


def test_threads_of_a_consumer_work_at_the_same_time(tmp_path: Path) -> None:
    """Batches that wait, not compute: two threads of one consumer overlap, one thread cannot."""

    def overlaps(threads: int) -> int:
        folder = tmp_path / str(threads)
        folder.mkdir()
        params = RayParams(batch_frames=2, threads_per_consumer=threads)
        make_finder = functools.partial(meeting_finder, folder)
        ray_stream(functools.partial(ArrayRun, FRAMES[:12]), make_finder, folder / "o.parquet", params=params)
        return len(list(folder.glob("met-*")))

    assert overlaps(1) == 0
    assert overlaps(2) > 0


def meeting_finder(folder: Path) -> Finder:
    """Make a finder that leaves a file for each batch that began while another one was under way."""
    busy = [0]

    def find(frames: FrameArray, first_frame: int) -> PeakTable:
        busy[0] += 1
        time.sleep(0.2)
        if busy[0] > 1:
            (folder / f"met-{first_frame}").touch()
        time.sleep(0.2)
        busy[0] -= 1
        return one_peak_per_frame(frames, first_frame)

    return find


def make_engine() -> Finder:
    from peaknet_pipeline.infer.engine import Engine
    from peaknet_pipeline_tests.infer.fake_network import threshold_network

    return Engine(threshold_network(), bad_pixels=np.zeros((2, 40, 48), dtype=bool))


def test_the_engine_on_ray_gives_the_local_file(tmp_path: Path) -> None:
    spots = np.array([[f, f % 2, 8 + 2.3 * f, 40 - 3.1 * f, 150.0] for f in range(10)])
    frames = gaussian_frames(spots, (10, 2, 40, 48)).astype(np.float32)
    out = tmp_path / "ray.parquet"
    report = ray_stream(
        functools.partial(ArrayRun, frames), make_engine, out, params=RayParams(batch_frames=2, consumers=2)
    )
    assert report.peaks == 10
    assert out.read_bytes() == local_file(tmp_path / "local.parquet", make_engine(), frames)


def kill_one(kind: str, out: Path, killed: list[int]) -> None:
    """Kill an actor of this kind with SIGKILL once a few parts are written."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(parts_of(out)) < 4:
        time.sleep(0.01)
    names = [name for name in ray.util.list_named_actors() if f"-{kind}-" in name]
    process = ray.get(ray.get_actor(max(names)).pid.remote())
    os.kill(process, signal.SIGKILL)
    killed.append(process)


@pytest.mark.parametrize("kind", ["producer", "consumer", "writer"])
def test_killing_an_actor_loses_and_doubles_nothing(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "ray.parquet"
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(kind, out, killed))
    killer.start()
    report = ray_stream(
        functools.partial(ArrayRun, FRAMES), functools.partial(slow_finder, 0.1), out, params=PARAMS
    )
    killer.join()
    assert len(killed) == 1
    assert report.frames == N_FRAMES
    assert out.read_bytes() == local_file(tmp_path / "local.parquet")


def test_an_actor_that_may_not_restart_ends_the_stream_and_keeps_what_is_written(tmp_path: Path) -> None:
    out = tmp_path / "ray.parquet"
    killer = threading.Thread(target=kill_one, args=("consumer", out, []))
    killer.start()
    params = RayParams(batch_frames=2, in_flight=6, max_restarts=0, max_retries=0)
    with pytest.raises(StreamError, match=r"an actor died.*goes on from there"):
        ray_stream(
            functools.partial(ArrayRun, FRAMES), functools.partial(slow_finder, 0.1), out, params=params
        )
    killer.join()
    assert not out.exists()
    assert len(parts_of(out)) >= 4


def test_a_stages_exception_ends_the_stream_with_that_exception(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"frame 2[0-9]: the finder broke"):
        ray_stream(
            functools.partial(ArrayRun, FRAMES),
            functools.partial(failing_finder, 20),
            tmp_path / "ray.parquet",
            params=PARAMS,
        )


def processes_in_session(session: int) -> list[str]:
    """Return the names of the processes that live in a session of the system."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, fields = path.read_text().rpartition(")")
            state, _, _, its_session = fields.split()[:4]
            if int(its_session) == session and state not in ("Z", "X"):
                found.append(name)
    return found


def test_ray_leaves_sigterm_as_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with _own_end_by_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_killed_driver_goes_on_from_what_was_written(tmp_path: Path) -> None:
    """SIGKILL of the driving process, whose Ray ends with it; the next one computes only what no part holds."""
    out = tmp_path / "peaks.parquet"
    command = [sys.executable, "-m", killed_stream.__name__, "ray", str(tmp_path), "0.1", "2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, start_new_session=True, **quiet) as driver:  # type: ignore[call-overload]
        deadline = time.monotonic() + 120
        while len(parts_of(out)) < 4 and time.monotonic() < deadline and driver.poll() is None:
            time.sleep(0.01)
        driver.kill()
    assert driver.returncode == -9
    deadline = time.monotonic() + 15
    while (left := processes_in_session(driver.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    kept = parts_of(out)
    assert 8 <= sum(map(len, kept)) < N_FRAMES
    assert not out.exists()
    (tmp_path / "notes").unlink()
    killed_stream.stream("ray", tmp_path, 0.0, 3)
    missing = set(range(N_FRAMES)).difference(*kept)
    assert killed_stream.noted_frames(tmp_path / "notes") == sorted(missing)
    assert out.read_bytes() == local_file(tmp_path / "local.parquet")


def test_a_restart_after_an_error_takes_up_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "ray.parquet"
    with pytest.raises(StreamError, match="the finder broke"):
        ray_stream(
            functools.partial(ArrayRun, FRAMES), functools.partial(failing_finder, 30), out, params=PARAMS
        )
    n_kept = sum(map(len, parts_of(out)))
    assert 10 <= n_kept <= 30
    report = ray_stream(
        functools.partial(ArrayRun, FRAMES), functools.partial(slow_finder, 0.0), out, params=PARAMS
    )
    assert report.frames == N_FRAMES - n_kept
    assert out.read_bytes() == local_file(tmp_path / "local.parquet")


def test_a_cluster_that_is_not_there_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster") from RuntimeError("InvalidAuthToken")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(StreamError, match=r"head:6379: no connection.*InvalidAuthToken.*RAY_AUTH_MODE"):
        ray_stream(
            functools.partial(ArrayRun, FRAMES),
            functools.partial(slow_finder, 0.0),
            tmp_path / "o",
            params=RayParams(address="head:6379"),
        )
