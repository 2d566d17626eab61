"""The schedule of the feedback loop: a turn each night, when there is something new to learn from. Shipped stopped."""

from typing import Any

import dagster as dg

from peaknet_pipeline.orchestration.partitions import RUNS
from peaknet_pipeline.orchestration.resources import StoreResource
from peaknet_pipeline.stages.training_set import is_training_set_current


def build_improve_schedule(job: Any) -> dg.ScheduleDefinition:
    """Make the nightly schedule of ``job``, the turn of the loop."""

    @dg.schedule(
        name="improve_model_nightly",
        job=job,
        cron_schedule="0 3 * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Turn it on to have the network improved each night at three: it launches improve_model if anything was "
        "labelled, curated or excluded since the last training set, and says so if nothing was.",
    )
    def improve_model_nightly(
        context: dg.ScheduleEvaluationContext, store: StoreResource
    ) -> dg.RunRequest | dg.SkipReason:
        """Train a challenger on what was labelled and curated since the last training set, and compare it."""
        keys = sorted(context.instance.get_dynamic_partitions(RUNS.name or ""))
        if is_training_set_current(store.open(), keys):
            return dg.SkipReason("nothing was labelled, curated or excluded since the last training set")
        return dg.RunRequest(tags={"peaknet/origin": "improve_model_nightly"})

    return improve_model_nightly
