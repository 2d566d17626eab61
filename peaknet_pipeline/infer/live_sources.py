"""Where live frames come from: a file that grows, a folder that fills, a ZeroMQ socket."""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.infer.arrivals import Arrival, Patience
from peaknet_pipeline.infer.frame_numbers import FrameNumbers
from peaknet_pipeline.infer.live_figures import LiveStatistics
from peaknet_pipeline.infer.live_parts import FileNumbers
from peaknet_pipeline.infer.part_sink import PART_S
from peaknet_pipeline.infer.run_folder import follow_folder
from peaknet_pipeline.infer.swmr_file import follow_file
from peaknet_pipeline.infer.zeromq import CurveKeys, FrameSender, receive_frames
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import Geometry

__all__ = [
    "CurveKeys",
    "FrameSender",
    "LiveParams",
    "follow_file",
    "follow_folder",
    "open_source",
    "receive_frames",
]

SOCKETS = ("tcp://", "ipc://", "inproc://")


@dataclass(frozen=True)
class LiveParams(Parameters):
    """How a live stream is followed."""

    batch_frames: int = parameter(8, meaning="frames per batch at most", ge=1)
    idle_s: float | None = parameter(
        None, meaning="time without a frame after which the stream ends; never, without it", unit="s", gt=0
    )
    part_s: float = parameter(
        PART_S,
        meaning="time whose frames are kept together: what a killed stream loses at most",
        unit="s",
        ge=0,
    )
    poll_s: float = parameter(0.05, meaning="time between looks for new frames", unit="s", gt=0)
    n_frames: int | None = parameter(None, meaning="frames after which following a file ends", ge=1)
    n_sources: int = parameter(1, meaning="senders whose end ends a ZeroMQ stream", ge=1)
    settle_s: float = parameter(2.0, meaning="age at which a new file counts as complete", unit="s", ge=0)
    photon_energy_ev: float | None = parameter(
        None,
        meaning="photon energy; the geometry's, or that of the followed file, without it",
        unit="eV",
        gt=0,
    )
    clen_m: float | None = parameter(
        None,
        meaning="camera length without coffset; that of the followed file without it, where the geometry names a path",
        unit="m",
    )


def open_source(
    source: str,
    geometry: Geometry,
    params: LiveParams,
    *,
    statistics: LiveStatistics,
    taken: FrameNumbers | None = None,
    files: FileNumbers | None = None,
    keys: CurveKeys | None = None,
    stop: threading.Event | None = None,
    say: Callable[[str], None],
    more_roots: Sequence[Path] = (),
) -> Iterator[Arrival]:
    """Return the frames of a ZeroMQ address, a folder or a file, without those that were ``taken`` before.

    ``files`` keeps the numbers of a folder's frames, ``keys`` are for a ZeroMQ address; ``statistics`` counts what is left out.
    Links of files may lead into ``more_roots``, besides their own folder.
    """
    patience = Patience(
        params.poll_s,
        params.idle_s,
        stop,
        lambda idle: say(f"no new frame for {idle:.0f} s: the stream ends (idle_s = {params.idle_s:g})"),
    )
    shared: dict[str, Any] = {
        "batch_frames": params.batch_frames,
        "taken": taken,
        "refuse": statistics.refuse,
    }
    if source.startswith(SOCKETS):
        return receive_frames(
            source,
            n_sources=params.n_sources,
            shape=geometry.stack_shape,
            keys=keys,
            patience=patience,
            **shared,
        )
    path = Path(source)
    if path.is_dir():
        return follow_folder(
            path,
            geometry=geometry,
            settle_s=params.settle_s,
            files=files,
            more_roots=more_roots,
            patience=dataclasses.replace(patience, poll_s=max(params.poll_s, 0.5)),
            **shared,
        )
    if geometry.data_path is None:
        raise GeometryError(
            "the geometry does not say where the frames are", where=geometry.source, expected="data = /path"
        )
    return follow_file(
        path,
        geometry.data_path,
        geometry=geometry,
        n_frames=params.n_frames,
        more_roots=more_roots,
        patience=patience,
        **shared,
    )
