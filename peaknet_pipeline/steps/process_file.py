"""The ``peaknet process`` command: one file to peaks, lattices, a stream, rates with their control, and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.predict import PredictParams
from peaknet_pipeline.infer.params import OutputParams
from peaknet_pipeline.metrics import Rate, count_rates
from peaknet_pipeline.plots.images import FramePicture, plot_frames
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import INDEX, IndexTable, PeakTable, ReflectionTable
from peaknet_pipeline.steps.cell_of_run import cell_command
from peaknet_pipeline.steps.find_in_file import find_command
from peaknet_pipeline.steps.index_file import index_command, split_settings
from peaknet_pipeline.steps.index_run import predict_run
from peaknet_pipeline.steps.peak_record import open_source, read_recorded_peaks
from peaknet_pipeline.steps.peak_tables import positions_px
from peaknet_pipeline.tables import read_table

PEAKS, LATTICES, STREAM, PICTURE, CELL = (
    "peaks.parquet",
    "lattices.parquet",
    "run.stream",
    "frames.png",
    "found.cell",
)
"""Names of the files in the output folder."""

INDEX_SETTING = "index."
"""What a setting of the indexer begins with among those of the finder."""


def process_outputs(folder: Path, *, find_cell: bool) -> dict[Path, str]:
    """Return every file that the command writes into its folder, and the command whose part writes it."""
    made = {PEAKS: "find", LATTICES: "index", STREAM: "index", PICTURE: "process"}
    made |= {CELL: "cell"} if find_cell else {}
    return {folder / name: f"peaknet {part}" for name, part in made.items()}


def process_command(
    path: Path,
    *,
    geometry: Path,
    cell: Path | None,
    finder: str,
    model: Path | None,
    settings: Sequence[str],
    masks: Sequence[Path],
    min_peaks: int,
    out: Path,
    roots: Sequence[Path] = (),
) -> dict[str, Any]:
    """Take one file from raw frames to rates; see ``peaknet process``.

    Raises
    ------
    RunError, GeometryError, CellError, ParameterError
        As `peaknet find` and `peaknet index` raise them: each step is what the command of its name does.
    IndexingError
        No cell was given, and too few frames agree on one.

    """
    own, index_settings = split_settings(settings, INDEX_SETTING)
    peaks, lattices = out / PEAKS, out / LATTICES
    if cell is not None:
        read_cell(cell)  # a cell that can't be read is told before the work, not after it
    out.mkdir(parents=True, exist_ok=True)
    found = find_command(
        path,
        geometry=geometry,
        finder=finder,
        model=model,
        settings=own,
        masks=masks,
        out=peaks,
        cxi=None,
        output=OutputParams(min_peaks=min_peaks),
        roots=roots,
    )
    if cell is None:
        cell = out / CELL
        cell_command(peaks, geometry=geometry, settings=(), out=cell, plot=None)
    indexed = index_command(
        peaks,
        geometry=geometry,
        cell=cell,
        engine="lattice",
        settings=index_settings,
        out=lattices,
        stream=out / STREAM,
        roots=roots,
    )
    shown = _draw(peaks, lattices, geometry, cell, out / PICTURE, roots)
    return _figures(peaks, lattices, geometry, found, indexed) | {
        "cell": str(read_cell(cell)),
        "pictures": shown,
        "out": ", ".join(map(str, process_outputs(out, find_cell=cell == out / CELL))),
    }


def _figures(
    peaks: Path, lattices: Path, geometry: Path, found: dict[str, Any], indexed: dict[str, Any]
) -> dict[str, Any]:
    recorded = read_recorded_peaks(peaks, geometry)
    rates = count_rates(
        recorded.peaks,
        read_table(lattices, INDEX),
        n_frames=recorded.n_frames,
        min_peaks=recorded.min_peaks,
    )
    return {
        "frames": rates.frames,
        "finder": found["finder"],
        "peaks": found["peaks"],
        "hit_rate": _told(rates.hit_rate, "frames"),
        "indexing_rate": _told(rates.indexing_rate, "hits"),
        "indexing_yield": _told(rates.indexing_yield, "frames"),
        "control": f"{indexed['false_indexed']} of {indexed['scrambled']} scrambled hits index",
        "lattices": indexed["lattices"],
        **{name: told[name] for told in (found, indexed) for name in ("doubts", "reasons") if name in told},
    }


def _told(rate: Rate, whole: str) -> str:
    low, high = rate.interval()
    share = f"{rate.value:.1%}" if rate.whole else "–"
    return f"{share} ({rate.part} of {rate.whole} {whole}; 95 %: {low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class Shown:
    """A frame worth a look, and why."""

    frame: int
    why: str


def choose_shown(peaks: PeakTable, lattices: IndexTable, *, min_peaks: int) -> list[Shown]:
    """Choose the best indexed frame, a typical one and a missed hit, as far as there are such.

    Best: most peaks explained; typical: the median of that among indexed frames; missed: the hit with most peaks that has
    no lattice.
    """
    explained = lattices.groupby("frame")["n_explained"].sum().sort_values(kind="stable", ascending=False)
    frames = explained.index.to_numpy(np.int64)
    shown = [Shown(int(frames[0]), "best")] if len(frames) else []
    if len(frames) > 1:
        shown.append(Shown(int(frames[len(frames) // 2]), "typical"))
    missed = np.setdiff1d(hit_frames(peaks, min_peaks=min_peaks), frames)
    if len(missed):
        counts = peaks["frame"].value_counts().reindex(missed)
        shown.append(Shown(int(missed[counts.to_numpy().argmax()]), "missed"))
    return shown


def _draw(
    peaks: Path, lattices: Path, geometry: Path, cell: Path, picture: Path, roots: Sequence[Path]
) -> list[str]:
    """Draw the frames worth a look, and say which they are; a run without a hit shows its first frame."""
    recorded, table = read_recorded_peaks(peaks, geometry), read_table(lattices, INDEX)
    shown = choose_shown(recorded.peaks, table, min_peaks=recorded.min_peaks) or [Shown(0, "first")]
    chosen = [one.frame for one in shown]
    with open_source(recorded.metadata, recorded.geometry, roots=roots) as run:
        bad = recorded.bad_pixels(run)
        of_shown = table[table["frame"].isin(chosen)].reset_index(drop=True)
        reflections, _ = predict_run(run, of_shown, recorded.peaks, read_cell(cell), PredictParams(), bad=bad)
        pictures = [_picture(run, one, recorded.peaks, reflections, bad) for one in shown]
        write_file(picture, plot_frames(pictures, extent=image_extent(geometry_of(run))))
    return [f"{one.why}: frame {one.frame}" for one in shown]


def _picture(
    run: Run, one: Shown, peaks: PeakTable, reflections: ReflectionTable, bad: "np.ndarray[Any, Any]"
) -> FramePicture:
    geometry = geometry_of(run)
    image = np.where(bad, np.nan, run.read(one.frame, one.frame + 1)[0])
    tables = {"found": peaks, "predicted": reflections}
    marks = {
        name: positions_px(table[table["frame"] == one.frame], geometry) for name, table in tables.items()
    }
    told = ", ".join(f"{len(places)} {name}" for name, places in marks.items())
    return FramePicture(np.asarray(assemble(image, geometry)), marks, f"{one.why}: frame {one.frame}, {told}")
