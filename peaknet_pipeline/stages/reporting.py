"""The experiment report: one self-contained page from the tables and plots that the stages left."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.geometry.maps import peak_positions_m
from peaknet_pipeline.plots.images import plot_frame_peaks
from peaknet_pipeline.report import ReportFigure, Section, comparison_table, facts_table, write_report
from peaknet_pipeline.stages.context import open_raw, read_context
from peaknet_pipeline.stages.finding import geometry_of, peaks_path
from peaknet_pipeline.stages.ingest import statistics_path
from peaknet_pipeline.stages.labels import labels_path
from peaknet_pipeline.stages.lattices import index_path
from peaknet_pipeline.stages.making import plot_path
from peaknet_pipeline.stages.models import newest_path
from peaknet_pipeline.stages.provenance import read_recipe
from peaknet_pipeline.stages.store import Store
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import PEAKS, Float64Array, Geometry, PeakTable, Scores
from peaknet_pipeline.version import code_version

FINDERS = ("classical", "peaknet")
MOST_RUNS = 8
"""Runs that are shown with plots of their own, the last ones."""

DEFINITIONS = (
    "Hit rate = hits / frames processed. Indexing rate = indexed hits / hits. "
    "Indexing yield = frames indexed / frames processed. "
    "The false-index control is the share of hits that still index when each spot's azimuth is scrambled."
)


def report_path(store: Store) -> Path:
    """Return where the report lies."""
    return store.report / "index.html"


def write_experiment_report(
    store: Store, keys: Sequence[str], scores: Scores, rates_png: bytes | None
) -> Path:
    """Write the report of all scored runs; plots that a stage did not leave are left out."""
    sections = [
        Section(
            "Rates",
            (DEFINITIONS,),
            (comparison_table(scores),),
            (ReportFigure(rates_png, "Rates over runs, with 95 % intervals"),) if rates_png else (),
            wide=True,
        ),
        _models(store),
        *(_run(store, key) for key in keys[-MOST_RUNS:]),
    ]
    title = ", ".join(sorted(set(scores["experiment"]))) or "no experiment"
    write_report(
        report_path(store), title=title, subtitle=f"PeakNet Pipeline {code_version()}", sections=sections
    )
    return report_path(store)


def _models(store: Store) -> Section:
    names = [name for name in ("teacher", "student") if newest_path(store, name).is_file()]
    tables = [
        facts_table((read_recipe(newest_path(store, name)) or {}).get("figures", {}), caption=name)
        for name in names
    ]
    plots = (
        (plot_path(newest_path(store, n), "learning_curves"), f"Learning curve of the {n}") for n in names
    )
    return Section("Networks", (), tuple(tables), tuple(_figures(plots)))


def _run(store: Store, key: str) -> Section:
    plots = [
        (plot_path(statistics_path(store, key), "virtual_powder"), "Virtual powder: maximum over the run"),
        (plot_path(statistics_path(store, key), "bad_pixel_mask"), "Bad pixels"),
    ]
    for finder in FINDERS:
        plots.append((plot_path(peaks_path(store, key, finder), "peaks_per_frame"), f"Peaks, {finder}"))
        plots.append((plot_path(index_path(store, key, finder), "cell_parameters"), f"Cells, {finder}"))
    plots.append((plot_path(labels_path(store, key), "fits"), "Fits behind the labels"))
    plots.append((plot_path(store.table("run_metrics", key), "recall_by_snr"), "Recall per band of true SNR"))
    return Section(key, (), (), (*_figures(plots), *_example(store, key)))


def _figures(plots: Iterable[tuple[Path, str]]) -> list[ReportFigure]:
    return [ReportFigure(path.read_bytes(), caption) for path, caption in plots if path.is_file()]


def _example(store: Store, key: str) -> list[ReportFigure]:
    """Draw the frame with the median number of neural peaks among those that have any, both finders overlaid."""
    paths = {finder: peaks_path(store, key, finder) for finder in FINDERS}
    if not all(path.is_file() for path in paths.values()):
        return []
    peaks = {finder: read_table(path, PEAKS) for finder, path in paths.items()}
    counts = peaks["peaknet"]["frame"].value_counts().sort_values(kind="stable")
    if counts.empty:
        return []
    number = int(counts.index[len(counts) // 2])
    with open_raw(read_context(store, key)) as run:
        geometry = geometry_of(run)
        image = assemble(run.read(number, number + 1)[0], geometry)
    shown = {
        finder: _positions_px(table[table["frame"] == number], geometry) for finder, table in peaks.items()
    }
    title = f"{key}, frame {number}"
    png = plot_frame_peaks(image, shown, title=title, extent=image_extent(geometry))
    return [ReportFigure(png, "A frame with the peaks of both finders")]


def _positions_px(peaks: PeakTable, geometry: Geometry) -> Float64Array:
    place = (peaks[name].to_numpy() for name in ("panel", "fs", "ss"))
    positions: Float64Array = peak_positions_m(geometry, *place)[:, :2] / geometry.panels[0].pixel_size_m
    return positions
