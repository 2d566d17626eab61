"""The ``peaknet index`` command: a peak table to lattices, with either engine, and a CrystFEL stream if wanted."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.control import ControlRecord
from peaknet_pipeline.indexing.indexamajig import IndexamajigParams
from peaknet_pipeline.indexing.integrate import IntegrateParams
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams
from peaknet_pipeline.indexing.second_look.run_params import RunSecondLookParams
from peaknet_pipeline.indexing.stream_file import StreamSource, write_stream
from peaknet_pipeline.provenance import command_origin, network_of
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import CRYSTALS, INDEX, REFLECTIONS, SECOND_LOOK, IndexTable, ReflectionTable
from peaknet_pipeline.steps.index_run import index_with_control, index_with_crystfel, predict_run
from peaknet_pipeline.steps.look_again import look_again
from peaknet_pipeline.steps.peak_record import RecordedPeaks, open_source, read_recorded_peaks
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.steps.reasons import reasons_of
from peaknet_pipeline.steps.second_look_tables import SecondLookOutcome, join_second_look
from peaknet_pipeline.tables import write_table
from peaknet_pipeline.types import UnitCell

SECOND_LOOK_SETTING = "second_look."
"""What a setting of the second look begins with among those of the indexer."""

INDEXED_BY_SECOND_LOOK = "peaknet-second-look"
"""What a stream says of frames that only the second look indexed. CrystFEL doesn't know the name: its readers complain about
it and go on."""


def index_command(
    peaks: Path,
    *,
    geometry: Path,
    cell: Path,
    engine: str,
    settings: Sequence[str],
    out: Path,
    stream: Path | None,
    reflections: Path | None = None,
    second_look: Path | None = None,
    with_second_look: bool = False,
    roots: Sequence[Path] = (),
) -> dict[str, Any]:
    """Index a peak table and write its lattices; see ``peaknet index``.

    Raises
    ------
    TableError, GeometryError, CellError, ParameterError
        One of the inputs is unusable, or a setting or option is of a second look or a stream that was not asked for.
    RunError
        No photon energy is known, or the raw run is needed (indexamajig, a stream, the second look) and not there.
    IndexingError
        indexamajig is missing or failed.

    """
    settings, look_settings = split_settings(settings, SECOND_LOOK_SETTING)
    asked = list(settings)
    settings, prediction_settings = split_settings(settings, "prediction.")
    settings, integration_settings = split_settings(settings, "integration.")
    prediction = PredictParams.from_settings(prediction_settings)
    integration = IntegrateParams.from_settings(integration_settings)
    writes_reflections = stream is not None or reflections is not None
    if (prediction_settings or integration_settings) and not writes_reflections:
        raise ParameterError(
            "no reflections were asked for",
            found=f"--set {', '.join([*prediction_settings, *integration_settings])}",
            remedy="Add --stream FILE or --reflections FILE, or leave the settings out.",
        )
    look_params = RunSecondLookParams.from_settings(look_settings)
    if look_settings and second_look is None:
        raise ParameterError(
            "no second look was asked for",
            found=f"--set {SECOND_LOOK_SETTING}{look_settings[0]}",
            remedy="Add --second-look FILE, or leave the setting out.",
        )
    if with_second_look and (second_look is None or not writes_reflections):
        raise ParameterError(
            "there is nothing that could hold the second look's lattices, or no second look",
            expected="--second-look FILE, and --stream FILE or --reflections FILE",
            remedy="Add what is missing, or leave --with-second-look out.",
        )
    recorded, target = read_recorded_peaks(peaks, geometry), read_cell(cell)
    given = {"engine": engine, "settings": asked}
    origin = command_origin("index", given, [peaks, geometry, cell], **network_of(peaks))
    start = time.perf_counter()
    lattices, control, indexed_by = _index(recorded, target, cell, engine, settings, out, origin, roots)
    seconds = time.perf_counter() - start
    write_table(
        lattices, out, INDEX, extra={"peaks": str(peaks), "cell": str(cell), "engine": engine, **origin}
    )
    written, methods, written_origin = lattices, dict(indexed_by or {}), origin
    look = None
    if second_look is not None:
        look = _look_again(recorded, lattices, target, look_params, roots)
        look_given = {**given, "second_look": look_params.to_dict()}
        look_origin = command_origin("index", look_given, [peaks, geometry, cell], **network_of(peaks))
        extra = {**look_origin, "second_look": json.dumps(look.record())}
        write_table(look.table, second_look, SECOND_LOOK, extra=extra)
        if with_second_look:
            written, written_origin = join_second_look(lattices, look.table), look_origin
            rescued = set(written["frame"]) - set(lattices["frame"])
            methods |= {int(frame): INDEXED_BY_SECOND_LOOK for frame in rescued}
    if writes_reflections:
        with open_source(recorded.metadata, recorded.geometry, roots=roots) as run:
            measured, crystals = predict_run(
                run,
                written,
                recorded.peaks,
                target,
                prediction,
                integration,
                bad=recorded.bad_pixels(run),
            )
            if stream is not None:
                _write_stream(stream, run, recorded, written, target, methods, measured)
        if reflections is not None:
            write_table(measured, reflections, REFLECTIONS, extra={"cell": str(cell), **written_origin})
            write_table(crystals, crystals_beside(reflections), CRYSTALS, extra=written_origin)
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
    if not indexed and recorded.n_frames:
        figures["reasons"] = reasons_of(peaks, geometry, cell, recorded)
    if look is not None:
        figures |= {**second_look_figures(look, lattices), "second_look": str(second_look)}
    return figures | {
        name: str(path)
        for name, path in (("stream", stream), ("reflections", reflections))
        if path is not None
    }


def split_settings(settings: Sequence[str], prefix: str) -> tuple[list[str], list[str]]:
    """Divide ``NAME=VALUE`` settings into those without and those with a prefix, which is taken off."""
    own = [s.removeprefix(prefix) for s in settings if s.startswith(prefix)]
    return [s for s in settings if not s.startswith(prefix)], own


def second_look_figures(look: SecondLookOutcome, lattices: IndexTable) -> dict[str, Any]:
    """Return what the second look added, and what its control says."""
    found = look.table[look.table["origin"] == "second look"]
    return {
        "second_look_indexed": len(set(found["frame"]) - set(lattices["frame"])),
        "second_look_lattices": len(found),
        "second_look_searched": look.n_searched,
        "second_look_copies": look.control.n_copies,
        "second_look_highest_control": round(look.control.highest, 2),
        "second_look_bar": round(look.control.bar, 2),
        "second_look_false_limit": round(look.control.false_rate_limit, 4),
    }


def _look_again(
    recorded: RecordedPeaks,
    lattices: IndexTable,
    cell: UnitCell,
    params: RunSecondLookParams,
    roots: Sequence[Path],
) -> SecondLookOutcome:
    with (
        open_source(recorded.metadata, recorded.geometry, roots=roots) as run,
        progress_bar("second look") as bar,
    ):
        bad = recorded.bad_pixels(run)
        return look_again(run, lattices, bad_pixels=bad, cell=cell, params=params, progress=bar)


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


def crystals_beside(reflections: Path) -> Path:
    """Return where lies what the reflections of a table tell of each crystal."""
    return reflections.with_name(f"{reflections.stem}_crystals.parquet")


def _write_stream(
    path: Path,
    run: Run,
    recorded: RecordedPeaks,
    lattices: IndexTable,
    cell: UnitCell,
    indexed_by: Mapping[int, str] | None,
    reflections: ReflectionTable,
) -> None:
    write_stream(
        path,
        source=StreamSource(run.info.path, run.n_frames, places=[run.event(k) for k in range(run.n_frames)]),
        geometry=geometry_of(run),
        cell=cell,
        photon_energy_ev=run.photon_energy_ev,
        peaks=recorded.peaks,
        lattices=lattices,
        reflections=reflections,
        min_peaks=recorded.min_peaks,
        indexed_by=indexed_by,
    )
