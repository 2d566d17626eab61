"""Which labelled frames train, validate and test."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.labels.split import LabelledRun, SplitParams, read_exclusions, split_runs
from peaknet_pipeline.stages.keys import parse_key
from peaknet_pipeline.stages.labels import labels_path
from peaknet_pipeline.stages.making import make_stage
from peaknet_pipeline.stages.pipeline import pipeline_parameters, settings_inputs
from peaknet_pipeline.stages.provenance import Recipe
from peaknet_pipeline.stages.result import Check, StageResult
from peaknet_pipeline.stages.store import Store
from peaknet_pipeline.tables import write_json, write_table
from peaknet_pipeline.types import SPLIT, SplitTable


def training_set_path(store: Store, scope: str) -> Path:
    """Return where the split lies."""
    return store.table("training_set", scope)


def manifest_file(store: Store) -> Path:
    """Return where the training set's manifest lies."""
    return store.file("training_set", "all", ".json")


def read_manifest(store: Store) -> dict[str, Any]:
    """Read the manifest of the present training set.

    Raises
    ------
    LabelError
        There is none, or it is damaged.

    """
    path = manifest_file(store)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabelError(
            f"no readable training set manifest ({error})", where=path, remedy="Materialize training_set first."
        ) from error
    return dict(manifest)


def training_set(
    store: Store, keys: Sequence[str], *, overrides: Mapping[str, Any] | None = None
) -> StageResult:
    """Which labelled runs train, validate and test: split by run, never by frame, with a manifest hash."""
    params = pipeline_parameters(store, "training_set", SplitParams, overrides)
    output = training_set_path(store, "all")
    labelled = [key for key in keys if labels_path(store, key).is_file()]
    exclusions = store.root / "exclusions.txt"

    def build(recipe: Recipe) -> StageResult:
        runs = [LabelledRun(parse_key(key).experiment, key, labels_path(store, key)) for key in labelled]
        made = split_runs(runs, params, exclusions=read_exclusions(exclusions))
        write_table(made.table, output, SPLIT, extra={"manifest": made.hash})
        write_json(manifest_file(store), made.manifest)
        counts = made.table.groupby("subset").agg(frames=("frame", "size"), peaks=("n_peaks", "sum"))
        figures: dict[str, Any] = {
            "manifest": made.hash,
            "labelled_runs": len(labelled),
            "runs_without_labels": len(keys) - len(labelled),
        }
        for subset, row in counts.iterrows():
            figures |= {f"{subset}_frames": int(row["frames"]), f"{subset}_peaks": int(row["peaks"])}
        return StageResult(output, figures, {"training_set": output}, checks=(_split_by_run(made.table),))

    inputs = [*(labels_path(store, key) for key in labelled), *settings_inputs(store)]
    inputs += [exclusions] if exclusions.is_file() else []
    return make_stage("training_set", parameters=params.to_dict(), inputs=inputs, build=build)


def _split_by_run(table: SplitTable) -> Check:
    subsets = table.groupby("run")["subset"].nunique()
    return Check("split_by_run", bool((subsets == 1).all()), f"{len(subsets)} runs, each in one subset")
