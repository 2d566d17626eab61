"""The experiment report: one self-contained page from the tables and plots that the stages left."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.indexing.second_look.acceptance import false_rate_limit
from peaknet_pipeline.plots.curves import plot_rates_over_runs
from peaknet_pipeline.plots.style import name_of
from peaknet_pipeline.provenance import read_recipe
from peaknet_pipeline.records import read_json
from peaknet_pipeline.report import (
    ReportFigure,
    ReportTable,
    Section,
    Tile,
    comparison_table,
    facts_table,
    total_scores,
    write_report,
)
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import MERGE_FIGURES, SECOND_LOOK_RATES, RunTable, Scores
from peaknet_pipeline.stages import report_figures
from peaknet_pipeline.stages.report_figures import Pool, drawable
from peaknet_pipeline.stages.run_table import check_known, problems_report, run_table, runs_report
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import plot_path
from peaknet_pipeline.store.models import newest_path
from peaknet_pipeline.store.paths import (
    FINDERS,
    index_path,
    labels_path,
    merge_figures_path,
    peaks_path,
    read_bad_pixels,
    second_look_rates_path,
    statistics_path,
)
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline.store.scores import read_all_scores
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import Float64Array
from peaknet_pipeline.version import code_version

MOST_RUNS = 8
"""Runs whose frames, peaks and lattices are drawn: the last ones."""

CURVES = "loss against optimiser step, and precision, recall and F1 of whole validation panels."

DEFINITIONS = (
    "Hit rate = hits / frames processed. Indexing rate = indexed hits / hits. Indexing yield = frames indexed / frames "
    "processed. The false-index control is the share of hits that still index when each spot’s azimuth is scrambled."
)


def report_path(store: Store, experiment: str | None = None) -> Path:
    """Return where an experiment's report lies; without one, the report of everything."""
    return store.report / f"{experiment or 'index'}.html"


def report_command(store: Store, experiment: str, keys: Sequence[str] = ()) -> Path:
    """Write the report of one experiment; see ``peaknet report``.

    Raises
    ------
    PeaknetError
        No run of that name is known.

    """
    runs = run_table(store, keys)
    own = runs[runs["experiment"] == experiment].reset_index(drop=True)
    check_known(experiment, set(runs["experiment"]), store)
    scores = read_all_scores(store)
    path = report_path(store, experiment)
    write_experiment_report(store, own, scores[scores["experiment"] == experiment], path)
    return path


def write_experiment_report(store: Store, runs: RunTable, scores: Scores, path: Path) -> None:
    """Write a report of these runs; what no stage has left yet is left out."""
    drawn = drawable(store, list(runs["run"]))
    last = parse_key(drawn[-1]).experiment if drawn else ""
    pool = Pool(store, tuple(key for key in drawn if parse_key(key).experiment == last)[-MOST_RUNS:])
    sections = [
        Section("At a glance", (DEFINITIONS,), tiles=tuple(_tiles(runs, scores))),
        _diagnoses(store, list(runs["run"])),
        Section("Runs", (), _run_tables(runs), tuple(_rates(scores)), wide=True),
        Section("Classical and neural finder", (), (comparison_table(scores),)),
        _second_look(store, list(runs["run"])),
        _merged(store, {parse_key(key).experiment for key in runs["run"]}),
        *(_fates(pool) if pool.keys else ()),
        *(_drawn(pool) if pool.keys else ()),
        _models(store),
        *(_details(store, key) for key in pool.keys),
        _origin(store, runs, pool),
    ]
    title = ", ".join(sorted(set(runs["experiment"]))) or "no experiment"
    dates = sorted(date[:10] for date in runs["date"] if date)
    when = " to ".join(sorted({dates[0], dates[-1]})) + ", " if dates else ""
    subtitle = f"{when}{len(runs)} runs. PeakNet Pipeline {code_version()}"
    write_report(path, title=title, subtitle=subtitle, sections=sections)


def _run_tables(runs: RunTable) -> tuple[ReportTable, ...]:
    problems = problems_report(runs)
    return (runs_report(runs), problems) if problems is not None else (runs_report(runs),)


def _diagnoses(store: Store, keys: Sequence[str]) -> Section:
    """Tell what the diagnosis of each run found, where one was made; runs with nothing wrong are only counted."""
    paths = [store.file("diagnosis", key, ".json") for key in keys]
    told = [read_json(path, error=TableError) for path in paths if path.is_file()]
    names = ("cause", "told", "remedy")
    rows = tuple((str(t["run"]), *(str(f[n]) for n in names)) for t in told for f in t["findings"])
    if not told:
        return Section("Diagnosis")
    clean = sum(not record["findings"] for record in told)
    text = f"{len(told)} of {len(keys)} runs were diagnosed; nothing is wrong with {clean} of them."
    tables = (ReportTable(("run", "cause", "the numbers that say so", "what to do"), rows, n_text=4),)
    return Section("Diagnosis", (text,), tables if rows else ())


def _second_look(store: Store, keys: Sequence[str]) -> Section:
    """Tell what the second look added to each finder's list, over all runs that have one, with their pooled control."""
    paths = [second_look_rates_path(store, key) for key in keys]
    tables = [read_table(path, SECOND_LOOK_RATES) for path in paths if path.is_file()]
    if not tables:
        return Section("Second look")
    rates = pd.concat(tables, ignore_index=True)
    copies = int(rates.drop_duplicates("run")["second_look_copies"].sum())
    text = (
        f"{len(tables)} of {len(keys)} runs were looked at again. No score of {copies:,} scrambled copies reached its run’s "
        f"bar: the false rate of a search is below {false_rate_limit(copies):.1%} (95 %)."
    )
    rows = tuple(_second_look_row(str(f), group) for f, group in rates.groupby("finder"))
    columns = (
        "finder",
        "frames",
        "indexed by the list",
        "further frames",
        "yield of the list",
        "yield with the second look",
    )
    return Section("Second look", (text,), (ReportTable(columns, rows, n_text=1),))


def _merged(store: Store, experiments: Collection[str]) -> Section:
    """Tell what the merged set of each experiment is worth."""
    path = merge_figures_path(store, "all")
    if not path.is_file():
        return Section("Merged data")
    table = read_table(path, MERGE_FIGURES)
    own = table[table["experiment"].isin(list(experiments))]
    rows = tuple(
        (
            str(row["experiment"]),
            str(row["symmetry"]) or "lattice’s highest (assumed)",
            f"{row['crystals']:,} of {row['crystals'] + row['rejected']:,}",
            f"{row['reflections']:,}",
            f"{row['resolution']:.2f} Å",
            f"{row['completeness']:.1%}",
            f"{row['multiplicity']:.1f}",
            f"{row['cc_half']:.3f} ± {row['cc_half_error']:.3f}",
            f"{row['r_split']:.3f} ± {row['r_split_error']:.3f}",
            f"{row['wilson_b']:.1f} ± {row['wilson_b_error']:.1f} Å²",
        )
        for row in own.to_dict("records")
    )
    columns = (
        "experiment", "symmetry", "crystals", "reflections", "to", "complete", "multiplicity", "CC₁/₂", "R_split", "B (Wilson)",
    )  # fmt: skip
    plots = [
        (plot_path(path, name), f"{name}: figures by shell, with standard errors.")
        for name in own["experiment"]
    ]
    tables = (ReportTable(columns, rows, n_text=2),) if rows else ()
    return Section("Merged data", (), tables, tuple(_figures(plots)))


def _second_look_row(finder: str, rates: pd.DataFrame) -> tuple[str, ...]:
    frames, indexed, added = (int(rates[name].sum()) for name in ("frames", "indexed", "second_look_indexed"))
    counts = (f"{frames:,}", f"{indexed:,}", f"{added:,}")
    return (name_of(finder), *counts, _percent(indexed, frames), _percent(indexed + added, frames))


def _tiles(runs: RunTable, scores: Scores) -> Iterator[Tile]:
    done = int(runs["status"].isin(["done", "doubtful"]).sum())
    yield Tile("runs scored", f"{done} of {len(runs)}", f"{int((runs['status'] == 'failed').sum())} failed")
    totals = {str(f): total_scores(rows) for f, rows in scores.groupby("finder")}
    for finder, total in totals.items():
        frames, hits, indexed = (int(str(total[name])) for name in ("frames", "hits", "indexed"))
        yield Tile(
            f"hit rate, {name_of(finder)}", _percent(hits, frames), f"{hits:,} hits / {frames:,} frames"
        )
        told = f"{indexed:,} indexed / {frames:,} frames"
        yield Tile(f"indexing yield, {name_of(finder)}", _percent(indexed, frames), told)
    best = runs["resolution"].min()
    if best == best:
        yield Tile(
            "best resolution", f"{best:.2f} Å", "d that 5 % of a run’s peaks in indexed frames lie beyond"
        )


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "—"


def _rates(scores: Scores) -> Iterator[ReportFigure]:
    if len(scores):
        png = plot_rates_over_runs(scores, title="Over runs")
        yield ReportFigure(png, "Hit rate and indexing yield of every run; bands: 95 % intervals (Wilson).")


def _drawn(pool: Pool) -> Iterator[Section]:
    runs = ", ".join(pool.keys)
    parts: tuple[tuple[str, Callable[[Pool], Iterable[ReportFigure]]], ...] = (
        ("Detector", report_figures.detector_figures),
        ("Example frames", report_figures.example_figures),
        ("Peaks", report_figures.peak_figures),
        ("Lattices", report_figures.lattice_figures),
    )
    for number, (heading, figures) in enumerate(parts):
        yield Section(heading, (f"Drawn from {runs}.",) if not number else (), figures=tuple(figures(pool)))


def _fates(pool: Pool) -> Iterator[Section]:
    """Tell what became of the frames, finder by finder, and how each run's detector stood."""
    rows = tuple(_fate(finder, pool) for finder in pool.finders)
    columns = (
        "finder",
        "frames",
        "no hit",
        "hit without a lattice",
        "one crystal",
        "two",
        "three or more",
        "crystals / frame",
    )
    least = pool.context.experiment.min_peaks
    told = (
        f"A hit has {least} peaks or more; frames with fewer peaks that index all the same count as indexed. The section "
        "Diagnosis says why hits have no lattice."
    )
    yield Section("What became of the frames", (told,), (ReportTable(columns, rows),))
    places = tuple(_place(pool, key) for key in pool.keys)
    heads = ("run", "detector distance / mm", "photon energy / eV", "bad pixels")
    yield Section("Detector and beam over runs", (), (ReportTable(heads, places),))


def _fate(finder: str, pool: Pool) -> tuple[str, ...]:
    frames, least = sum(pool.n_frames.values()), pool.context.experiment.min_peaks
    crystals = pool.lattices[finder]["frame"].value_counts()
    hits = hit_frames(pool.peaks[finder], min_peaks=least)
    missed = len(set(hits.tolist()) - set(crystals.index))
    per_frame = [int((crystals == n).sum()) for n in (1, 2)] + [int((crystals > 2).sum())]
    counts = (frames - missed - len(crystals), missed, *per_frame)
    mean = f"{crystals.mean():.2f}" if len(crystals) else "—"
    return (name_of(finder), f"{frames:,}", *(f"{n:,} ({_percent(n, frames)})" for n in counts), mean)


def _place(pool: Pool, key: str) -> tuple[str, ...]:
    with open_raw(read_context(pool.store, key)) as run:
        clen = np.array([panel.clen_m for panel in geometry_of(run).panels])
        energy = run.photon_energy_ev[np.isfinite(run.photon_energy_ev)]
    bad = read_bad_pixels(pool.store, key)
    return (key, _range(1e3 * clen, ".2f"), _range(energy, ".0f"), f"{int(bad.sum()):,} ({bad.mean():.2%})")


def _range(values: Float64Array, style: str) -> str:
    if not values.size:
        return "—"
    low, high = format(values.min(), style), format(values.max(), style)
    return low if low == high else f"{low} to {high}"


def _network_told(name: str, figures: Mapping[str, Any]) -> str:
    """Return what a network is and how good it was on panels that it did not learn from, in sentences."""
    told = [f"The {name}, {figures.get('model', 'of no known version')}"]
    if "parameters" in figures:
        told.append(f", has {int(figures['parameters']):,} parameters")
    if "steps" in figures and "crops" in figures:
        told.append(f" and learned from {int(figures['crops']):,} crops in {int(figures['steps']):,} steps")
    text = "".join(told) + "."
    names = ("validation_precision", "validation_recall", "validation_n_true")
    if all(n in figures for n in names):
        precision, recall, n_true = (float(figures[n]) for n in names)
        text += (
            f" On whole validation panels with {n_true:,.0f} labelled peaks, {precision:.1%} of the peaks that it finds are "
            f"labelled, and it finds {recall:.1%} of those labelled (threshold {float(figures.get('threshold', 0.5)):.2f})."
        )
    return text


def _models(store: Store) -> Section:
    names = [name for name in ("teacher", "student") if newest_path(store, name).is_file()]
    told = [
        _network_told(name, (read_recipe(newest_path(store, name)) or {}).get("figures", {}))
        for name in names
    ]
    plots = (
        (plot_path(newest_path(store, n), "learning_curves"), f"{n.capitalize()}: {CURVES}") for n in names
    )
    return Section("Networks", tuple(told), figures=tuple(_figures(plots)))


def _details(store: Store, key: str) -> Section:
    plots = [
        (plot_path(statistics_path(store, key), "virtual_powder"), "Virtual powder: maximum over the run"),
        (plot_path(statistics_path(store, key), "bad_pixel_mask"), "Bad pixels"),
    ]
    for finder in FINDERS:
        plots.append(
            (plot_path(peaks_path(store, key, finder), "peaks_per_frame"), f"Peaks, {name_of(finder)}")
        )
        plots.append(
            (plot_path(index_path(store, key, finder), "cell_parameters"), f"Cells, {name_of(finder)}")
        )
    plots.append((plot_path(labels_path(store, key), "fits"), "Fits behind the labels"))
    plots.append((plot_path(store.table("run_metrics", key), "recall_by_snr"), "Recall per band of true SNR"))
    return Section(key, figures=tuple(_figures(plots)), folded=True)


def _origin(store: Store, runs: RunTable, pool: Pool) -> Section:
    def all_of(column: str) -> str:
        return ", ".join(sorted({value for value in runs[column] if value})) or "—"

    facts: dict[str, object] = {
        "data root": store.root.absolute(),
        "model": all_of("model"),
        "label manifest": all_of("label_manifest"),
        "parameters": all_of("parameters"),
        "code that scored": all_of("code_version"),
    }
    if pool.keys:
        experiment = pool.context.experiment
        facts |= {
            "geometry": experiment.geometry.name,
            "cell": experiment.cell.name if experiment.cell else "found from the runs",
            "indexer": experiment.engine,
        }
        settings = {name: dict(values) for name, values in experiment.settings.items()}
        facts["settings"] = yaml.safe_dump(settings, default_flow_style=True, width=10_000).strip()
    told = "Every table beside this page tells its whole chain: peaknet trace FILE."
    return Section("Where this comes from", (told,), (facts_table(facts),))


def _figures(plots: Iterable[tuple[Path, str]]) -> list[ReportFigure]:
    return [ReportFigure(path.read_bytes(), caption) for path, caption in plots if path.is_file()]
