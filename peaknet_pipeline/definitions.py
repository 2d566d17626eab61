"""The Dagster code location."""

from peaknet_pipeline.orchestration.build import build_defs

defs = build_defs()
