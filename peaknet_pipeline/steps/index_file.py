"""The ``peaknet index`` command: a peak table to lattices, with either engine, and a CrystFEL stream if wanted."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.control import ControlRecord
from peaknet_pipeline.indexing.indexamajig import IndexamajigParams
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams
from peaknet_pipeline.indexing.stream_file import StreamSource, write_stream
from peaknet_pipeline.provenance import command_origin, network_of
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.schemas import INDEX, PEAKS, IndexTable, PeakTable
from peaknet_pipeline.steps.index_run import index_with_control, index_with_crystfel, predict_run
from peaknet_pipeline.steps.peak_tables import energies_of
from peaknet_pipeline.tables import read_table, read_table_metadata, write_table
from peaknet_pipeline.types import Float64Array, Geometry, UnitCell


def index_command(
    peaks: Path,
    *,
    geometry: Path,
    cell: Path,
    engine: str,
    settings: Sequence[str],
    out: Path,
    stream: Path | None,
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
    table, metadata = read_table(peaks, PEAKS), read_table_metadata(peaks)
    detector, target = read_geometry(geometry), read_cell(cell)
    energy = energies_of(metadata, detector, int(table["frame"].max()) + 1 if len(table) else 0)
    given = {"engine": engine, "settings": list(settings)}
    origin = command_origin("index", given, [peaks, geometry, cell], **network_of(peaks))
    start = time.perf_counter()
    lattices, control = _index(table, metadata, detector, energy, target, cell, engine, settings, out, origin)
    seconds = time.perf_counter() - start
    write_table(
        lattices, out, INDEX, extra={"peaks": str(peaks), "cell": str(cell), "engine": engine, **origin}
    )
    if stream is not None:
        _write_stream(stream, table, lattices, metadata, detector, target)
    indexed, tried = lattices["frame"].nunique(), table["frame"].nunique()
    figures = {
        "frames": len(energy),
        "frames_with_peaks": tried,
        "indexed": indexed,
        "lattices": len(lattices),
        "indexing_yield": round(indexed / max(len(energy), 1), 4),
        "false_indexed": control.n_indexed,
        "scrambled": control.n_scrambled,
        "frames_per_second": round(tried / max(seconds, 1e-9), 2),
        "engine": engine,
        "out": str(out),
    }
    return figures | ({"stream": str(stream)} if stream is not None else {})


def _index(
    table: PeakTable,
    metadata: Mapping[str, str],
    geometry: Geometry,
    energy: Float64Array,
    target: UnitCell,
    cell: Path,
    engine: str,
    settings: Sequence[str],
    out: Path,
    origin: Mapping[str, str],
) -> tuple[IndexTable, ControlRecord]:
    if engine == "lattice":
        return index_with_control(table, geometry, energy, target, IndexParams.from_settings(settings))
    params = IndexamajigParams.from_settings(settings)
    with _open_source(metadata, geometry) as run:
        return index_with_crystfel(run, table, cell, out.with_suffix(".cxi"), params, provenance=origin)


def _write_stream(
    path: Path,
    table: PeakTable,
    lattices: IndexTable,
    metadata: Mapping[str, str],
    geometry: Geometry,
    cell: UnitCell,
) -> None:
    with _open_source(metadata, geometry) as run:
        reflections = predict_run(run, lattices, table, cell, PredictParams(), bad=run.bad_pixels)
        write_stream(
            path,
            source=StreamSource(run.info.path, run.n_frames),
            geometry=run.geometry or geometry,
            cell=cell,
            photon_energy_ev=run.photon_energy_ev,
            peaks=table,
            lattices=lattices,
            reflections=reflections,
        )


def _open_source(metadata: Mapping[str, str], geometry: Geometry) -> Run:
    source = metadata.get("source")
    if source is None or not Path(source).is_file():
        raise RunError(
            "the raw run of these peaks is needed and not there",
            where=source or "peak table",
            remedy="Find the peaks again with `peaknet find`, or index with --engine lattice and without --stream.",
        )
    return open_run(source, geometry)
