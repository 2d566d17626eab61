"""Jobs: parts of the chain that people launch as one; each asset says which one it belongs to."""

from typing import Any

import dagster as dg

from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.store import asset

PROCESS = "process_run"
"""The job that is two: a raw run to labels, and on to rates."""

JOBS = {
    asset.INGEST: "A raw run to classical peaks, lattices, a diagnosis and labels. Launch it for one run (a partition), or "
    "as a backfill over many; the sensor new_runs does so for new ones.",
    asset.IMPROVE: "One turn of the loop: labels and curated frames teach a teacher and a student, which becomes the "
    "champion if it indexes no fewer frames of the validation runs. Name those in pipeline.yaml first; no partition to choose.",
    asset.INFER: "A raw run to the network's peaks and lattices, the rates of both finders, and the frames worth learning "
    "from. Launch it after ingest_run, and again for runs that a new champion should look at.",
    asset.SUMMARIZE: "The rates of all runs to one table and the report. Launch it when runs were scored.",
}


def assets_of(job: str) -> tuple[str, ...]:
    """Return the names of a job's assets, upstream first."""
    parts = (asset.INGEST, asset.INFER) if job == PROCESS else (job,)
    return tuple(spec.name for spec in CHAIN if spec.job in parts)


WHOLE = "A raw run to labels, and with the network in use to rates: ingest_run and infer_run in one."

INGEST, TRAIN, INFER, SUMMARY = (assets_of(job) for job in JOBS)


def build_jobs() -> list[Any]:
    """Make the jobs of the chain."""
    return [
        dg.define_asset_job(job, selection=list(assets_of(job)), description=told)
        for job, told in {**JOBS, PROCESS: WHOLE}.items()
    ]
