"""Which labelled frames train, validate and test."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.labels.curate import REASONS, pick_candidates
from peaknet_pipeline.labels.exclusions import read_exclusions
from peaknet_pipeline.labels.split import PEAKNET, SUBSETS, LabelledRun, SplitParams, TrainingSet, split_runs
from peaknet_pipeline.params import parameter
from peaknet_pipeline.plots.fits import plot_data_engine
from peaknet_pipeline.provenance import Recipe, origin_of, read_recipe
from peaknet_pipeline.schemas import CURATION, DATA_ENGINE, SPLIT, SplitTable
from peaknet_pipeline.stages.data_engine import engine_figures, summarize_training_set
from peaknet_pipeline.stages.peak_labels import label_problems
from peaknet_pipeline.store.asset import IMPROVE, Asset
from peaknet_pipeline.store.freshness import has_its_inputs
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import CODE, make_stage
from peaknet_pipeline.store.paths import curated_labels_path, curation_path, labels_path, training_set_path
from peaknet_pipeline.store.settings import pipeline_parameters, settings_inputs
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.store.training_manifest import manifest_file, read_manifest
from peaknet_pipeline.tables import read_table, write_json, write_table


@dataclass(frozen=True)
class TrainingSetParams(SplitParams):
    """How labelled runs are divided, and which curated frames join them."""

    curated_reasons: tuple[str, ...] = parameter(
        REASONS, meaning="reasons for which curated frames are added"
    )

    def __post_init__(self) -> None:
        """Check the ranges, and that every reason is one that curation gives."""
        super().__post_init__()
        unknown = sorted(set(self.curated_reasons) - set(REASONS))
        if unknown:
            raise ParameterError(
                "not a reason of curation",
                where="TrainingSetParams.curated_reasons",
                expected=f"some of {', '.join(REASONS)}",
                found=unknown,
            )


def exclusions_path(store: Store) -> Path:
    """Return where a user lists runs and frames that must not teach."""
    return store.root / "exclusions.txt"


def training_set(
    store: Store, keys: Sequence[str], *, overrides: Mapping[str, Any] | None = None
) -> StageResult:
    """Which labelled runs train, validate and test: split by run, never by frame, curated frames added, with a manifest."""
    params = pipeline_parameters(store, "training_set", TrainingSetParams, overrides)
    output = training_set_path(store, "all")
    labelled = [key for key in keys if labels_path(store, key).is_file()]
    refused = {key: why for key in labelled if (why := label_problems(labels_path(store, key)))}

    def build(recipe: Recipe) -> StageResult:
        runs = [_labelled_run(store, key, params) for key in labelled if key not in refused]
        made = split_runs(
            runs,
            params,
            exclusions=read_exclusions(exclusions_path(store)),
            refused=refused,
            before=_subsets_before(store, params),
        )
        origin = {"manifest": made.hash, **origin_of(recipe, manifest=made.hash)}
        write_table(made.table, output, SPLIT, extra=origin)
        write_json(manifest_file(store), made.manifest)
        figures = _figures(made) | {"runs_without_labels": len(keys) - len(labelled)}
        engine = summarize_training_set(store, made.table)
        tables = {"training_set": output, "data_engine": store.table("training_set/data_engine", "all")}
        write_table(engine, tables["data_engine"], DATA_ENGINE)
        figures |= engine_figures(engine, made.table)
        plots = {"data_engine": plot_data_engine(engine)}
        checks = (_split_by_run(made.table), _exclusions_apply(made))
        return StageResult(output, figures, tables, plots, checks=checks)

    inputs = _inputs(store, labelled)
    return make_stage("training_set", parameters=params.to_dict(), inputs=inputs, build=build)


TRAINING_SET_ASSET = Asset(
    training_set,
    job=IMPROVE,
    output=training_set_path,
    deps=("peak_labels",),
    per_run=False,
    kinds=("parquet",),
    parameters=TrainingSetParams,
    tables=("training_set", "data_engine"),
    checks=("split_by_run", "exclusions_apply"),
    blocking=("split_by_run",),
)


def _inputs(store: Store, keys: Sequence[str]) -> list[Path]:
    """Return the files there are that decide what a training set of these runs holds."""
    files = [*settings_inputs(store), exclusions_path(store)]
    files += [f(store, key) for key in keys for f in (labels_path, curated_labels_path, curation_path)]
    return [path for path in files if path.is_file()]


def is_training_set_current(store: Store, keys: Sequence[str]) -> bool:
    """Tell whether nothing was labelled, curated, excluded or set otherwise since the training set was made."""
    output = training_set_path(store, "all")
    record = read_recipe(output)
    if record is None or not has_its_inputs(output, code=CODE["training_set"]):
        return False
    labelled = [key for key in keys if labels_path(store, key).is_file()]
    return {os.path.normpath(path.absolute()) for path in _inputs(store, labelled)} == set(record["inputs"])


def _labelled_run(store: Store, key: str, params: TrainingSetParams) -> LabelledRun:
    """Gather a run's labels; those of its curated frames too, unless they failed a gate."""
    run = LabelledRun(parse_key(key).experiment, key, labels_path(store, key))
    curated = curated_labels_path(store, key)
    if not curated.is_file() or not curation_path(store, key).is_file() or label_problems(curated):
        return run
    table = read_table(curation_path(store, key), CURATION)
    return replace(run, curated=curated, candidates=pick_candidates(table, params.curated_reasons))


def _subsets_before(store: Store, params: SplitParams) -> dict[str, str]:
    """Return the runs' subsets in the training set before, unless its division had other settings."""
    if not manifest_file(store).is_file():
        return {}
    manifest = read_manifest(store)
    own, theirs = params.to_dict(), manifest.get("parameters", {})
    if any(theirs.get(name) != own[name] for name in ("validate_fraction", "test_fraction", "seed")):
        return {}
    subsets = {run: str(entry["subset"]) for run, entry in manifest["runs"].items()}
    return {run: subset for run, subset in subsets.items() if subset in SUBSETS}


def _figures(made: TrainingSet) -> dict[str, Any]:
    manifest: Mapping[str, Any] = made.manifest
    excluded = [f"{run} ({why or 'no reason given'})" for run, why in manifest["excluded_runs"].items()]
    excluded += [
        f"{run} {first}-{last} ({why or 'no reason given'})"
        for run, ranges in manifest["excluded_frames"].items()
        for first, last, why in ranges
    ]
    figures: dict[str, Any] = {
        "manifest": made.hash,
        "labelled_runs": len(manifest["runs"]),
        "refused_runs": "; ".join(f"{run}: {why}" for run, why in manifest["refused_runs"].items()) or "none",
        "excluded": "; ".join(excluded) or "none",
        "curated_frames": int((made.table["labels"] == PEAKNET).sum()),
    }
    for subset, rows in made.table.groupby("subset"):
        figures |= {f"{subset}_frames": len(rows), f"{subset}_peaks": int(rows["n_peaks"].sum())}
    return figures


def _exclusions_apply(made: TrainingSet) -> Check:
    """Check that every run that a user excluded is a run with labels; a slip of the pen excludes nothing."""
    unknown: list[str] = list(made.manifest["exclusions_without_run"])  # type: ignore[call-overload]
    told = f"no labelled run {', '.join(unknown)}" if unknown else "every excluded run is a labelled one"
    return Check("exclusions_apply", not unknown, told)


def _split_by_run(table: SplitTable) -> Check:
    subsets = table.groupby("run")["subset"].nunique()
    return Check("split_by_run", bool((subsets == 1).all()), f"{len(subsets)} runs, each in one subset")
