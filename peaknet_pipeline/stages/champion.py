"""Which network finds the peaks: the newest student challenges the champion by indexing yield on the validation runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.labels.split import VALIDATE
from peaknet_pipeline.learn.checkpoint import LoadedModel, read_checkpoint
from peaknet_pipeline.learn.evaluation import Decision, YieldCount, judge_challenger, write_evaluation
from peaknet_pipeline.learn.registry import promote
from peaknet_pipeline.metrics import Rate
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.provenance import Recipe, now
from peaknet_pipeline.schemas import MODEL_COMPARISON
from peaknet_pipeline.steps.measure_yield import measure_yield
from peaknet_pipeline.steps.network_params import InferenceParams, RunInferenceParams
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.store.asset import IMPROVE, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.models import newest_model, newest_path, present_champion
from peaknet_pipeline.store.paths import (
    comparison_path,
    read_bad_pixels,
    read_left_out_rings,
    statistics_path,
)
from peaknet_pipeline.store.run_files import cell_file, open_raw, read_context
from peaknet_pipeline.store.settings import pipeline_parameters, settings_inputs
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.store.training_manifest import manifest_file, read_manifest
from peaknet_pipeline.tables import empty_table, make_table, write_table

CHALLENGER, CHAMPION = "challenger", "champion"

ModelComparison = pd.DataFrame


@dataclass(frozen=True)
class ChampionParams(Parameters):
    """How challenger and champion are compared."""

    frames: int = parameter(
        200, meaning="most frames of each validation run, evenly spaced; 0 takes all", ge=0
    )


def champion(store: Store, keys: Sequence[str], *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """The network that inference uses: the newest student if its indexing yield on the validation runs is no worse.

    Before any student was trained it is the network that comes with the package, which also is the first to be challenged.
    """
    params = pipeline_parameters(store, "champion", ChampionParams, overrides)
    inference = pipeline_parameters(store, "inference", RunInferenceParams)
    has_student = newest_path(store, "student").is_file()
    runs = validation_runs(store) if has_student else []

    def build(recipe: Recipe) -> StageResult:
        present = present_champion(store)
        challenger = newest_model(store, "student") if has_student else present
        contestants = {CHALLENGER: challenger, CHAMPION: present}
        if challenger == present:
            del contestants[CHALLENGER]
        parts = [
            _evaluate(store, role, folder, runs, params, inference) for role, folder in contestants.items()
        ]
        table = pd.concat(parts, ignore_index=True)
        return _settle(store, contestants, table, runs)

    inputs = [newest_path(store, "student"), manifest_file(store)] if has_student else []
    for key in runs:
        context = read_context(store, key)
        inputs += [statistics_path(store, key), *context.files, cell_file(context)]
        inputs += context.settings_files
    inputs += settings_inputs(store)
    parameters = {"champion": params.to_dict(), "inference": inference.to_dict()}
    return make_stage("champion", parameters=parameters, inputs=dict.fromkeys(inputs), build=build)


CHAMPION_ASSET = Asset(
    champion,
    job=IMPROVE,
    output=comparison_path,
    deps=("training_set", "peaknet_student", "run_statistics"),
    per_run=False,
    kinds=("parquet", "pytorch"),
    parameters=ChampionParams,
    tables=("model_comparison",),
    checks=("no_worse_than_champion",),
    blocking=("no_worse_than_champion",),
    pool="gpu",
)


def validation_runs(store: Store) -> list[str]:
    """Return the runs of the present training set that validate, in order."""
    runs: dict[str, Any] = read_manifest(store)["runs"]
    return sorted(key for key, entry in runs.items() if entry["subset"] == VALIDATE)


def _evaluate(
    store: Store,
    role: str,
    folder: Path,
    runs: Sequence[str],
    params: ChampionParams,
    inference: InferenceParams,
) -> ModelComparison:
    """Measure one model on every validation run, and keep its yield beside it."""
    model = read_checkpoint(folder)
    rows = [
        {
            "model": folder.name,
            "role": role,
            "run": key,
            **_measure(store, key, model, params, inference),
        }
        for key in runs
    ]
    columns = {name: [row[name] for row in rows] for name in MODEL_COMPARISON.column_names()}
    table = make_table(MODEL_COMPARISON, columns) if rows else empty_table(MODEL_COMPARISON)
    if runs:
        write_evaluation(folder, runs=runs, count=_count(table), made=now())
    return table


def _measure(
    store: Store, key: str, model: LoadedModel, params: ChampionParams, inference: InferenceParams
) -> dict[str, float]:
    """Return a model's counts, rates and false-index control on a sample of a run's frames."""
    context = read_context(store, key)
    with open_raw(context) as run, progress_bar(f"{model.card.name} on {key}") as progress:
        measured = measure_yield(
            run,
            model,
            read_cell(cell_file(context)),
            max_frames=params.frames or None,
            inference=inference,
            index=context.experiment.parameters("index", IndexParams),
            min_peaks=context.experiment.min_peaks,
            bad_pixels=read_bad_pixels(store, key),
            rings=read_left_out_rings(store, key),
            progress=progress,
        )
    rates, control = measured.rates, measured.control
    return {
        "frames": rates.frames,
        "hits": rates.hits,
        "indexed": rates.indexed,
        "indexing_yield": rates.indexing_yield.value,
        "false_index_rate": Rate(control.n_indexed, control.n_scrambled).value,
        "scrambled": control.n_scrambled,
        "peaks": measured.n_peaks,
    }


def _count(rows: ModelComparison) -> YieldCount:
    return YieldCount(int(rows["indexed"].sum()), int(rows["frames"].sum()))


def _settle(
    store: Store, contestants: Mapping[str, Path], table: ModelComparison, runs: Sequence[str]
) -> StageResult:
    """Promote the challenger if it is no worse; tell the verdict either way."""
    counts = {role: _count(table[table["role"] == role]) for role in contestants}
    winner = contestants[CHAMPION]
    if CHALLENGER not in contestants:
        decision = Decision(True, f"{winner.name} is the champion; no other student was trained since")
    else:
        decision = judge_challenger(counts[CHALLENGER], counts[CHAMPION])
        winner = contestants[CHALLENGER] if decision.accepted else winner
    promote(store.models, winner.name)
    output = comparison_path(store, "all")
    write_table(table, output, MODEL_COMPARISON, extra={"champion": winner.name, "decision": decision.reason})
    figures: dict[str, Any] = {"champion": winner.name, "decision": decision.reason, "runs": len(runs)}
    for role, folder in contestants.items():
        figures |= {f"{role}_model": folder.name, f"{role}_indexed": counts[role].indexed}
        figures |= {f"{role}_frames": counts[role].frames, f"{role}_yield": counts[role].value}
    told = decision.reason if decision.accepted else f"{decision.reason}; {winner.name} stays the champion"
    check = Check("no_worse_than_champion", decision.accepted, told)
    return StageResult(output, figures, {"model_comparison": output}, checks=(check,))
