"""How quick the operation stays with thousands of runs: a store and an instance of synthetic runs, and what they cost."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from peaknet_pipeline.orchestration.build import build_defs
from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.orchestration.instance import prepare_home
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.orchestration.resources import StoreResource
from peaknet_pipeline.orchestration.web import ask, web_server
from peaknet_pipeline.provenance import Recipe, write_recipe
from peaknet_pipeline.schemas import SCORES, Scores
from peaknet_pipeline.stages.reporting import report_path
from peaknet_pipeline.store.keys import RunKey, parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import CODE
from peaknet_pipeline.store.paths import FINDERS
from peaknet_pipeline.store.scores import metrics_path
from peaknet_pipeline.tables import make_table, write_table

RUNS_PER_EXPERIMENT = 100
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

PARTITIONS_QUERY = """
query Partitions($name: String!) {
  assetNodeOrError(assetKey: {path: [$name]}) { ... on AssetNode {
    partitionKeysByDimension { name partitionKeys }
    partitionStats { numMaterialized numPartitions numFailed numMaterializing }
    assetPartitionStatuses { ... on DefaultPartitionStatuses {
      materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } } } } }
"""
GRAPH_QUERY = "{ assetNodes { assetKey { path } partitionStats { numMaterialized numPartitions } } }"


def run(
    *, runs: int = 2000, materialized: int = 500, new: int = 40, folder: str | None = None
) -> dict[str, Any]:
    """Measure sensor tick, automation tick, summary and partition queries over synthetic runs.

    Parameters
    ----------
    runs : int
        Registered runs, 100 an experiment.
    materialized : int
        Runs of which every asset is recorded as materialized.
    new : int
        Complete files that the sensor has yet to find.
    folder : str, optional
        Data root to fill and keep; a temporary one by default.

    """
    with contextlib.ExitStack() as stack:
        root = Path(folder or stack.enter_context(tempfile.TemporaryDirectory())).absolute()
        store = Store(root)
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(prepare_home(store))))
        started = time.perf_counter()
        make_synthetic_runs(store, instance, runs=runs, materialized=materialized, new=new)
        figures: dict[str, Any] = {"runs": runs, "materialized": materialized}
        figures["making_s"] = time.perf_counter() - started
        figures |= measure_ticks(store, instance)
        figures |= measure_summary(store, instance)
        figures |= measure_queries(store)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}


def make_synthetic_runs(
    store: Store, instance: dg.DagsterInstance, *, runs: int, materialized: int, new: int
) -> list[str]:
    """Make run files, score tables and Dagster's records of them; return the registered keys."""
    keys, then = list(_keys(runs + new)), time.time() - 3600.0
    for key in keys:
        parsed = parse_key(key)
        path = store.experiment_folder(parsed) / f"r{parsed.number:04d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"synthetic run")
        os.utime(path, (then, then))
    register_runs(instance, keys[:runs])
    generator = np.random.default_rng(1)
    for key in keys[:materialized]:
        path = metrics_path(store, key)
        write_table(synthetic_scores(key, generator), path, SCORES)
        write_recipe(path, Recipe("run_metrics", CODE["run_metrics"], {}, {}), seconds=0.0)
    for spec in CHAIN:
        partitions: list[str | None] = [*keys[:materialized]] if spec.per_run else [None]
        for partition in partitions:
            instance.report_runless_asset_event(dg.AssetMaterialization(spec.name, partition=partition))
    return keys[:runs]


def synthetic_scores(key: str, generator: np.random.Generator) -> Scores:
    """Return a plausible row per finder for a run."""
    n_frames, hits = 1000, generator.integers(100, 600, len(FINDERS))
    indexed = (hits * generator.uniform(0.5, 0.95, len(FINDERS))).astype(int)
    columns: dict[str, Any] = {
        column.name: _fill(column.dtype, column.nullable, len(FINDERS)) for column in SCORES.columns
    }
    columns |= {
        "experiment": [parse_key(key).experiment] * len(FINDERS),
        "run": [key] * len(FINDERS),
        "finder": list(FINDERS),
        "frames": [n_frames] * len(FINDERS),
        "hits": hits,
        "indexed": indexed,
        "hit_rate": hits / n_frames,
        "indexing_rate": indexed / hits,
        "indexing_yield": indexed / n_frames,
    }
    return make_table(SCORES, columns)


def measure_ticks(store: Store, instance: dg.DagsterInstance) -> dict[str, Any]:
    """Time one tick of the sensor for new runs and two of the automation conditions."""
    defs = build_defs(str(store.root))
    sensor = defs.resolve_sensor_def("new_runs")
    context = dg.build_sensor_context(
        instance=instance, definitions=defs, resources={"store": StoreResource(root=str(store.root))}
    )
    figures: dict[str, Any] = {}
    with _timed(figures, "sensor_tick"):
        result: Any = sensor(context)
    figures["sensor_found"] = len(result.run_requests)
    cursor = None
    for name in ("automation_first_tick", "automation_tick"):
        with _timed(figures, name):
            cursor = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor).cursor
    return figures


def measure_summary(store: Store, instance: dg.DagsterInstance) -> dict[str, Any]:
    """Time the materialization of the summary, table, plot and report included."""
    job = build_defs(str(store.root)).resolve_implicit_global_asset_job_def()
    figures: dict[str, Any] = {}
    with _timed(figures, "summary"):
        result = job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("experiment_summary")], run_config=QUIET
        )
    metadata = result.asset_materializations_for_node("experiment_summary")[0].metadata
    size = report_path(store).stat().st_size
    return figures | {"summary_runs": metadata["runs"].value, "report_mb": size / 1e6}


def measure_queries(store: Store) -> dict[str, Any]:
    """Time what the UI's partition page and asset graph ask of a web server of their own, the second time they ask."""
    figures: dict[str, Any] = {}
    with web_server(store) as address:
        for _ in range(2):
            for name, query, variables in (
                ("partition_page_s", PARTITIONS_QUERY, {"name": "run_metrics"}),
                ("asset_graph_s", GRAPH_QUERY, {}),
            ):
                started = time.perf_counter()
                answer = ask(address, query, variables)
                figures[name] = time.perf_counter() - started
                if name == "partition_page_s":
                    stats = answer["assetNodeOrError"]["partitionStats"]
                    figures["partitions_shown"] = stats["numPartitions"]
    return figures


@contextlib.contextmanager
def _timed(figures: dict[str, Any], name: str) -> Iterator[None]:
    """Add how long the block took, on the wall and of this process's processor time."""
    started, busy = time.perf_counter(), time.process_time()
    yield
    figures[f"{name}_s"] = time.perf_counter() - started
    figures[f"{name}_cpu_s"] = time.process_time() - busy


def _keys(n: int) -> Iterator[str]:
    for number in range(n):
        experiment, run_number = divmod(number, RUNS_PER_EXPERIMENT)
        yield str(RunKey(f"exp{experiment:03d}", run_number + 1))


def _fill(dtype: str, nullable: bool, n: int) -> Sequence[Any]:
    if dtype == "string":
        return [""] * n
    return [float("nan") if nullable and dtype.startswith("float") else 0] * n
