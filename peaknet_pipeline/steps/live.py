"""Peaks of a run while it is being taken: a growing file, a folder that fills, or a ZeroMQ socket."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peaknet_pipeline.errors import GeometryError, ParameterError, StreamError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.maps import geometry_bad_pixels
from peaknet_pipeline.geometry.resolve import resolve_geometry
from peaknet_pipeline.geometry.usable import flags_of, usable_values, with_flags
from peaknet_pipeline.hits import MIN_PEAKS
from peaknet_pipeline.infer.figure_server import LOOPBACK, serve_figures
from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.infer.live import Indexer, live_stream, no_tick, no_watcher
from peaknet_pipeline.infer.live_facts import NOTHING, peek
from peaknet_pipeline.infer.live_figures import LiveFigures, LiveStatistics
from peaknet_pipeline.infer.live_parts import (
    FILES_FILE,
    ArrivalSink,
    FileNumbers,
    read_facts,
    taken_numbers,
    write_facts,
)
from peaknet_pipeline.infer.live_sources import SOCKETS, CurveKeys, LiveParams, open_source
from peaknet_pipeline.infer.stream import Finder, as_found
from peaknet_pipeline.params import Parameters, read_settings
from peaknet_pipeline.provenance import command_origin
from peaknet_pipeline.runs.masks import read_drawn_mask, settle_polarity
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.steps.find_with_network import card_of, network_name
from peaknet_pipeline.steps.finders import finder_kind
from peaknet_pipeline.steps.gentle_end import Ending, ending_gently
from peaknet_pipeline.steps.live_outputs import LiveOutputs
from peaknet_pipeline.steps.peak_tables import add_resolution, nothing_found
from peaknet_pipeline.types import FrameArray, Geometry, UnitCell

if TYPE_CHECKING:
    from peaknet_pipeline.steps.live_view import LiveView


def stream_command(
    source: str,
    *,
    geometry: Path,
    finder: str = "peaknet",
    model: Path | None = None,
    masks: Sequence[Path] = (),
    cell: Path | None = None,
    settings: Sequence[str] = (),
    out: Path | None = None,
    cxi: Path | None = None,
    segmentation: Path | None = None,
    hits_only: bool = False,
    min_peaks: int = MIN_PEAKS,
    serve: tuple[str, int] | None = None,
    keys: CurveKeys | None = None,
    invert_masks: bool = False,
    report: Callable[[LiveFigures], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
    roots: Sequence[Path] = (),
) -> dict[str, Any]:
    """Follow a source until it ends; return its figures. See ``peaknet stream``.

    The first Ctrl-C (or SIGTERM) ends the source: what has arrived is found and written. The second one gives up. What is found
    is on disk within seconds, in parts: whatever ends the stream, the same command goes on from them.

    Parameters
    ----------
    source : str
        File, folder, or ZeroMQ address to bind.
    geometry, model, masks, cell : Path
        With a cell, hits are indexed as they come.
    settings : sequence of str
        ``NAME=VALUE`` of the stream and of the finder.
    out, cxi, segmentation : Path, optional
        Peak table, CXI file with frames and peaks, and the network's masks, to write.
    hits_only : bool
        Write frames with at least ``min_peaks`` peaks only.
    serve : (host, port), optional
        Where figures and the page are served; away from the loopback interface the page needs a token, which is said.
    keys : CurveKeys, optional
        The receiver's secret key and the folder of the senders' public keys, for a ZeroMQ address.
    invert_masks : bool
        Masks that take more than half of the pixels are inverted.
    report : callable, optional
        Called after each batch with the figures.
    say : callable, optional
        Told what a user should know: what is waited for, why the source ended, what was refused.
    roots : sequence of Path
        Folders that links of files may lead into, besides their own.

    """
    kind = finder_kind(finder)
    if segmentation is not None and not kind.has_network:
        raise ParameterError("segmentation masks go with the finder peaknet only", found=finder)
    params, detection = read_parameters(finder, settings)
    detector = read_geometry(geometry)
    energy = params.photon_energy_ev or detector.photon_energy_ev
    if cell is not None and source.startswith(SOCKETS):
        check_energy(energy, detector)
        check_distance(resolve_geometry(detector, clen_m=params.clen_m))
    drawn = (read_drawn_mask(m, detector, invert=invert_masks, doubt=say) for m in masks)
    bad = np.logical_or.reduce([geometry_bad_pixels(detector), *drawn])
    statistics = LiveStatistics(min_peaks=min_peaks, usable=usable_values(detector), say=say)
    network = kind.load(model)
    find = kind.make(detection, detector, bad, network, segmentation is not None)
    find(np.zeros((1, *detector.stack_shape), dtype=np.float32), 0)  # compiles before there are frames
    inputs = [geometry, *masks, cell, card_of(model) if network is not None else None]
    told = {"source": source, "finder": finder, "hits_only": str(hits_only).lower()}
    named = {} if network is None else network_name(network)
    told |= command_origin("stream", params.to_dict() | detection.to_dict(), inputs, **named)
    outputs = LiveOutputs(out, cxi, segmentation, hits_only, min_peaks)
    with ExitStack() as stack:
        recipe = command_origin(f"stream {source} by {finder}", detection.to_dict(), inputs)["recipe"]
        parts = stack.enter_context(outputs.kept(f"{recipe} {params.photon_energy_ev} {params.clen_m}"))
        shown = {"source": source, "finder": finder}
        view = stack.enter_context(_served(statistics, detector, serve, shown, say))
        stop = stack.enter_context(ending_gently())
        taken_up = parts.n_written if parts is not None else 0
        if taken_up:
            say(f"goes on from {taken_up} frames that an earlier stream found")
        say(f"waiting for frames from {source}")
        ending = Ending(stop, say)
        arrivals = open_source(
            source, detector, params, statistics=statistics, keys=keys, stop=stop, say=say, more_roots=roots,
            taken=None if parts is None else taken_numbers(parts),
            files=None if parts is None else FileNumbers(parts.folder / FILES_FILE),
        )  # fmt: skip
        arrivals, facts = peek(
            ending.until(arrivals), detector, say,
            masked=bool(masks), kept=None if parts is None else read_facts(parts.folder),
        )  # fmt: skip
        new_mask = facts.bad_pixels is not None and bool((facts.bad_pixels & ~bad).any())
        new_flags = facts.flags is not None and facts.flags != flags_of(detector)
        if facts.bad_pixels is not None and new_mask:
            bad = bad | settle_polarity(facts.bad_pixels, "of the frames", invert=invert_masks, doubt=say)
        if facts.flags is not None and new_flags:
            detector = with_flags(detector, facts.flags)
            statistics.use(usable_values(detector))
        if new_mask or new_flags:
            find = kind.make(detection, detector, bad, network, segmentation is not None)
        energy = energy or facts.photon_energy_ev
        clen = facts.clen_m if params.clen_m is None else params.clen_m
        detector = resolve_geometry(detector, photon_energy_ev=energy, clen_m=clen)
        if cxi is not None and facts is not NOTHING:
            check_distance(detector)
        if energy is not None:
            find = with_resolution(find, detector, energy)
            told["photon_energy_ev"] = json.dumps([energy])
        if clen is not None:
            told["clen_m"] = json.dumps([clen])
        target = _read_cell(cell) if cell is not None and facts is not NOTHING else None
        index = None if target is None else _indexer(detector, target)
        if view is not None:
            view.use(detector, bad, target)
        if parts is not None and facts is not NOTHING:
            write_facts(parts.folder, facts)
        sink = ArrivalSink(parts, part_s=params.part_s) if parts is not None else None
        figures = live_stream(
            arrivals, find, statistics, sinks=[] if sink is None else [sink], with_images=cxi is not None,
            hits_only=hits_only, index=index, watch=no_watcher if view is None else view.add,
            report=report, tick=sink.close_full if sink else no_tick,
        )  # fmt: skip
        if not figures.frames and not taken_up:
            _nothing_came(ending, statistics)
        if figures.frames and not figures.peaks:
            say(nothing_found(figures.frames, float(bad.mean())))
        written = {} if parts is None else outputs.write(parts, detector, bad, told)
    if ending.failure is not None:
        raise ending.failure
    kept = {"kept_fraction": round(figures.hit_rate, 4)} if hits_only else {}
    more = {"frames_taken_up": taken_up} if taken_up else {}
    return {**summary(figures), **more, "bad_pixels": int(bad.sum()), **kept, **written}


def _nothing_came(ending: Ending, statistics: LiveStatistics) -> None:
    """Raise what kept the stream from finding any frame; a source that ended without frames is no error."""
    if ending.failure is not None:
        raise ending.failure
    if statistics.first_refusal is not None:
        raise StreamError(
            f"no frame could be used; the first thing left out: {statistics.first_refusal}",
            found=f"{statistics.figures().refused} left out",
        )


def summary(figures: LiveFigures) -> dict[str, Any]:
    """Return what a whole stream did; the rate is the mean from the first batch to the last."""
    told: dict[str, Any] = {
        "frames": figures.frames,
        "hits": figures.hits,
        "hit_rate": round(figures.hit_rate, 4),
        "peaks": figures.peaks,
    }
    if figures.indexed is not None:
        told |= {
            "indexed": figures.indexed,
            "indexing_rate": round(figures.indexing_rate, 4),
            "indexing_yield": round(figures.indexing_yield, 4),
        }
    return told | {
        "frames_per_second": round(figures.mean_frames_per_second, 2),
        "latency_p50_s": round(figures.latency_p50_s, 3),
        "latency_p99_s": round(figures.latency_p99_s, 3),
        "refused": figures.refused,
    }


def read_parameters(finder: str, settings: Sequence[str]) -> tuple[LiveParams, Parameters]:
    """Return the stream's and the finder's parameters out of one list of settings."""
    kind = finder_kind(finder).parameters
    values = read_settings(settings, where="stream")
    own = LiveParams.own(values)
    return LiveParams.from_mapping(own), kind.from_mapping({n: v for n, v in values.items() if n not in own})


def with_resolution(find: Finder, geometry: Geometry, energy_ev: float) -> Finder:
    """Return a finder of frames that are numbered from 0 and have one photon energy, which adds 1/d to the peaks."""

    def find_with_resolution(frames: FrameArray, first: int) -> Found:
        found = as_found(find(frames, first))
        return Found(add_resolution(found.peaks, geometry, np.full(len(frames), energy_ev)), found.pixels)

    return find_with_resolution


def check_energy(energy: float | None, geometry: Geometry) -> float:
    """Return the photon energy, eV; GeometryError where it is not known."""
    if energy is None:
        raise GeometryError(
            "no photon energy, which indexing needs",
            where=geometry.source,
            expected="photon_energy = … eV",
            remedy="Give it with --set photon_energy_ev=…",
        )
    return energy


def check_distance(geometry: Geometry) -> None:
    """Raise GeometryError where the camera length is not known."""
    if not knows_distance(geometry):
        raise GeometryError(
            "no camera length, which lattices and a CXI file's geometry need",
            where=geometry.source,
            found=geometry.clen_path,
            remedy="Give it with --set clen_m=… (metres, without coffset)",
        )


def _read_cell(path: Path) -> UnitCell:
    from peaknet_pipeline.indexing.cell import read_cell

    return read_cell(path)


def _indexer(geometry: Geometry, target: UnitCell) -> Indexer:
    from peaknet_pipeline.indexing.lattice import index_peaks

    energy = check_energy(geometry.photon_energy_ev, geometry)
    check_distance(geometry)

    def index(peaks: PeakTable) -> IndexTable:
        return index_peaks(peaks, geometry=geometry, photon_energy_ev=energy, cell=target)

    return index


@contextmanager
def _served(
    statistics: LiveStatistics,
    geometry: Geometry,
    serve: tuple[str, int] | None,
    told: Mapping[str, str],
    say: Callable[[str], None],
) -> Iterator["LiveView | None"]:
    """Serve figures and page, and say where; yield what watches the stream for the page."""
    if serve is None:
        yield None
        return
    from peaknet_pipeline.steps.live_view import LiveView  # loads what indexes and draws

    view = LiveView(geometry, statistics, told)
    host, port = serve
    token = None if host in LOOPBACK else secrets.token_urlsafe(16)
    with serve_figures(statistics.figures, shown=view.served(), host=host, port=port, token=token) as address:
        say(f"page at {address}/{'' if token is None else f'?token={token}'}, figures at {address}/metrics")
        yield view
