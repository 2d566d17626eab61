"""The dynamic partitions: one per experiment run."""

import dagster as dg

from peaknet_pipeline.orchestration.registered import PARTITIONS
from peaknet_pipeline.store.keys import parse_key

RUNS = dg.DynamicPartitionsDefinition(name=PARTITIONS)


def register_runs(instance: dg.DagsterInstance, keys: list[str]) -> list[str]:
    """Add validated run keys that the instance doesn't know yet; return those added."""
    known = set(instance.get_dynamic_partitions(PARTITIONS))
    new = [str(parse_key(key)) for key in keys if key not in known]
    if new:
        instance.add_dynamic_partitions(PARTITIONS, new)
    return new
