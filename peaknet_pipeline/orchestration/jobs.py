"""Jobs: parts of the chain that people launch as one."""

from typing import Any

import dagster as dg

INGEST = (
    "raw_run",
    "run_statistics",
    "classical_peaks",
    "found_cell",
    "classical_index",
    "diagnosis",
    "peak_labels",
)
TRAIN = ("training_set", "peaknet_teacher", "peaknet_student", "champion")
INFER = ("peaknet_peaks", "peaknet_index", "run_metrics", "curation", "curated_labels")
SUMMARY = ("experiment_summary",)


def build_jobs() -> list[Any]:
    """Make the four jobs of the chain."""
    return [
        dg.define_asset_job("ingest_run", selection=list(INGEST), description="A raw run to labels."),
        dg.define_asset_job(
            "improve_model",
            selection=list(TRAIN),
            description="One turn of the loop: labels and curated frames to teacher, student, comparison, champion.",
        ),
        dg.define_asset_job(
            "infer_run", selection=list(INFER), description="A raw run to rates and to what it can teach."
        ),
        dg.define_asset_job(
            "summarize", selection=list(SUMMARY), description="All runs to one table and report."
        ),
    ]
