"""A small simulated experiment, made once, and the whole chain materialized over it, once."""

import shutil
from dataclasses import dataclass

import dagster as dg
import pytest
from dagster._core.storage.defs_state.base import set_defs_state_storage

from peaknet_pipeline.orchestration.build import build_defs
from peaknet_pipeline.orchestration.jobs import INFER, INGEST, SUMMARY, TRAIN
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.models import use_model

KEYS = ["small-r0001", "small-r0002", "small-r0003"]
FRAMES = 12

PIPELINE = """\
training_set: {validation_runs: [small-r0002], test_runs: [small-r0003]}
teacher: {steps: 160, crops: 768, validation_panels: 48, validate_every: 80}
student: {scale: edge-small, steps: 240, crops: 768, validation_panels: 48, validate_every: 120, repeat_after: 60}
"""


@dataclass
class World:
    """A data root with its Dagster instance and definitions."""

    store: Store
    instance: dg.DagsterInstance
    defs: dg.Definitions

    def materialize(self, assets, partition=None, **kwargs):
        """Materialize some assets in this process."""
        return self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            partition_key=partition,
            asset_selection=[dg.AssetKey(name) for name in assets],
            raise_on_error=False,
            **kwargs,
        )


def failure_text(result):
    """Return what failed steps say."""
    failures = [event for event in result.all_events if event.is_step_failure]
    return " ".join(
        str(e.event_specific_data.user_failure_data or e.event_specific_data.error) for e in failures
    )


def open_world(root):
    """Open a data root with an instance of its own."""
    home = root / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    return World(
        Store(root),
        dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}),
        build_defs(str(root)),
    )


@pytest.fixture(scope="session")
def small_raw(tmp_path_factory):
    """Three simulated runs with geometry, cell and settings."""
    root = tmp_path_factory.mktemp("small")
    simulate_small(root)
    return root


def simulate_small(root):
    """Write three simulated runs of twelve frames with geometry, cell and settings."""
    folder = root / "raw" / "small"
    experiment = demo_experiment(5, name="small")
    write_experiment_files(experiment, folder)
    for number in (1, 2, 3):
        simulate_run(
            experiment, folder / f"r{number:04d}.h5", n_frames=FRAMES, seed=30 + number, run_number=number
        )
    (folder / "experiment.yaml").write_text("finder: {threshold: 70, max_pix: 60, local_bg_radius: 4}\n")
    (root / "pipeline.yaml").write_text(PIPELINE)


@pytest.fixture
def fresh(small_raw, tmp_path):
    """A copy of the raw experiment with nothing made yet."""
    shutil.copytree(small_raw, tmp_path, dirs_exist_ok=True)
    return open_world(tmp_path)


@pytest.fixture(autouse=True)
def no_storage_of_a_gone_instance():
    """Dagster keeps the storage of the last instance entered; where instances end out of order, one that is gone."""
    with set_defs_state_storage(None):
        yield


@pytest.fixture(scope="session")
def made(small_raw, tmp_path_factory):
    """The whole chain over the small experiment."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(small_raw, root, dirs_exist_ok=True)
    world = open_world(root)
    register_runs(world.instance, KEYS)
    for assets, partitions in ((INGEST, KEYS), (TRAIN, [None]), (INFER, KEYS), (SUMMARY, [None])):
        for partition in partitions:
            result = world.materialize(assets, partition)
            assert result.success or champion_stayed(result), failure_text(result)
        if assets is TRAIN:
            use_model(world.store, "student-v0001")  # whichever won: what follows is about the student
    return world


def champion_stayed(result):
    """Tell whether the challenger lost, and nothing else failed."""
    lost = [e for e in result.get_asset_check_evaluations() if not e.passed]
    return [e.check_name for e in lost] == ["no_worse_than_champion"]
