"""The second look at a run: lattices of frames that neither finder's peaks index, with a control and rates of its own."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.second_look.run_params import RunSecondLookParams
from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.schemas import INDEX, SECOND_LOOK, SECOND_LOOK_RATES, IndexTable
from peaknet_pipeline.steps.look_again import look_again
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.steps.second_look_tables import (
    SecondLookOutcome,
    best_lattices,
    frames_left,
    second_look_rates,
)
from peaknet_pipeline.store.asset import MISSING, Asset
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import (
    FINDERS,
    index_path,
    read_bad_pixels,
    second_look_path,
    second_look_rates_path,
    second_look_record_path,
    statistics_path,
)
from peaknet_pipeline.store.run_files import cell_file, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import read_table, write_json, write_table


def second_look(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Lattices of frames that neither finder's peaks index, by the sum of weak evidence, above a bar that a control sets."""
    context = read_context(store, key)
    params = context.experiment.parameters("second_look", RunSecondLookParams, overrides)
    output, cell_path = second_look_path(store, key), cell_file(context)

    def build(recipe: Recipe) -> StageResult:
        lists = {finder: read_table(index_path(store, key, finder), INDEX) for finder in FINDERS}
        bad = read_bad_pixels(store, key)
        with open_raw(context) as run, progress_bar(f"second look {key}") as progress:
            outcome = look_again(
                run,
                best_lattices(list(lists.values())),
                bad_pixels=bad,
                cell=read_cell(cell_path),
                params=params,
                frames=frames_left(list(lists.values()), run.n_frames),
                progress=progress,
            )
            n_frames = run.n_frames
        rates = _rates(key, lists, outcome, n_frames)
        origin = origin_of(recipe, run=key)
        write_table(outcome.table, output, SECOND_LOOK, extra={**origin, "n_frames": str(n_frames)})
        write_table(rates, second_look_rates_path(store, key), SECOND_LOOK_RATES, extra=origin)
        write_json(second_look_record_path(store, key), outcome.record())
        return _result(store, key, rates, outcome)

    inputs = [index_path(store, key, finder) for finder in FINDERS]
    inputs += [statistics_path(store, key), *context.files, cell_path, *context.settings_files]
    return make_stage("second_look", parameters=params.to_dict(), inputs=inputs, build=build)


SECOND_LOOK_ASSET = Asset(
    second_look,
    deps=("run_statistics", "classical_index", "peaknet_index"),
    kinds=("parquet", "python"),
    parameters=RunSecondLookParams,
    tables=("second_look", "second_look_rates"),
    checks=("control_is_below_the_bar",),
    automation=MISSING,
)


def _rates(
    key: str, lists: Mapping[str, IndexTable], outcome: SecondLookOutcome, n_frames: int
) -> pd.DataFrame:
    experiment = parse_key(key).experiment
    rows = [
        second_look_rates(outcome, table, experiment=experiment, run=key, finder=finder, n_frames=n_frames)
        for finder, table in lists.items()
    ]
    return pd.concat(rows, ignore_index=True)


def _result(store: Store, key: str, rates: pd.DataFrame, outcome: SecondLookOutcome) -> StageResult:
    control = outcome.control
    figures: dict[str, Any] = {
        "frames": int(rates["frames"].iloc[0]),
        "searched": outcome.n_searched,
        "bar_nats": control.bar,
        "highest_control_nats": control.highest,
        "copies": control.n_copies,
        "false_rate_limit": control.false_rate_limit,
        "frames_behind_the_model": outcome.model.n_frames,
    }
    for row in rates.to_dict("records"):
        figures[f"{row['finder']}_indexed"] = row["indexed"]
        figures[f"{row['finder']}_second_look_indexed"] = row["second_look_indexed"]
    told = (
        f"{control.n_copies} scrambled copies reach at most {control.highest:.1f} of the bar's {control.bar:.1f} nats; "
        f"the false rate of a search is below {control.false_rate_limit:.1%} (95 %)"
    )
    check = Check("control_is_below_the_bar", control.highest < control.bar, told)
    tables = {
        "second_look": second_look_path(store, key),
        "second_look_rates": second_look_rates_path(store, key),
    }
    return StageResult(tables["second_look"], figures, tables, checks=(check,))
