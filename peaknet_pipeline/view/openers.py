"""From what a user names (a run's file, tables made from it, a run's key, an experiment) to scenes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import CellError, ParameterError, RunError
from peaknet_pipeline.hits import MIN_PEAKS
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.runs.masks import read_drawn_mask, read_layers
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.schemas import CURATION, INDEX, PEAKS, SECOND_LOOK, PeakTable
from peaknet_pipeline.steps.peak_record import INVERTED, read_recorded_peaks
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import (
    FINDERS,
    curation_path,
    index_path,
    peaks_path,
    second_look_path,
    statistics_path,
)
from peaknet_pipeline.store.run_files import cell_file, open_raw, read_context
from peaknet_pipeline.tables import read_table, read_table_metadata
from peaknet_pipeline.types import BoolArray, UnitCell
from peaknet_pipeline.view.scene import Lattices, Scene

TABLE = ".parquet"
SECOND = "second look"
OWN = "run and geometry"
"""What bad pixels are called that a run and its geometry name."""

FINDERS_OWN = "masks of the finder"
"""What bad pixels are called that only the masks given to the finder name."""


@dataclass(frozen=True)
class Opener:
    """A run that can be shown: its name, and how it is opened when somebody looks at it."""

    name: str
    open: Callable[[], Scene]


@dataclass(frozen=True)
class Given:
    """What goes with the files that a user names."""

    geometry: Path | None = None
    cell: Path | None = None
    masks: Sequence[Path] = ()
    roots: Sequence[Path] = ()
    data: Path = Path("data")


def find_scenes(named: Sequence[str], given: Given) -> list[Opener]:
    """Return the runs that a user's words stand for.

    Parameters
    ----------
    named : sequence of str
        A run's file or folder with any peak, lattice and second-look tables made from it; or tables alone; or keys of
        runs; or the names of experiments.
    given : Given

    Raises
    ------
    ParameterError
        A word is neither a file nor a run or experiment of the data root, or files of several runs are given.

    """
    files = [Path(word) for word in named if Path(word).exists()]
    words = [word for word in named if not Path(word).exists()]
    if files and words:
        raise ParameterError(
            "no such file", found=words[0], remedy="Give files of one run, or keys of registered runs."
        )
    if files:
        tables = [path for path in files if path.suffix == TABLE]
        runs = [path for path in files if path.suffix != TABLE]
        if len(runs) > 1:
            raise ParameterError(
                "more than one run", found=", ".join(map(str, runs)), remedy="Give one run, and its tables."
            )
        run = runs[0] if runs else None
        return [Opener((run or tables[0]).name, lambda: open_files(run, tables, given))]
    store = Store(given.data)
    return [Opener(key, partial(open_key, store, key)) for word in words for key in _keys(store, word)]


def _keys(store: Store, word: str) -> list[str]:
    """Return the keys of runs with a peak table or statistics that a key or an experiment's name stands for."""
    folders = (peaks_path(store, "x-r0001", "classical").parent, statistics_path(store, "x-r0001").parent)
    known = sorted({path.name.split(".")[0] for folder in folders for path in folder.glob("*-r*.*")})
    found = [key for key in known if key == word or _experiment(key) == word]
    if not found:
        raise ParameterError(
            "neither a file nor a run or experiment with results",
            where=store.root,
            found=word,
            expected=f"one of {', '.join(known[:8])}" if known else "a run with its first stages made",
            remedy="`peaknet runs` lists the runs; --data names the data root.",
        )
    return found


def _experiment(key: str) -> str:
    try:
        return parse_key(key).experiment
    except ParameterError:
        return ""


def open_files(path: Path | None, tables: Sequence[Path], given: Given) -> Scene:
    """Open a run by its file, or by the peak table that names it, with the tables made from it.

    Raises
    ------
    RunError, GeometryError, TableError, CellError
        One of them cannot be used, or the run has no geometry.

    """
    metadata = {table: read_table_metadata(table) for table in tables}
    of_peaks = [table for table in tables if metadata[table].get("table") == PEAKS.name]
    recorded = metadata[of_peaks[0]] if of_peaks else {}
    source = path or Path(recorded.get("source", ""))
    if not source.name or not source.exists():
        raise RunError("the raw run of these tables is not there", found=source, remedy="Name its file, too.")
    inverted = recorded.get(INVERTED) == "true"
    run = open_run(source, given.geometry, more_roots=given.roots, invert_masks=inverted)
    cell = None if given.cell is None else read_cell(given.cell)
    try:
        peaks, lattices = _read_tables(tables, metadata)
        layers, min_peaks = _file_layers(run, given), MIN_PEAKS
        if of_peaks and given.geometry is not None:
            found = read_recorded_peaks(of_peaks[0], given.geometry)
            layers[FINDERS_OWN], min_peaks = found.bad_pixels(run) & ~run.bad_pixels, found.min_peaks
        return Scene(run, source.name, layers, peaks, lattices, cell, min_peaks=min_peaks)
    except BaseException:
        run.close()
        raise


def _read_tables(
    tables: Sequence[Path], metadata: Mapping[Path, Mapping[str, str]]
) -> tuple[dict[str, PeakTable], dict[str, Lattices]]:
    """Return peak tables and lattice tables by what they are called on the page."""
    peaks: dict[str, PeakTable] = {}
    lattices: dict[str, Lattices] = {}
    names: dict[str, str] = {}
    for table in sorted(tables, key=lambda table: metadata[table].get("table") != PEAKS.name):
        kind = metadata[table].get("table")
        if kind == PEAKS.name:
            name = _free(metadata[table].get("finder", table.stem), peaks)
            peaks[name] = read_table(table, PEAKS)
            names[str(table.resolve())] = name
        elif kind == INDEX.name:
            finder = names.get(str(Path(metadata[table].get("peaks", "")).resolve()))
            lattices[_free(finder or table.stem, lattices)] = Lattices(read_table(table, INDEX), finder)
        elif kind == SECOND_LOOK.name:
            lattices[_free(SECOND, lattices)] = _second_look(table)
        else:
            raise ParameterError(
                "not a table that can be drawn", where=table, expected="peaks or lattices", found=kind
            )
    return peaks, lattices


def open_key(store: Store, key: str) -> Scene:
    """Open a registered run with everything that its stages have made so far."""
    context = read_context(store, key)
    opened = ExitStack()
    run = opened.enter_context(open_raw(context))
    statistics = statistics_path(store, key)
    layers = read_layers(statistics) if statistics.is_file() else {OWN: run.bad_pixels}
    try:
        cell: UnitCell | None = read_cell(cell_file(context))
    except CellError:
        cell = None  # none given and none found yet: peaks can be looked at all the same
    peaks: dict[str, PeakTable] = {}
    lattices: dict[str, Lattices] = {}
    for finder in FINDERS:
        of_peaks, of_lattices = peaks_path(store, key, finder), index_path(store, key, finder)
        if of_peaks.is_file():
            peaks[finder] = read_table(of_peaks, PEAKS)
        if of_lattices.is_file():
            lattices[finder] = Lattices(read_table(of_lattices, INDEX), finder)
    if second_look_path(store, key).is_file():
        lattices[SECOND] = _second_look(second_look_path(store, key))
    curation = curation_path(store, key)
    ranked = read_table(curation, CURATION) if curation.is_file() else None
    return Scene(run, key, layers, peaks, lattices, cell, ranked, context.experiment.min_peaks, opened)


def _second_look(path: Path) -> Lattices:
    table = read_table(path, SECOND_LOOK)
    return Lattices(table[table["origin"] == SECOND], None)


def _file_layers(run: Run, given: Given) -> dict[str, BoolArray]:
    layers = {OWN: run.bad_pixels}
    for path in given.masks:
        told: list[str] = []
        layers[_free(path.name, layers)] = read_drawn_mask(path, run.geometry, doubt=told.append)
    return {name: np.asarray(layer, dtype=np.bool_) for name, layer in layers.items()}


def _free(name: str, taken: Collection[str]) -> str:
    return next(n for n in (name, *(f"{name} {k}" for k in range(2, 1000))) if n not in taken)
