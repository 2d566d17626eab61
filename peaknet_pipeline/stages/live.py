"""Peaks of a run while it is being taken: a growing file, a folder that fills, or a ZeroMQ socket."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import geometry_bad_pixels, pixel_radius
from peaknet_pipeline.infer.engine import Engine, Network
from peaknet_pipeline.infer.live import Indexer, LiveFigures, LiveStatistics, live_stream
from peaknet_pipeline.infer.live_sources import Arrival, Patience, follow_file, follow_folder, receive_frames
from peaknet_pipeline.infer.prometheus import serve_figures
from peaknet_pipeline.infer.sinks import ParquetSink, PeakSink
from peaknet_pipeline.infer.stream import Finder
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.plots.images import plot_image
from peaknet_pipeline.runs.masks import read_mask
from peaknet_pipeline.stages.provenance import command_origin
from peaknet_pipeline.types import BoolArray, Geometry, PeakTable

SOCKETS = ("tcp://", "ipc://", "inproc://")


@dataclass(frozen=True)
class LiveParams(Parameters):
    """How a live stream is followed."""

    batch_frames: int = parameter(8, meaning="frames per batch at most", ge=1)
    min_peaks: int = parameter(15, meaning="least peaks of a hit", ge=1)
    idle_s: float = parameter(
        60.0, meaning="time without a frame after which the stream ends", unit="s", gt=0
    )
    poll_s: float = parameter(0.05, meaning="time between looks for new frames", unit="s", gt=0)
    n_frames: int | None = parameter(None, meaning="frames after which following a file ends", ge=1)
    n_sources: int = parameter(1, meaning="senders whose end ends a ZeroMQ stream", ge=1)
    settle_s: float = parameter(2.0, meaning="age at which a new file counts as complete", unit="s", ge=0)
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
    serve: tuple[str, int] | None = None,
    report: Callable[[LiveFigures, str | None], None] | None = None,
) -> dict[str, Any]:
    """Follow a source until it ends; return its figures. See ``peaknet stream``.

    Parameters
    ----------
    source : str
        File, folder, or ZeroMQ address to bind.
    geometry, model, mask, cell : Path
        With a cell, hits are indexed as they come.
    out : Path, optional
        Peak table to write.
    serve : (host, port), optional
        Where figures and virtual powder are served.
    report : callable, optional
        Called after each batch with the figures and the address where they are served.

    """
    params = LiveParams.from_settings(settings)
    detector = read_geometry(geometry)
    bad = _bad_pixels(detector, mask)
    statistics = LiveStatistics(min_peaks=params.min_peaks)
    find = _finder(finder, model, detector, bad, params.threshold)
    find(np.zeros((1, *detector.stack_shape), dtype=np.float32), 0)
    origin = command_origin("stream", params.to_dict(), [geometry, mask, cell]) if out else {}
    extra = {"source": source, "finder": finder, **origin}
    sinks: list[PeakSink] = [ParquetSink(out, extra=extra)] if out else []
    with _served(statistics, detector, serve) as address:
        figures = live_stream(
            open_source(source, detector, params),
            find,
            statistics,
            sinks=sinks,
            index=_indexer(detector, cell) if cell is not None else None,
            report=None if report is None else lambda now: report(now, address),
        )
    rates = {name: getattr(figures, name) for name in ("hit_rate", "indexing_rate", "indexing_yield")}
    return {**asdict(figures), **rates}


def open_source(source: str, geometry: Geometry, params: LiveParams) -> Iterator[Arrival]:
    """Return the frames of a ZeroMQ address, a folder or a file."""
    patience = Patience(params.poll_s, params.idle_s)
    if source.startswith(SOCKETS):
        return receive_frames(
            source, n_sources=params.n_sources, batch_frames=params.batch_frames, patience=patience
        )
    path = Path(source)
    if path.is_dir():
        slower = Patience(max(params.poll_s, 0.5), params.idle_s)
        return follow_folder(
            path,
            geometry=geometry,
            batch_frames=params.batch_frames,
            settle_s=params.settle_s,
            patience=slower,
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


def _indexer(geometry: Geometry, cell: Path) -> Indexer:
    from peaknet_pipeline.indexing.cell import read_cell
    from peaknet_pipeline.indexing.lattice import index_peaks

    target, energy = read_cell(cell), geometry.photon_energy_ev
    if energy is None:
        raise GeometryError(
            "no photon energy, which indexing needs", where=geometry.source, expected="photon_energy = … eV"
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
