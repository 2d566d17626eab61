"""Which group each frame of a run belongs to."""

from collections.abc import Mapping
from typing import Any

from peaknet_pipeline.provenance import Recipe, origin_of
from peaknet_pipeline.runs.frame_groups import group_of_frames
from peaknet_pipeline.schemas import FRAME_GROUPS
from peaknet_pipeline.store.asset import INGEST, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import frame_groups_path
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import make_table, write_table


def frame_groups(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """The group of each frame, by the rules of the section groups in experiment.yaml: light and dark, delays, samples."""
    context = read_context(store, key)
    rules, output = context.experiment.groups, frame_groups_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        with open_raw(context) as run:
            names = group_of_frames(
                rules, n_frames=run.n_frames, run_number=context.key.number, read_values=run.read_values
            )
        table = make_table(FRAME_GROUPS, {"frame": range(len(names)), "group_name": names})
        write_table(table, output, FRAME_GROUPS, extra=origin_of(recipe, run=key))
        counts = {name: names.count(name) for name in rules}
        figures: dict[str, Any] = {"frames": len(names), "in_no_group": names.count("")}
        figures |= {f"frames_{name}": n for name, n in counts.items()}
        here = [
            name for name, rule in rules.items() if not rule.in_runs or context.key.number in rule.in_runs
        ]
        empty = [name for name in here if not counts[name]]
        told = (
            f"groups without a frame: {', '.join(empty)}" if empty else "every group of this run has frames"
        )
        return StageResult(
            output, figures, {"frame_groups": output}, checks=(Check("no_empty_group", not empty, told),)
        )

    parameters = {name: rule.to_dict() for name, rule in rules.items()}
    inputs = [*context.files, *context.settings_files]
    return make_stage("frame_groups", parameters=parameters, inputs=inputs, build=build)


FRAME_GROUPS_ASSET = Asset(
    frame_groups,
    job=INGEST,
    output=frame_groups_path,
    deps=("raw_run",),
    kinds=("parquet", "hdf5"),
    tables=("frame_groups",),
    checks=("no_empty_group",),
)
