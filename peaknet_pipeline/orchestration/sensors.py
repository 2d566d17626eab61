"""The sensor on the raw root: new complete runs become partitions, and their materialization is requested."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from peaknet_pipeline.orchestration.partitions import RUNS
from peaknet_pipeline.orchestration.resources import StoreResource
from peaknet_pipeline.provenance import digest_of
from peaknet_pipeline.store.incoming import IncomingRuns, SensorParams, find_incoming_runs
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.raw_root import format_not_taken, read_raw_root, stamp_of
from peaknet_pipeline.store.settings import pipeline_parameters

FILES_UNCHANGED = "files_unchanged"
"""The check of ``raw_run`` that says whether the files still are those that were ingested."""


def build_new_runs_sensor(ingest: Any, process: Any) -> dg.SensorDefinition:
    """Make the sensor that watches the raw root for one of two jobs: ingestion alone, or with inference."""

    @dg.sensor(
        name="new_runs",
        jobs=[ingest, process],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Turn it on to have runs taken by themselves: it registers every complete new run under raw/ of the data "
        "root and requests ingest_run for it, or process_run with sensor: {infer: true} in pipeline.yaml. A file that is still "
        "written waits. What it does not take stands in its log, with the reason.",
    )
    def new_runs(
        context: dg.SensorEvaluationContext, store: StoreResource
    ) -> dg.SensorResult | dg.SkipReason:
        """Register complete new runs under the raw root and request their ingestion.

        A run whose files changed since a stage failed on them is requested again, and with ``sensor: {request_stale: true}``
        in pipeline.yaml one whose files were replaced after they were ingested. What is not taken is logged once.
        """
        opened = store.open()
        params = pipeline_parameters(opened, "sensor", SensorParams)
        known = set(context.instance.get_dynamic_partitions(RUNS.name or ""))
        incoming = find_incoming_runs(opened, known=known, settle_s=params.settle_s)
        before = _read_cursor(context)
        told = _tell_once(context, incoming, before["told"])
        again = _to_request_again(opened, incoming, params, before["requested"])
        new = incoming.complete[: params.runs_per_tick]
        chosen = dict(list(again.items())[: params.runs_per_tick - len(new)])
        requested = {key: stamp for key, stamp in before["requested"].items() if key not in new} | chosen
        verdicts = _verdicts_on_files(context, incoming.stale, before["stale"])
        cursor = {"told": told, "requested": requested, "stale": digest_of(incoming.stale)}
        context.update_cursor(json.dumps(cursor))
        if not new and not chosen:
            skipped = _skipped(known, incoming)
            return (
                dg.SensorResult(skip_reason=skipped, asset_events=verdicts)
                if verdicts
                else dg.SkipReason(skipped)
            )
        return dg.SensorResult(
            run_requests=_requests(
                {**dict.fromkeys(new), **chosen}, process.name if params.infer else ingest.name
            ),
            dynamic_partitions_requests=[RUNS.build_add_request(new)] if new else [],
            asset_events=verdicts,
        )

    return new_runs


def _skipped(known: set[str], incoming: IncomingRuns) -> str:
    counts = {
        "runs known": len(known),
        "still being written": len(incoming.unsettled),
        "not taken": len(incoming.refused),
        "stale": len(incoming.stale),
    }
    return ", ".join(f"{n} {what}" for what, n in counts.items())


def _read_cursor(context: dg.SensorEvaluationContext) -> dict[str, Any]:
    """Return what was told before, as marks, and which state of its files each run was requested again for; and
    a mark of the runs that were stale.
    """
    before = json.loads(context.cursor or "{}")
    return {
        "told": [],
        "requested": {},
        "stale": digest_of({}),
        **(before if isinstance(before, dict) else {}),
    }


def _tell_once(context: dg.SensorEvaluationContext, incoming: IncomingRuns, told: Iterable[str]) -> list[str]:
    """Log what is not taken and what is stale, each in the first tick that finds it so; return the marks of all of it."""
    stale = [
        (Path(key), f"is stale: {why}. Launch ingest_run for it again.")
        for key, why in incoming.stale.items()
    ]
    marks = {digest_of([str(path), why]): (path, why) for path, why in [*incoming.refused, *stale]}
    new = {entry for mark, entry in marks.items() if mark not in set(told)}
    for line in format_not_taken([entry for entry in incoming.refused if entry in new]):
        context.log.warning(line)
    for key, why in stale:
        if (key, why) in new:
            context.log.warning(f"{key} {why}")
    return sorted(marks)


def _verdicts_on_files(
    context: dg.SensorEvaluationContext, stale: Mapping[str, str], before: str
) -> list[dg.AssetCheckEvaluation]:
    """Return the check of ``raw_run`` that shows stale runs in the UI, if it says something else than the last one did."""
    check = dg.AssetCheckKey(dg.AssetKey("raw_run"), FILES_UNCHANGED)
    last = context.instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).get(check)
    passed = last is None or last.status.value != "FAILED"
    if passed == (not stale) and (passed or before == digest_of(stale)):
        return []
    runs = "; ".join(f"{key}: {why}" for key, why in stale.items())
    return [
        dg.AssetCheckEvaluation(
            asset_key=check.asset_key,
            check_name=check.name,
            passed=not stale,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{len(stale)} runs are stale, with all that was made of them: {runs}"
            if stale
            else "no run's files were replaced after its ingestion",
        )
    ]


def _to_request_again(
    store: Store, incoming: IncomingRuns, params: SensorParams, requested: Mapping[str, str]
) -> dict[str, str]:
    """Return the runs to request again, with what tells their files' state; not those requested for that state before."""
    wanted = [*incoming.again, *(incoming.stale if params.request_stale else ())]
    if not wanted:
        return {}
    files = read_raw_root(store).runs
    stamps = {key: stamp_of(files[key]) for key in wanted if key in files}
    return {key: stamp for key, stamp in stamps.items() if requested.get(key) != stamp}


def _requests(keys: Mapping[str, str | None], job: str) -> list[dg.RunRequest]:
    """Return a request per run; ones for a state of its files bear it as their key, so that Dagster starts one run alone."""
    return [
        dg.RunRequest(
            job_name=job,
            partition_key=key,
            run_key=None if stamp is None else f"{key} {stamp}",
            tags={"peaknet/origin": "new_runs"},
        )
        for key, stamp in keys.items()
    ]
