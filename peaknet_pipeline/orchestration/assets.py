"""The chain as Dagster assets: one declaration per stage, one factory for all of them.

What belongs here: names, dependencies, partitions, pools and policies. What a stage does lives in ``stages``.
"""

from typing import Any

import dagster as dg

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.orchestration.metadata import check_results, metadata_of
from peaknet_pipeline.orchestration.partitions import RUNS
from peaknet_pipeline.orchestration.resources import StoreResource
from peaknet_pipeline.orchestration.settings import config_of, given
from peaknet_pipeline.orchestration.slurm_assets import run_as_job, slurm_of
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.schemas import SCHEMAS
from peaknet_pipeline.store.asset import MISSING, UPDATED, Asset
from peaknet_pipeline.store.failures import failures_recorded

GROUP = "peaknet"


AUTOMATION: dict[str, dg.AutomationCondition[Any]] = {
    MISSING: dg.AutomationCondition.on_missing(),
    UPDATED: dg.AutomationCondition.any_deps_updated() & ~dg.AutomationCondition.in_progress(),
}
"""What Dagster watches for, by what an asset declares."""


def build_asset(spec: Asset, *, per_run: dict[str, bool]) -> dg.AssetsDefinition:
    """Make the Dagster asset of one stage."""
    parameters = spec.parameters or Parameters
    config_class = config_of(parameters)

    def materialize(
        context: dg.AssetExecutionContext, config: Any, store: StoreResource
    ) -> dg.MaterializeResult:
        scope = _scope(context, spec)
        key = str(scope[0]) if spec.per_run else "all"
        cost: dict[str, float] = {}
        try:
            slurm = slurm_of(store.open(), spec)
            if slurm is not None:
                result, cost = run_as_job(context, spec, store.open(), scope, given(config), slurm)
            else:
                with failures_recorded(store.open(), spec.name, key):
                    result = spec.run(store.open(), *scope, overrides=given(config))
        except PeaknetError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        return dg.MaterializeResult(
            metadata=metadata_of(result, spec.tables) | cost,
            data_version=dg.DataVersion(result.data_version) if result.data_version else None,
            check_results=check_results(result, spec),
        )

    materialize.__annotations__["config"] = config_class
    return dg.asset(
        name=spec.name,
        deps=[_dependency(spec, name, per_run=per_run) for name in spec.deps],
        partitions_def=RUNS if spec.per_run else None,
        code_version=spec.code_version,
        group_name=GROUP,
        kinds=set(spec.kinds),
        pool=spec.pool,
        description=spec.run.__doc__,
        check_specs=_check_specs(spec),
        automation_condition=AUTOMATION[spec.automation] if spec.automation else None,
        retry_policy=None,
    )(materialize)


def _scope(context: dg.AssetExecutionContext, spec: Asset) -> tuple[Any, ...]:
    if spec.per_run:
        return (context.partition_key,)
    return (sorted(context.instance.get_dynamic_partitions(RUNS.name or "")),)


def _dependency(spec: Asset, name: str, *, per_run: dict[str, bool]) -> dg.AssetDep:
    if not spec.per_run and per_run[name]:
        return dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping())
    return dg.AssetDep(name)


def _check_specs(spec: Asset) -> list[dg.AssetCheckSpec]:
    schema = [
        dg.AssetCheckSpec(
            f"{table}_schema",
            asset=spec.name,
            blocking=True,
            description=f"{SCHEMAS[table].meaning}: columns, types, nulls.",
        )
        for table in spec.tables
    ]
    return schema + [
        dg.AssetCheckSpec(name, asset=spec.name, blocking=name in spec.blocking) for name in spec.checks
    ]
