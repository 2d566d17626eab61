"""Jobs: parts of the chain that people launch as one; each asset says which one it belongs to."""

from typing import Any

import dagster as dg

from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.store import asset

JOBS = {
    asset.INGEST: "A raw run to labels.",
    asset.IMPROVE: "One turn of the loop: labels and curated frames to teacher, student, comparison, champion.",
    asset.INFER: "A raw run to rates and to what it can teach.",
    asset.SUMMARIZE: "All runs to one table and report.",
}


def assets_of(job: str) -> tuple[str, ...]:
    """Return the names of a job's assets, upstream first."""
    return tuple(spec.name for spec in CHAIN if spec.job == job)


INGEST, TRAIN, INFER, SUMMARY = (assets_of(job) for job in JOBS)


def build_jobs() -> list[Any]:
    """Make the jobs of the chain."""
    return [
        dg.define_asset_job(job, selection=list(assets_of(job)), description=told)
        for job, told in JOBS.items()
    ]
