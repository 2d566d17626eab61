"""Whether the stream on Ray scales with nodes: a finder that sleeps instead of computing, on nodes simulated on this machine.

What is measured is the plumbing: who gets which batch, and what handing it over costs. Every simulated node is a Ray node
with processes and an object store of its own.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.parts import open_parts
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.infer.ray_stream import stream_run_on_ray
from peaknet_pipeline.infer.stream import Finder
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import FrameArray

STORE_MIB = 80
TARGET_SHARE = 0.9
NOTICED = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}
"""A node that is lost is noticed after 5 s instead of 15."""


@dataclass(frozen=True)
class MadeFrames:
    """A run whose frames are made when they are read, (n, 1, side, side) uint16: each holds its own number."""

    n_frames: int
    side: int

    def __enter__(self) -> Self:
        """Open it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""

    def read(self, start: int, stop: int) -> FrameArray:
        """Return the frames ``start`` to ``stop``."""
        numbers = np.arange(start, stop, dtype=np.uint16)[:, None, None, None]
        return np.broadcast_to(numbers, (stop - start, 1, self.side, self.side)).copy()


def sleeping_finder(seconds_per_frame: float) -> Finder:
    """Make a finder that waits, and finds nothing."""

    def find(frames: FrameArray, first_frame: int) -> PeakTable:
        time.sleep(seconds_per_frame * len(frames))
        return empty_table(PEAKS)

    return find


@contextmanager
def simulated_nodes(n: int, *, cpus: int = 4, store_mib: int = STORE_MIB) -> Iterator[Any]:
    """Start a Ray cluster of a head without processors and ``n`` nodes on this machine, and connect to it; give the cluster.

    Raises
    ------
    StreamError
        Ray is not installed.

    """
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError as error:
        raise StreamError("Ray is not installed", remedy="Install peaknet-pipeline[ray].") from error
    store = store_mib * 2**20
    quiet = {"include_dashboard": False}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": store, "_system_config": NOTICED, **quiet},
    )
    try:
        for _ in range(n):
            cluster.add_node(num_cpus=cpus, object_store_memory=store)
        paths = os.pathsep.join(path for path in sys.path if path)
        variables = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": variables})
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def run(
    nodes: str = "1,2,4", seconds: float = 6.0, frame_ms: float = 25.0, side: int = 256, repeats: int = 1
) -> dict[str, Any]:
    """Measure frames per second on ``nodes`` simulated nodes, one consumer each, from the first batch written to the last.

    Parameters
    ----------
    nodes : str
        Comma-separated numbers of nodes.
    seconds : float
        How long each stream lasts on ideal nodes.
    frame_ms : float
        Sleep of the finder for each frame.
    side : int
        Pixels of a frame's side.
    repeats : int
        Streams of each kind; medians.

    """
    counts = [int(n) for n in nodes.split(",")]
    rates: dict[int, float] = {}
    for n in counts:
        with simulated_nodes(n):
            rates[n] = statistics.median(_rate(n, seconds, frame_ms, side) for _ in range(repeats))
    shares = {n: rate / (n * 1e3 / frame_ms) for n, rate in rates.items()}
    return {
        "cpus": os.cpu_count(),
        "frames_per_second": {str(n): round(rate, 1) for n, rate in rates.items()},
        "share_of_ideal": {str(n): round(share, 3) for n, share in shares.items()},
        "target_share": TARGET_SHARE,
        "target_met": shares[max(counts)] >= TARGET_SHARE,
    }


def _rate(n: int, seconds: float, frame_ms: float, side: int) -> float:
    batch = max(1, round(200 / frame_ms))
    n_frames = max(4 * n, round(seconds * n * 1e3 / frame_ms / batch)) * batch
    seen: list[tuple[int, float]] = []
    params = RayParams(
        address="auto",
        producers=n,
        consumers=n,
        writers=n,
        batch_frames=batch,
        in_flight=6 * n,
        cpus_per_actor=1,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        open_parts(Path(folder) / "work", recipe="", n_frames=n_frames) as parts,
    ):
        stream_run_on_ray(
            partial(MadeFrames, n_frames, side), partial(sleeping_finder, frame_ms / 1e3), parts, params=params,
            progress=lambda done, total: seen.append((done, time.perf_counter())),
        )  # fmt: skip
    # Nodes whose consumer isn't there yet belong to the start: the first quarter is left out.
    (first, filled), (last, drained) = seen[len(seen) // 4], seen[-1]
    return (last - first) / (drained - filled)
