"""An asset whose work is a Slurm job: `peaknet stage` runs there and tells its result through Dagster Pipes.

The job sends the stage's own result, a :class:`StageResult`; Dagster's metadata and checks are made of it here, by the same
code as without Slurm, so that an asset looks the same wherever it was computed.
"""

import base64
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes

from peaknet_pipeline.errors import ParameterError, PeaknetError
from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.orchestration.slurm_client import (
    MACHINES_FAULT,
    JobEnd,
    SlurmError,
    SlurmParams,
    await_end,
    cancel,
    submit,
)
from peaknet_pipeline.store.asset import Asset
from peaknet_pipeline.store.failures import failures_recorded
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.settings import pipeline_parameters
from peaknet_pipeline.store.stage_result import Check, StageResult

LOG_LINES = 15


def slurm_of(store: Store, spec: Asset) -> SlurmParams | None:
    """Return how an asset's job is submitted; None where it runs in this process.

    Raises
    ------
    ParameterError
        ``pipeline.yaml`` names an asset that is none.

    """
    params = pipeline_parameters(store, "slurm", SlurmParams)
    known = {one.name for one in CHAIN}
    if unknown := sorted(set(params.assets) - known):
        raise ParameterError(
            "no such asset", where="slurm.assets", expected=", ".join(sorted(known)), found=unknown
        )
    return params if spec.name in params.assets else None


def run_as_job(
    context: dg.AssetExecutionContext,
    spec: Asset,
    store: Store,
    scope: tuple[Any, ...],
    overrides: Mapping[str, Any],
    params: SlurmParams,
) -> tuple[StageResult, dict[str, float]]:
    """Run a stage as a Slurm job; return its result and what the job cost.

    Raises
    ------
    PeaknetError
        The stage failed, with the stage's own words, or the job did.

    """
    spent = 0.0
    for attempt in range(1, params.attempts + 1):
        folder = store.root / "slurm" / f"{context.run.run_id}-{spec.name}-{attempt}"
        folder.mkdir(parents=True, mode=0o700)
        end, messages = _one_job(context, spec, store, scope, overrides, params, folder)
        spent += end.node_hours
        if messages or end.state not in MACHINES_FAULT:
            break
        context.log.warning(f"the job of {spec.name} ended as {end.state}: submitted again")
    if not messages:
        raise SlurmError(
            f"the job of {spec.name} ended as {end.state} ({end.exit_code or 'no exit code'}) without a result",
            where=folder / "log", found=_last_lines(folder / "log"),
        )  # fmt: skip
    shutil.rmtree(folder)
    told = messages[-1]
    if "failure" in told:
        raise SlurmError(told["failure"])
    return _result(told), {"node_hours": round(spent, 5)}


def _one_job(
    context: dg.AssetExecutionContext,
    spec: Asset,
    store: Store,
    scope: tuple[Any, ...],
    overrides: Mapping[str, Any],
    params: SlurmParams,
    folder: Path,
) -> tuple[JobEnd, list[Any]]:
    extras = {"scope": list(scope), "overrides": dict(overrides), "root": str(store.root.absolute())}
    with dg.open_pipes_session(
        context=context.op_execution_context,  # the asset's own warns of what Pipes asks it
        extras=extras,
        context_injector=dg.PipesFileContextInjector(str(folder / "context")),
        message_reader=dg.PipesFileMessageReader(str(folder / "messages")),
    ) as session:
        environment = {
            **session.get_bootstrap_env_vars(),
            "PEAKNET_PYTHON": sys.executable,
            "PEAKNET_STAGE": spec.name,
            "PEAKNET_KEY": str(scope[0]) if spec.per_run else "all",
        }
        number = submit(
            f"peaknet-{spec.name}", params, gpus=params.gpus_per_job if spec.pool == "gpu" else 0,
            log=folder / "log", environment=environment, folder=folder,
        )  # fmt: skip
        context.log.info(f"Slurm job {number}")
        try:
            end = await_end(number, params)
        except BaseException:  # the run was terminated, or Slurm doesn't answer: nothing is left running
            cancel(number)
            raise
        if end.state == "LOST":
            cancel(number)
    return end, list(session.get_custom_messages())


def run_stage_process(name: str, key: str, store: Store) -> dict[str, Any]:
    """Run one stage in this process, as ``peaknet stage`` does; under Dagster Pipes the result goes there.

    Raises
    ------
    PeaknetError
        No such stage, or it failed; under Pipes the failure is told there and not raised.

    """
    spec = next((one for one in CHAIN if one.name == name), None)
    if spec is None:
        raise ParameterError("no such stage", expected=", ".join(one.name for one in CHAIN), found=name)
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        return {**_run(spec, store, (key,) if spec.per_run else ([key],), {}).figures}
    with open_dagster_pipes() as pipes:
        extras = pipes.extras
        try:
            result = _run(spec, Store(Path(extras["root"])), tuple(extras["scope"]), extras["overrides"])
        except PeaknetError as error:
            pipes.report_custom_message({"failure": str(error)})
            return {}
        pipes.report_custom_message(_message(result))
    return {**result.figures}


def _run(spec: Asset, store: Store, scope: tuple[Any, ...], overrides: Mapping[str, Any]) -> StageResult:
    with failures_recorded(store, spec.name, str(scope[0]) if spec.per_run else "all"):
        return spec.run(store, *scope, overrides=overrides)


def _message(result: StageResult) -> dict[str, Any]:
    """Return a result as JSON; the inverse of :func:`_result`."""
    return {
        "output": str(result.output),
        "figures": {name: _plain(value) for name, value in result.figures.items()},
        "tables": {name: str(path) for name, path in result.tables.items()},
        "plots": {name: base64.b64encode(png).decode() for name, png in result.plots.items()},
        "checks": [
            [c.name, bool(c.passed), c.description, {k: _plain(v) for k, v in c.figures.items()}]
            for c in result.checks
        ],
        "data_version": result.data_version,
    }


def _result(message: Mapping[str, Any]) -> StageResult:
    return StageResult(
        Path(message["output"]),
        message["figures"],
        {name: Path(path) for name, path in message["tables"].items()},
        {name: base64.b64decode(text) for name, text in message["plots"].items()},
        tuple(Check(*values) for values in message["checks"]),
        message["data_version"],
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _last_lines(log: Path) -> str:
    return (
        " | ".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if log.is_file() else "no log"
    )
