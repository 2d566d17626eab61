"""The sensor on the raw root: new complete runs become partitions, and their materialization is requested."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg

from peaknet_pipeline.orchestration.partitions import RUNS
from peaknet_pipeline.orchestration.resources import StoreResource
from peaknet_pipeline.provenance import digest_of
from peaknet_pipeline.store.incoming import find_incoming_runs
from peaknet_pipeline.store.raw_root import format_not_taken

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
        """Register complete new runs under the raw root and request their ingestion; what is not taken is logged once."""
        known = set(context.instance.get_dynamic_partitions(RUNS.name or ""))
        incoming = find_incoming_runs(store.open(), known=known)
        _tell_once(context, incoming.refused)
        chosen = incoming.complete[:MAX_RUNS_PER_TICK]
        if not chosen:
            return dg.SkipReason(
                f"{len(known)} runs known, {len(incoming.unsettled)} still being written, {len(incoming.refused)} not taken"
            )
        return dg.SensorResult(
            run_requests=_requests(chosen), dynamic_partitions_requests=[RUNS.build_add_request(chosen)]
        )

    return new_runs


def _tell_once(context: dg.SensorEvaluationContext, refused: list[tuple[Path, str]]) -> None:
    """Log what is not taken, each entry in the first tick that finds it so; the cursor remembers what was told."""
    marks = {digest_of([str(path), reason]): (path, reason) for path, reason in refused}
    told = set(json.loads(context.cursor or "[]"))
    for line in format_not_taken([entry for mark, entry in marks.items() if mark not in told]):
        context.log.warning(line)
    context.update_cursor(json.dumps(sorted(marks)))


def _requests(keys: Iterable[str]) -> list[dg.RunRequest]:
    return [dg.RunRequest(partition_key=key, tags={"peaknet/origin": "new_runs"}) for key in keys]
