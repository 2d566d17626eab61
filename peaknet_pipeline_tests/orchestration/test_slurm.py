"""An asset as a Slurm job, with stand-ins of Slurm's commands: the result is the local one, and no end goes unnoticed."""

import threading

import dagster as dg
import numpy as np
import pytest

from peaknet_pipeline.errors import ParameterError, PeaknetError
from peaknet_pipeline.orchestration.assets import build_asset
from peaknet_pipeline.orchestration.partitions import RUNS
from peaknet_pipeline.orchestration.resources import StoreResource
from peaknet_pipeline.orchestration.slurm_assets import run_stage_process
from peaknet_pipeline.orchestration.slurm_client import SlurmError, SlurmParams, await_end, cancel, submit
from peaknet_pipeline.stages.raw_run import RAW_RUN_ASSET
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline_tests.orchestration import fake_slurm
from peaknet_pipeline_tests.runs.files import module_geometry, write_run

# Dagster warns of a part of Pipes that Pipes itself asks for.
pytestmark = pytest.mark.filterwarnings("ignore:Function .PipesMessageReader.expected_writer_count")

KEY = "jf-r0001"
QUICK = SlurmParams(poll_s=0.05)


@pytest.fixture
def store(tmp_path):
    """One small run, whose stage raw_run is a Slurm job."""
    store = Store(tmp_path / "data")
    folder = store.raw_root / "jf"
    folder.mkdir(parents=True)
    write_run(folder / "r0001.h5", np.ones((3, 3, 40, 48), np.uint16))
    (folder / "jf.geom").write_text(module_geometry().text)
    (folder / "jf.cell").write_text("a cell\n")
    (store.root / "pipeline.yaml").write_text("slurm: {assets: [raw_run], poll_s: 0.05, partition: short}\n")
    return store


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Put stand-ins of Slurm's commands into the path; gives a function that sets what happens to the jobs."""

    def install(plan):
        state = fake_slurm.install(tmp_path / "bin", plan)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        return state

    return install


def materialize(store):
    asset = build_asset(RAW_RUN_ASSET, per_run={"raw_run": True})
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(RUNS.name, [KEY])
        return dg.materialize(
            [asset], partition_key=KEY, instance=instance, raise_on_error=False,
            resources={"store": StoreResource(root=str(store.root))},
        )  # fmt: skip


def told_by(result):
    (event,) = result.asset_materializations_for_node("raw_run")
    checks = {e.check_name: (e.passed, e.description) for e in result.get_asset_check_evaluations()}
    return {name: value.value for name, value in event.metadata.items()}, checks


def test_a_job_that_is_lost_runs_again_and_gives_what_this_process_gives(store, slurm):
    state = slurm("lose run")
    figures, checks = told_by(materialize(store))
    assert figures.pop("node_hours") == pytest.approx(36 * 2 / 3600)
    assert (state / "job-1" / "cancelled").exists()
    options = (state / "job-2" / "options").read_text()
    assert "partition=short" in options
    assert "gpus" not in options
    assert KEY not in (state / "job-2" / "script").read_text()  # one text for every job
    assert not any((store.root / "slurm").glob("*-2"))
    (store.root / "pipeline.yaml").unlink()
    here, checks_here = told_by(materialize(store))
    changing = {"path"} | {name for name in here if name.startswith("dagster/")}
    assert {n: v for n, v in figures.items() if n not in changing} == {
        n: v for n, v in here.items() if n not in changing
    }
    assert checks == checks_here


def test_a_stages_own_failure_comes_back_in_its_own_words(store, slurm):
    slurm("run")
    (store.raw_root / "jf" / "jf.geom").write_text("nonsense = 1\n")
    result = materialize(store)
    with pytest.raises(PeaknetError) as local:
        run_stage_process("raw_run", KEY, store)
    failure = result.failure_data_for_node("raw_run")
    assert not result.success
    assert str(local.value).split(":")[-1].strip() in failure.user_failure_data.description


@pytest.mark.parametrize(
    ("plan", "jobs", "words"),
    [("fail", 1, "ended as FAILED (3:0) without a result"), ("node lose", 2, "ended as LOST")],
)
def test_a_job_that_ends_badly_is_told_with_slurms_state(store, slurm, plan, jobs, words):
    state = slurm(plan)
    result = materialize(store)
    assert not result.success
    assert words in result.failure_data_for_node("raw_run").user_failure_data.description
    assert len(list(state.glob("job-*"))) == jobs


def test_a_cancelled_job_ends_and_a_refusal_is_told(tmp_path, slurm, monkeypatch):
    state = slurm("hang")
    number = submit("a", QUICK, gpus=2, log=tmp_path / "log", environment={}, folder=tmp_path)
    assert "gpus=2" in (state / "job-1" / "options").read_text()
    threading.Timer(0.3, cancel, [number]).start()
    assert await_end(number, QUICK).state == "CANCELLED"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(SlurmError, match="no sbatch here"):
        submit("a", QUICK, gpus=0, log=tmp_path / "log", environment={}, folder=tmp_path)


def test_an_asset_that_is_none_is_refused(store):
    (store.root / "pipeline.yaml").write_text("slurm: {assets: [raw_runs]}\n")
    result = materialize(store)
    assert "no such asset" in result.failure_data_for_node("raw_run").user_failure_data.description
    with pytest.raises(ParameterError, match="no such stage"):
        run_stage_process("raw_runs", KEY, store)
