"""Rates of each group of a run's frames, by either finder."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.metrics import count_rates
from peaknet_pipeline.plots.groups import plot_group_rates
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.schemas import FRAME_GROUPS, GROUP_RATES, INDEX, PEAKS
from peaknet_pipeline.store.asset import INFER, MISSING, Asset
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import FINDERS, frame_groups_path, group_rates_path, index_path, peaks_path
from peaknet_pipeline.store.run_files import read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import make_table, read_table, write_table


def group_rates(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Hit rate, indexing rate and yield of each group of a run's frames, classical and PeakNet side by side."""
    context = read_context(store, key)
    output, min_peaks = group_rates_path(store, key), context.experiment.min_peaks

    def build(recipe: Recipe) -> StageResult:
        groups = read_table(frame_groups_path(store, key), FRAME_GROUPS)
        tables = [
            rates_by_group(
                read_table(peaks_path(store, key, finder), PEAKS),
                read_table(index_path(store, key, finder), INDEX),
                groups,
                finder=finder,
                run=key,
                min_peaks=min_peaks,
            )
            for finder in FINDERS
        ]
        table = pd.concat(tables, ignore_index=True)
        write_table(table, output, GROUP_RATES, extra=origin_of(recipe, run=key))
        figures = {
            f"{row['finder']}_{row['group_name'] or 'no group'}_{name}": row[name]
            for row in table.to_dict("records")
            for name in ("frames", "hits", "indexed")
        }
        frames = table.groupby("finder")["frames"].sum()
        told = f"the groups have {', '.join(map(str, frames))} frames of {len(groups)}"
        check = Check("groups_are_the_run", bool((frames == len(groups)).all()), told)
        plots = {"groups": plot_group_rates(table, title=key)}
        return StageResult(output, figures, {"group_rates": output}, plots, (check,))

    inputs = [f(store, key, finder) for finder in FINDERS for f in (peaks_path, index_path)]
    inputs += [frame_groups_path(store, key), *context.settings_files]
    return make_stage("group_rates", parameters={"min_peaks": min_peaks}, inputs=inputs, build=build)


GROUP_RATES_ASSET = Asset(
    group_rates,
    job=INFER,
    output=group_rates_path,
    deps=("frame_groups", "classical_peaks", "classical_index", "peaknet_peaks", "peaknet_index"),
    kinds=("parquet",),
    tables=("group_rates",),
    checks=("groups_are_the_run",),
    automation=MISSING,
)


def rates_by_group(
    peaks: pd.DataFrame,
    lattices: pd.DataFrame,
    groups: pd.DataFrame,
    *,
    finder: str,
    run: str,
    min_peaks: int,
) -> pd.DataFrame:
    """Return one finder's rates of each group that has frames, a row each, in order of the names."""
    rows = []
    for name, own in groups.groupby("group_name", sort=True):
        some, found = (_numbered_anew(table, own["frame"]) for table in (peaks, lattices))
        rates = count_rates(some, found, n_frames=len(own), min_peaks=min_peaks)
        rows.append(
            {
                "experiment": parse_key(run).experiment,
                "run": run,
                "group_name": str(name),
                "finder": finder,
                "frames": rates.frames,
                "hits": len(hit_frames(some, min_peaks=min_peaks)),
                "indexed": rates.indexed,
                "hit_rate": rates.hit_rate.value,
                "indexing_rate": rates.indexing_rate.value,
                "indexing_yield": rates.indexing_yield.value,
                "lattices": len(found),
                "mean_peaks": len(some) / len(own),
            }
        )
    columns = {name: [row[name] for row in rows] for name in GROUP_RATES.column_names()}
    return make_table(GROUP_RATES, columns)


def _numbered_anew(table: pd.DataFrame, frames: "pd.Series[int]") -> pd.DataFrame:
    """Return the rows of some frames, (n,) ascending, numbered by their place there: as of a run of their own."""
    own = table[table["frame"].isin(frames)]
    return own.assign(frame=np.searchsorted(frames.to_numpy(), own["frame"].to_numpy()))
