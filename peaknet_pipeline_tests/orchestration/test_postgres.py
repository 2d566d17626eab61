"""The facility's instance on a real PostgreSQL: several homes share it, and its password lies in no file."""

import importlib.util

import dagster as dg
import pytest

from peaknet_pipeline.orchestration.deployment import write_deployment
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline_tests.orchestration.conftest import KEYS, World, failure_text
from peaknet_pipeline_tests.orchestration.postgres_server import postgres_bin, postgres_server


@pytest.fixture
def server():
    """A PostgreSQL server."""
    programs = postgres_bin()
    if programs is None:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    if importlib.util.find_spec("dagster_postgres") is None:
        pytest.skip("no dagster-postgres: pip install 'peaknet-pipeline[postgres]'")
    with postgres_server(programs) as server:
        yield server


def test_machines_share_a_facilitys_instance_and_no_file_holds_its_password(
    fresh, server, tmp_path, monkeypatch
):
    monkeypatch.setenv("DAGSTER_PG_URL", server.url)
    monkeypatch.setenv("PEAKNET_STATE", str(tmp_path / "state"))
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        write_deployment(home, kind="facility", data=fresh.store.root)
    with (
        dg.DagsterInstance.from_config(str(homes[0])) as one,
        dg.DagsterInstance.from_config(str(homes[1])) as two,
    ):
        assert type(one.run_storage).__name__ == "PostgresRunStorage"
        register_runs(one, KEYS)
        assert two.get_dynamic_partitions("experiment_runs") == KEYS
        result = World(fresh.store, one, fresh.defs).materialize(["raw_run", "run_statistics"], KEYS[0])
        assert result.success, failure_text(result)
        assert two.get_materialized_partitions(dg.AssetKey("run_statistics")) == {KEYS[0]}
        assert two.get_run_by_id(result.run_id).status is dg.DagsterRunStatus.SUCCESS
        two.event_log_storage.set_concurrency_slots("gpu", 3)
        assert one.event_log_storage.get_concurrency_info("gpu").slot_count == 3
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".parquet" or path.name.endswith(".recipe.json") for path in written)
    assert all(server.password.encode() not in path.read_bytes() for path in written)


def test_without_its_address_the_facilitys_instance_says_which_variable_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("dagster_postgres")
    monkeypatch.delenv("DAGSTER_PG_URL", raising=False)
    monkeypatch.setenv("PEAKNET_STATE", str(tmp_path))
    write_deployment(tmp_path, kind="facility", data=tmp_path)
    with pytest.raises(Exception, match="DAGSTER_PG_URL"):
        dg.DagsterInstance.from_config(str(tmp_path))
