"""The sensor on the raw root: new complete runs become partitions, and their materialization is requested."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from peaknet_pipeline.orchestration.partitions import RUNS
from peaknet_pipeline.orchestration.resources import StoreResource
from peaknet_pipeline.store.incoming import find_incoming_runs

MAX_RUNS_PER_TICK = 20
"""New runs that one tick registers; the rest wait for the next."""


def build_new_runs_sensor(job: Any) -> dg.SensorDefinition:
    """Make the sensor that watches the raw root for ``job``."""

    @dg.sensor(
        name="new_runs", job=job, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.STOPPED
    )
    def new_runs(
        context: dg.SensorEvaluationContext, store: StoreResource
    ) -> dg.SensorResult | dg.SkipReason:
        """Register complete new runs under the raw root and request their ingestion."""
        known = set(context.instance.get_dynamic_partitions(RUNS.name or ""))
        incoming = find_incoming_runs(store.open(), known=known)
        for path, problem in incoming.refused:
            context.log.warning("%s: %s", path, problem)
        chosen = incoming.complete[:MAX_RUNS_PER_TICK]
        if not chosen:
            return dg.SkipReason(
                f"{len(known)} runs known, {len(incoming.unsettled)} still being written, {len(incoming.refused)} refused"
            )
        return dg.SensorResult(
            run_requests=_requests(chosen), dynamic_partitions_requests=[RUNS.build_add_request(chosen)]
        )

    return new_runs


def _requests(keys: Iterable[str]) -> list[dg.RunRequest]:
    return [dg.RunRequest(partition_key=key, tags={"peaknet/origin": "new_runs"}) for key in keys]
