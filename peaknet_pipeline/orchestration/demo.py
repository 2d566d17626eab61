"""The demo: a small simulated experiment through every asset of the chain, in the embedded instance."""

import socket
import time
from collections.abc import Callable, Iterable

import dagster as dg

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.orchestration.build import build_defs
from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.orchestration.instance import open_instance
from peaknet_pipeline.orchestration.jobs import INFER, INGEST, SUMMARY, TRAIN
from peaknet_pipeline.orchestration.launcher import HOST_TAG, end_dead_runs
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.stages.demo import demo_runs, prepare_demo
from peaknet_pipeline.store.freshness import is_current
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import CODE

Say = Callable[[str], None]

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_demo(store: Store, *, say: Say) -> None:
    """Simulate what is missing, then materialize what is not current.

    Raises
    ------
    PeaknetError
        An asset failed; the Dagster run tells the whole story.

    """
    prepare_demo(store, say=say)
    instance = open_instance(store)
    end_dead_runs(instance)
    defs = build_defs(str(store.root.absolute()))
    keys = demo_runs()
    register_runs(instance, keys)
    for job, assets, partitions in (
        ("ingest_run", INGEST, keys),
        ("improve_model", TRAIN, [None]),
        ("infer_run", INFER, keys),
        ("summarize", SUMMARY, [None]),
    ):
        _run_job(store, defs, instance, job, assets, partitions, say=say)


def _run_job(
    store: Store,
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    assets: Iterable[str],
    partitions: Iterable[str | None],
    *,
    say: Say,
) -> None:
    for partition in partitions:
        stale = _stale(store, instance, list(assets), partition)
        label = f"{job} {partition}" if partition else job
        if not stale:
            say(f"  {label}: already made")
            continue
        start = time.perf_counter()
        say(f"  {label}: {' → '.join(stale)}")
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            partition_key=partition,
            asset_selection=[dg.AssetKey(name) for name in stale],
            run_config=QUIET,
            tags={HOST_TAG: socket.gethostname()},
            raise_on_error=False,
        )
        for verdict in _verdicts_that_keep_the_champion(result):
            say(f"  {label}: {verdict}")
        _raise_on_failure(result, label)
        say(f"  {label}: done in {time.perf_counter() - start:.1f} s")


def _stale(store: Store, instance: dg.DagsterInstance, assets: list[str], partition: str | None) -> list[str]:
    """Return the assets from the first one on that Dagster doesn't know or whose output isn't current."""
    outputs = {spec.name: spec.path for spec in CHAIN}
    for position, name in enumerate(assets):
        output = outputs[name](store, partition or "all")
        if not (_is_known(instance, name, partition) and is_current(output, code=CODE[name])):
            return assets[position:]
    return []


def _is_known(instance: dg.DagsterInstance, name: str, partition: str | None) -> bool:
    key = dg.AssetKey(name)
    if partition is None:
        return instance.get_latest_materialization_event(key) is not None
    return partition in instance.get_materialized_partitions(key)


def _verdicts_that_keep_the_champion(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return why a challenger lost, if one did: no failure of the demo, since the champion goes on."""
    return [
        str(evaluation.description)
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == "no_worse_than_champion" and not evaluation.passed
    ]


def _raise_on_failure(result: dg.ExecuteInProcessResult, label: str) -> None:
    if result.success or _verdicts_that_keep_the_champion(result):
        return
    failures = [event for event in result.all_events if event.is_step_failure]
    reasons = [
        f"{e.step_key}: {e.step_failure_data.user_failure_data or e.step_failure_data.error}"
        for e in failures
    ]
    raise PeaknetError(
        f"{label} failed",
        found="; ".join(reasons) or "a blocking check",
        remedy=f"See run {result.run_id} in the Dagster UI.",
    )
