"""The ``peaknet index`` command: a peak table to lattices, with either engine, and a CrystFEL stream if wanted."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.control import ControlRecord
from peaknet_pipeline.indexing.indexamajig import IndexamajigParams
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams
from peaknet_pipeline.indexing.stream_file import StreamSource, write_stream
from peaknet_pipeline.provenance import command_origin, network_of
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import INDEX, IndexTable
from peaknet_pipeline.steps.index_run import index_with_control, index_with_crystfel, predict_run
from peaknet_pipeline.steps.peak_record import RecordedPeaks, open_source, read_recorded_peaks
from peaknet_pipeline.tables import write_table
from peaknet_pipeline.types import UnitCell


def index_command(
    peaks: Path,
    *,
    geometry: Path,
    cell: Path,
    engine: str,
    settings: Sequence[str],
    out: Path,
    stream: Path | None,
    roots: Sequence[Path] = (),
) -> dict[str, Any]:
    """Index a peak table and write its lattices; see ``peaknet index``.

    Raises
    ------
    TableError, GeometryError, CellError, ParameterError
        One of the inputs is unusable.
    RunError
        No photon energy is known, or the raw run is needed (indexamajig, a stream) and not there.
    IndexingError
        indexamajig is missing or failed.

    """
    recorded, target = read_recorded_peaks(peaks, geometry), read_cell(cell)
    given = {"engine": engine, "settings": list(settings)}
    origin = command_origin("index", given, [peaks, geometry, cell], **network_of(peaks))
    start = time.perf_counter()
    lattices, control, indexed_by = _index(recorded, target, cell, engine, settings, out, origin, roots)
    seconds = time.perf_counter() - start
    write_table(
        lattices, out, INDEX, extra={"peaks": str(peaks), "cell": str(cell), "engine": engine, **origin}
    )
    if stream is not None:
        _write_stream(stream, recorded, lattices, target, indexed_by, roots)
    indexed, tried = lattices["frame"].nunique(), recorded.peaks["frame"].nunique()
    figures = {
        "frames": recorded.n_frames,
        "frames_with_peaks": tried,
        "indexed": indexed,
        "lattices": len(lattices),
        "indexing_yield": round(indexed / max(recorded.n_frames, 1), 4),
        "false_indexed": control.n_indexed,
        "scrambled": control.n_scrambled,
        "frames_per_second": round(tried / max(seconds, 1e-9), 2),
        "engine": engine,
        "out": str(out),
    }
    return figures | ({"stream": str(stream)} if stream is not None else {})


def _index(
    recorded: RecordedPeaks,
    target: UnitCell,
    cell: Path,
    engine: str,
    settings: Sequence[str],
    out: Path,
    origin: Mapping[str, str],
    roots: Sequence[Path],
) -> tuple[IndexTable, ControlRecord, Mapping[int, str] | None]:
    """Return the lattices, the control, and, of indexamajig, the method that indexed each frame."""
    if engine == "lattice":
        params = IndexParams.from_settings(settings)
        table, control = index_with_control(
            recorded.peaks,
            recorded.geometry,
            recorded.photon_energy_ev,
            target,
            params,
            min_peaks=recorded.min_peaks,
        )
        return table, control, None
    crystfel = IndexamajigParams.from_settings(settings)
    with open_source(recorded.metadata, recorded.geometry, roots=roots) as run:
        cxi = out.with_suffix(".cxi")
        found = index_with_crystfel(
            run,
            recorded.peaks,
            cell,
            cxi,
            crystfel,
            bad_pixels=recorded.bad_pixels(run),
            min_peaks=recorded.min_peaks,
            provenance=origin,
        )
        return found.lattices, found.control, found.indexed_by


def _write_stream(
    path: Path,
    recorded: RecordedPeaks,
    lattices: IndexTable,
    cell: UnitCell,
    indexed_by: Mapping[int, str] | None,
    roots: Sequence[Path],
) -> None:
    with open_source(recorded.metadata, recorded.geometry, roots=roots) as run:
        reflections = predict_run(
            run, lattices, recorded.peaks, cell, PredictParams(), bad=recorded.bad_pixels(run)
        )
        write_stream(
            path,
            source=StreamSource(
                run.info.path, run.n_frames, places=[run.event(k) for k in range(run.n_frames)]
            ),
            geometry=geometry_of(run),
            cell=cell,
            photon_energy_ev=run.photon_energy_ev,
            peaks=recorded.peaks,
            lattices=lattices,
            reflections=reflections,
            min_peaks=recorded.min_peaks,
            indexed_by=indexed_by,
        )
