"""The merged set of every experiment, out of what its runs gave: a new run costs the new run."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.merging.combine import combine_runs
from peaknet_pipeline.merging.figures import MergedSet, merged_set
from peaknet_pipeline.merging.files import write_hkl, write_merged_mtz
from peaknet_pipeline.merging.parameters import RunMergeParams
from peaknet_pipeline.merging.run_sums import sums_of_table
from peaknet_pipeline.plots.merging import plot_merging
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.schemas import (
    MERGE_CRYSTALS,
    MERGE_FIGURES,
    MERGE_SHELLS,
    MERGE_SUMS,
    MERGED,
    MergeCrystalTable,
    MergeFigureTable,
)
from peaknet_pipeline.steps.merge_files import merge_figures
from peaknet_pipeline.store.asset import UPDATED, Asset
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import (
    merge_crystals_path,
    merge_figures_path,
    merge_sums_path,
    merged_file,
)
from peaknet_pipeline.store.run_files import RunContext, cell_file, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import empty_table, make_table, read_table, write_table

MIN_MULTIPLICITY = 10.0
"""Mean observations a reflection below which partial reflections have hardly averaged out."""


def merged(store: Store, keys: Sequence[str], *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Merged intensities of every experiment, with both halves (MTZ, CrystFEL .hkl), and their figures by shell."""
    output = merge_figures_path(store, "all")
    made = [key for key in keys if merge_sums_path(store, key).is_file()]
    experiments = {
        name: [k for k in made if parse_key(k).experiment == name]
        for name in sorted({parse_key(k).experiment for k in made})
    }
    contexts = {name: read_context(store, own[0]) for name, own in experiments.items()}
    params = {n: c.experiment.parameters("merge", RunMergeParams, overrides) for n, c in contexts.items()}

    def build(recipe: Recipe) -> StageResult:
        before = read_table(output, MERGE_FIGURES) if output.is_file() else empty_table(MERGE_FIGURES)
        origin, rows, plots = origin_of(recipe, run="all"), [], {}
        for name, own in experiments.items():
            found = _merge(store, contexts[name], own, params[name], origin)
            if found is None:
                continue
            data, crystals = found
            told = merge_figures(data, crystals)
            kept = {k: v for k, v in told.items() if k in MERGE_FIGURES.column_names()}
            rows.append({"experiment": name, "runs": len(own), "symmetry": params[name].symmetry, **kept})
            plots[name] = plot_merging(data.shells, data.wilson, title=name)
        columns = pd.DataFrame(rows, columns=MERGE_FIGURES.column_names())
        table = make_table(MERGE_FIGURES, {str(n): columns[n] for n in columns})
        write_table(table, output, MERGE_FIGURES, extra=origin)
        figures: dict[str, Any] = {"experiments": len(table), "runs": len(made)}
        halves = table["cc_half"].to_numpy(dtype=float).tolist()
        figures |= {f"{name}_cc_half": value for name, value in zip(table["experiment"], halves, strict=True)}
        checks = (not_falling(before, table), enough_multiplicity(table))
        return StageResult(output, figures, {"merge_figures": output}, plots, checks)

    inputs = [path(store, key) for key in made for path in (merge_sums_path, merge_crystals_path)]
    inputs += [cell_file(context) for context in contexts.values()]
    told = {name: one.to_dict() for name, one in params.items()}
    return make_stage("merged", parameters=told, inputs=inputs, build=build)


MERGED_ASSET = Asset(
    merged,
    output=merge_figures_path,
    deps=("run_merge",),
    per_run=False,
    kinds=("parquet",),
    tables=("merge_figures",),
    checks=("cc_half_not_falling", "enough_multiplicity"),
    automation=UPDATED,
)


def _merge(
    store: Store, context: RunContext, keys: Sequence[str], params: RunMergeParams, origin: Mapping[str, str]
) -> tuple[MergedSet, MergeCrystalTable] | None:
    """Combine an experiment's runs and write its files; None where no crystal was accepted."""
    cell = read_cell(cell_file(context))
    symmetry = params.symmetry_of(cell)
    crystals = [read_table(merge_crystals_path(store, key), MERGE_CRYSTALS) for key in keys]
    joined = pd.concat(crystals, ignore_index=True)
    if not joined["accepted"].any():
        return None
    tables = [read_table(merge_sums_path(store, key), MERGE_SUMS) for key in keys]
    runs = [sums_of_table(table, own, symmetry) for table, own in zip(tables, crystals, strict=True)]
    total, _ = combine_runs(runs, cell=cell, symmetry=symmetry)
    data = merged_set(total, cell=cell, symmetry=symmetry, params=params)
    name = context.key.experiment
    write_table(data.reflections, merged_file(store, name, ".parquet"), MERGED, extra=origin)
    write_table(data.shells, merged_file(store, name, "_shells.parquet"), MERGE_SHELLS, extra=origin)
    write_merged_mtz(merged_file(store, name, ".mtz"), data.reflections, cell=cell, symmetry=symmetry)
    write_hkl(merged_file(store, name, ".hkl"), data.reflections, symmetry=symmetry)
    return data, joined


def not_falling(before: MergeFigureTable, now: MergeFigureTable) -> Check:
    """Check that no experiment's CC₁/₂ is lower than when it was merged last, by more than its standard errors allow."""
    both = now.merge(before, on="experiment", suffixes=("", "_before"))
    error = (both["cc_half_error"] ** 2 + both["cc_half_error_before"] ** 2) ** 0.5
    fallen = both[both["cc_half"] < both["cc_half_before"] - 3.0 * error.fillna(0.0)]
    told = [
        f"{row.experiment}: {row.cc_half_before:.3f} before, {row.cc_half:.3f} now"
        for row in fallen.itertuples()
    ]
    return Check("cc_half_not_falling", not told, "; ".join(told) or f"{len(both)} experiments compared")


def enough_multiplicity(table: MergeFigureTable) -> Check:
    """Check that reflections were observed often enough for partial ones to average out."""
    few = table[table["multiplicity"] < MIN_MULTIPLICITY]
    told = [f"{row.experiment}: {row.multiplicity:.1f}" for row in few.itertuples()]
    description = "; ".join(told) or f"at least {MIN_MULTIPLICITY:.0f} observations a reflection"
    return Check("enough_multiplicity", not told, description)
