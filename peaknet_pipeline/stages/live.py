"""Peaks of a run while it is being taken: a growing file, a folder that fills, or a ZeroMQ socket."""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import GeometryError, StreamError
from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.crystfel_text import energy_ev
from peaknet_pipeline.geometry.maps import geometry_bad_pixels, pixel_radius
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.live import Indexer, LiveFigures, LiveStatistics, live_stream
from peaknet_pipeline.infer.live_sources import Arrival, Patience, follow_file, follow_folder, receive_frames
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.prometheus import serve_figures
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import Finder
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.plots.images import plot_image
from peaknet_pipeline.runs.cxi_append import CxiFile
from peaknet_pipeline.runs.masks import read_mask
from peaknet_pipeline.stages.provenance import command_origin
from peaknet_pipeline.types import BoolArray, Geometry, PeakTable

SOCKETS = ("tcp://", "ipc://", "inproc://")


@dataclass(frozen=True)
class LiveParams(Parameters):
    """How a live stream is followed."""

    batch_frames: int = parameter(8, meaning="frames per batch at most", ge=1)
    idle_s: float = parameter(
        60.0, meaning="time without a frame after which the stream ends", unit="s", gt=0
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
    threshold: float | None = parameter(
        None, meaning="decision threshold; the model card's without it", ge=0, le=1
    )


def stream_command(
    source: str,
    *,
    geometry: Path,
    finder: str = "peaknet",
    model: Path | None = None,
    mask: Path | None = None,
    cell: Path | None = None,
    settings: Sequence[str] = (),
    out: Path | None = None,
    cxi: Path | None = None,
    hits_only: bool = False,
    min_peaks: int = 15,
    serve: tuple[str, int] | None = None,
    report: Callable[[LiveFigures, str | None], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Follow a source until it ends; return its figures. See ``peaknet stream``.

    The first Ctrl-C (or SIGTERM) ends the source: what has arrived is found and written. The second one gives up.

    Parameters
    ----------
    source : str
        File, folder, or ZeroMQ address to bind.
    geometry, model, mask, cell : Path
        With a cell, hits are indexed as they come.
    out, cxi : Path, optional
        Peak table, and CXI file with frames and peaks, to write.
    hits_only : bool
        Write frames with at least ``min_peaks`` peaks only.
    serve : (host, port), optional
        Where figures and virtual powder are served.
    report : callable, optional
        Called after each batch with the figures and the address where they are served.
    say : callable, optional
        Told what a user should know: why the source ended, what was refused.

    """
    params = LiveParams.from_settings(settings)
    detector = read_geometry(geometry)
    detector = dataclasses.replace(detector, photon_energy_ev=_photon_energy(params, detector, Path(source)))
    bad = _bad_pixels(detector, mask)
    statistics = LiveStatistics(min_peaks=min_peaks)
    find = _finder(finder, model, detector, bad, params.threshold)
    find(np.zeros((1, *detector.stack_shape), dtype=np.float32), 0)
    told = {"source": source, "finder": finder, "hits_only": str(hits_only).lower()}
    if out is not None or cxi is not None:
        told |= command_origin("stream", params.to_dict(), [geometry, mask, cell])
    images = CxiFile(cxi, detector, bad, provenance=told) if cxi is not None else None
    with _served(statistics, detector, serve) as address, ending_gently() as stop:
        figures = live_stream(
            open_source(source, detector, params, statistics=statistics, stop=stop, say=say),
            find,
            statistics,
            sinks=[ParquetSink(out, extra=told)] if out else [],
            cxi=images,
            hits_only=hits_only,
            index=_indexer(detector, cell) if cell is not None else None,
            report=None if report is None else lambda now: report(now, address),
        )
    rates = {name: getattr(figures, name) for name in ("hit_rate", "indexing_rate", "indexing_yield")}
    clipped = {} if images is None else {"cxi_clipped_peaks": images.n_clipped_peaks}
    return {**asdict(figures), **rates, **clipped}


@contextmanager
def ending_gently() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C or SIGTERM within the block sets; the next one interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_source(
    source: str,
    geometry: Geometry,
    params: LiveParams,
    *,
    statistics: LiveStatistics,
    stop: threading.Event | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[Arrival]:
    """Return the frames of a ZeroMQ address, a folder or a file."""
    say = say or (lambda text: None)
    patience = Patience(
        params.poll_s,
        params.idle_s,
        stop,
        lambda idle: say(f"no new frame for {idle:.0f} s: the stream ends"),
    )
    if source.startswith(SOCKETS):

        def refuse(error: StreamError) -> None:
            statistics.refuse(error)
            say(f"left out: {error}")

        return receive_frames(
            source,
            n_sources=params.n_sources,
            batch_frames=params.batch_frames,
            shape=geometry.stack_shape,
            refuse=refuse,
            patience=patience,
        )
    path = Path(source)
    if path.is_dir():
        return follow_folder(
            path,
            geometry=geometry,
            batch_frames=params.batch_frames,
            settle_s=params.settle_s,
            patience=dataclasses.replace(patience, poll_s=max(params.poll_s, 0.5)),
        )
    if geometry.data_path is None:
        raise GeometryError(
            "the geometry does not say where the frames are", where=geometry.source, expected="data = /path"
        )
    return follow_file(
        path,
        geometry.data_path,
        geometry=geometry,
        batch_frames=params.batch_frames,
        n_frames=params.n_frames,
        patience=patience,
    )


def _finder(
    name: str, model: Path | None, geometry: Geometry, bad: BoolArray, threshold: float | None
) -> Finder:
    if name == "peakfinder8":
        from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params

        classical = Peakfinder8(pixel_radius(geometry), bad, Peakfinder8Params())
        return lambda frames, first: classical.find(frames, first_frame=first)
    from peaknet_pipeline.stages.inference import load_model

    return Engine(Network.from_checkpoint(load_model(model), threshold=threshold), bad_pixels=bad)


def _photon_energy(params: LiveParams, geometry: Geometry, source: Path) -> float | None:
    """Return the photon energy, eV: as told, of the geometry, or the first one in the followed file."""
    known = params.photon_energy_ev or geometry.photon_energy_ev
    if known is not None or geometry.photon_energy_path is None or not source.is_file():
        return known
    try:
        with h5py.File(source, "r", libver="latest", swmr=True) as file:
            values = np.ravel(file[geometry.photon_energy_path][()])
    except (OSError, KeyError):
        return None
    return energy_ev(float(values[0]), geometry.photon_energy_unit) if values.size else None


def _indexer(geometry: Geometry, cell: Path) -> Indexer:
    from peaknet_pipeline.indexing.cell import read_cell
    from peaknet_pipeline.indexing.lattice import index_peaks

    target, energy = read_cell(cell), geometry.photon_energy_ev
    if energy is None:
        raise GeometryError(
            "no photon energy, which indexing needs",
            where=geometry.source,
            expected="photon_energy = … eV",
            remedy="Give it with --set photon_energy_ev=…",
        )

    def index(peaks: PeakTable) -> int:
        lattices = index_peaks(peaks, geometry=geometry, photon_energy_ev=energy, cell=target)
        return int(lattices["frame"].nunique())

    return index


def _bad_pixels(geometry: Geometry, mask: Path | None) -> BoolArray:
    bad = geometry_bad_pixels(geometry)
    return bad if mask is None else bad | read_mask(mask, geometry)[0]


@contextmanager
def _served(
    statistics: LiveStatistics, geometry: Geometry, serve: tuple[str, int] | None
) -> Iterator[str | None]:
    if serve is None:
        yield None
        return

    def powder() -> bytes:
        stack = statistics.virtual_powder()
        stack = np.full(geometry.stack_shape, np.nan, dtype=np.float32) if stack is None else stack
        image = assemble(stack, geometry)
        return plot_image(image, title="virtual powder so far", extent=image_extent(geometry))

    with serve_figures(statistics.figures, powder_png=powder, host=serve[0], port=serve[1]) as address:
        yield address
