"""The code location, assembled; tests give their own data root."""

import dagster as dg

from peaknet_pipeline.orchestration.assets import build_asset
from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.orchestration.jobs import PROCESS, build_jobs
from peaknet_pipeline.orchestration.resources import StoreResource, default_root
from peaknet_pipeline.orchestration.schedules import build_improve_schedule
from peaknet_pipeline.orchestration.sensors import build_new_runs_sensor
from peaknet_pipeline.store.asset import IMPROVE, INGEST


def build_defs(root: str | None = None) -> dg.Definitions:
    """Return the definitions over one data root; without it, ``PEAKNET_DATA`` or ``data`` in the working directory."""
    per_run = {spec.name: spec.per_run for spec in CHAIN}
    jobs = build_jobs()
    named = {job.name: job for job in jobs}
    return dg.Definitions(
        assets=[build_asset(spec, per_run=per_run) for spec in CHAIN],
        jobs=jobs,
        sensors=[build_new_runs_sensor(named[INGEST], named[PROCESS])],
        schedules=[build_improve_schedule(named[IMPROVE])],
        resources={"store": StoreResource(root=root or default_root())},
        executor=dg.in_process_executor,
    )
