"""The feedback loop's rules: what a challenger must do, what may teach, and what a turn of the loop takes in."""

import dataclasses
import json
import shutil

import dagster as dg
import pytest
from click.testing import CliRunner

from peaknet_pipeline.commands.models import models as models_command
from peaknet_pipeline.errors import LabelError, ModelError, ParameterError
from peaknet_pipeline.learn.checkpoint import WEIGHTS_FILE, ModelCard, load_shipped, write_checkpoint
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.registry import champions, promote, read_evaluation, register, register_shipped
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.orchestration.resources import StoreResource
from peaknet_pipeline.schemas import CURATION, MODEL_COMPARISON, SPLIT
from peaknet_pipeline.stages import classical_peaks, peak_labels, raw_run, run_index, run_statistics
from peaknet_pipeline.stages.curated_labels import curated_labels
from peaknet_pipeline.stages.curation import curation
from peaknet_pipeline.stages.peaknet_peaks import peaknet_peaks
from peaknet_pipeline.stages.training_set import TrainingSetParams, is_training_set_current, training_set
from peaknet_pipeline.store import paths
from peaknet_pipeline.store.freshness import is_current
from peaknet_pipeline.store.make_stage import CODE
from peaknet_pipeline.store.models import inference_model, write_newest
from peaknet_pipeline.store.paths import comparison_path, training_set_path
from peaknet_pipeline.tables import read_table, read_table_metadata, write_json
from peaknet_pipeline_tests.orchestration.conftest import KEYS, failure_text, open_world

INGEST = (
    raw_run.raw_run,
    run_statistics.run_statistics,
    classical_peaks.classical_peaks,
    run_index.classical_index,
)
VALIDATES = KEYS[1]


@pytest.fixture(scope="module")
def ingested(small_raw, tmp_path_factory):
    """Two runs with classical peaks, lattices and labels, and the shipped network's view of the first."""
    root = tmp_path_factory.mktemp("loop")
    shutil.copytree(small_raw, root, dirs_exist_ok=True)
    (root / "pipeline.yaml").write_text(f"training_set: {{validation_runs: [{VALIDATES}]}}\n")
    world = open_world(root)
    register_runs(world.instance, KEYS[:2])
    for key in KEYS[:2]:
        for stage in (*INGEST, peak_labels.peak_labels):
            stage(world.store, key)
    for stage in (peaknet_peaks, run_index.peaknet_index, curation):
        stage(world.store, KEYS[0])
    return world


@pytest.fixture
def world(ingested, tmp_path):
    """A copy that a test may change; recipes go with their outputs."""
    shutil.copytree(ingested.store.root, tmp_path, dirs_exist_ok=True)
    copy = open_world(tmp_path)
    register_runs(copy.instance, KEYS[:2])
    return copy


def register_untaught(store):
    """Register a network that was never taught as the newest student."""

    def write(folder, version):
        model = build_model(named_scale("edge-small"), seed=1)
        write_checkpoint(folder, model, card=ModelCard(name=version, threshold=0.9))

    folder = register(store.models, "student", write)
    write_newest(store, "student", folder)
    return folder


def test_a_challenger_that_indexes_less_fails_the_check_and_the_champion_stays(world):
    store = world.store
    training_set(store, KEYS[:2])
    student = register_untaught(store)
    result = world.materialize(["champion"])
    assert not result.success
    (lost,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert (lost.check_name, lost.blocking) == ("no_worse_than_champion", True)
    assert "worse; general-v0001 stays the champion" in lost.description
    assert champions(store.models) == ["general-v0001"]
    rows = read_table(comparison_path(store, "all"), MODEL_COMPARISON).set_index("role")
    assert rows.loc["challenger", "model"] == student.name
    assert set(rows["run"]) == {VALIDATES}
    assert (rows["frames"] == 12).all()
    assert rows.loc["champion", "indexed"] > rows.loc["challenger", "indexed"]
    assert read_evaluation(store.models / "general-v0001").count.indexed == rows.loc["champion", "indexed"]


def test_an_equal_challenger_is_promoted_and_what_the_old_champion_found_is_stale(world):
    store = world.store
    training_set(store, KEYS[:2])
    twin = register(store.models, "student", copy_shipped)
    write_newest(store, "student", twin)
    assert is_current(paths.peaks_path(store, KEYS[0], "peaknet"), code=CODE["peaknet_peaks"])
    result = world.materialize(["champion"])
    assert result.success, failure_text(result)
    assert champions(store.models) == ["general-v0001", twin.name]
    assert not is_current(paths.peaks_path(store, KEYS[0], "peaknet"), code=CODE["peaknet_peaks"])
    assert inference_model(store) == twin


def copy_shipped(folder, version):
    """Write the shipped network once more, under a student's name."""
    loaded = load_shipped()
    card = dataclasses.replace(loaded.card, name=version)
    write_checkpoint(folder, loaded.model, card=card, normalisation=loaded.normalisation)


def test_a_named_model_is_used_in_the_champions_place_and_the_peaks_name_it(world):
    student = register_untaught(world.store)
    peaknet_peaks(world.store, KEYS[0], overrides={"model": student.name})
    metadata = read_table_metadata(paths.peaks_path(world.store, KEYS[0], "peaknet"))
    assert metadata["model"] == student.name
    with pytest.raises(ModelError, match=r"no such model.*student-v0001"):
        peaknet_peaks(world.store, KEYS[0], overrides={"model": "student-v0099"})


def test_the_command_lists_promotes_and_rolls_back(world):
    store, run = world.store, CliRunner().invoke
    register_shipped(store.models)
    student = register_untaught(store)
    data = ["--data", str(store.root)]
    told = run(models_command, [*data, "use", student.name], catch_exceptions=False)
    assert student.name in told.output
    listed = run(models_command, data, catch_exceptions=False).output.splitlines()
    assert [line.split()[1] for line in listed if line.startswith("*")] == [student.name]
    assert "general-v0001" in run(models_command, [*data, "rollback"], catch_exceptions=False).output
    assert inference_model(store).name == "general-v0001"


def test_truncated_weights_of_the_champion_are_named_by_the_run_that_needs_them(world):
    weights = promote(world.store.models, register_untaught(world.store).name) / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:200])
    result = world.materialize(["peaknet_peaks"], KEYS[0])
    assert not result.success
    assert "student-v0001/model.safetensors" in failure_text(result)


def test_labels_that_failed_a_gate_are_refused_and_the_training_set_says_so(world):
    store = world.store
    fail_check(paths.labels_path(store, KEYS[0]), "hits_have_lattices", "1 of 40 hits labelled")
    (store.root / "pipeline.yaml").write_text("training_set: {validate_fraction: 0, test_fraction: 0}\n")
    result = training_set(store, KEYS[:2])
    assert result.figures["refused_runs"] == f"{KEYS[0]}: hits_have_lattices: 1 of 40 hits labelled"
    assert set(read_table(training_set_path(store, "all"), SPLIT)["run"]) == {KEYS[1]}
    fail_check(paths.labels_path(store, KEYS[1]), "agrees_with_lmfit", "12.0 % agree")
    with pytest.raises(LabelError, match=r"no labelled run that may teach.*12\.0 % agree"):
        training_set(store, KEYS[:2])


def fail_check(output, name, description):
    """Rewrite an output's recipe as if a check had failed."""
    path = output.with_name(f"{output.name}.recipe.json")
    record = json.loads(path.read_text())
    record["checks"] = [{"name": name, "passed": False, "description": description}]
    write_json(path, record)


def test_labels_of_a_run_whose_peaks_are_missing_say_which_stage_makes_them(world):
    paths.peaks_path(world.store, KEYS[0], "classical").unlink()
    result = world.materialize(["peak_labels"], KEYS[0])
    assert not result.success
    assert "classical_peaks/small-r0001.parquet" in failure_text(result)
    assert "Materialize" in failure_text(result)


def test_curated_frames_are_labelled_from_neural_lattices_and_join_the_next_training_set(world):
    store = world.store
    before = training_set(store, KEYS[:2]).figures
    blind_the_classical_path(store)
    candidates = read_table(store.table("curation", KEYS[0]), CURATION)
    made = curated_labels(store, KEYS[0])
    assert all(check.passed for check in made.checks), made.checks
    assert not is_training_set_current(store, KEYS[:2])
    after = training_set(store, KEYS[:2]).figures
    rows = read_table(training_set_path(store, "all"), SPLIT)
    added = rows[rows["labels"] == "peaknet"]
    assert len(added) == after["curated_frames"] == made.figures["labelled_frames"] > 0
    assert set(added["frame"]) <= set(candidates["frame"])
    assert set(added["run"]) == {KEYS[0]}
    assert added["curation"].str.contains("only the neural peaks index").all()
    assert after["manifest"] != before["manifest"]
    assert is_training_set_current(store, KEYS[:2])


def blind_the_classical_path(store):
    """Make a run's classical path see nothing, as settings do that a drift has overtaken, and curate the run again."""
    folder = store.raw_root / "small"
    (folder / "experiment.yaml").write_text("finder: {threshold: 30000, max_pix: 60}\n")
    for stage in (*INGEST[1:], peak_labels.peak_labels, peaknet_peaks, run_index.peaknet_index, curation):
        stage(store, KEYS[0])


def test_exclusions_are_told_and_a_slip_of_the_pen_is_flagged(world):
    (world.store.root / "exclusions.txt").write_text(f"{KEYS[0]} 0-3 # jet off\nsmall-r0077 # typo\n")
    result = world.materialize(["training_set"])
    assert result.success, failure_text(result)
    metadata = result.asset_materializations_for_node("training_set")[0].metadata
    assert metadata["excluded"].value == f"small-r0077 (typo); {KEYS[0]} 0-3 (jet off)"
    (flagged,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert (flagged.check_name, flagged.blocking) == ("exclusions_apply", False)
    assert (
        read_table(training_set_path(world.store, "all"), SPLIT).query("run == @KEYS[0]")["frame"].min() > 3
    )


def test_the_schedule_is_shipped_stopped_and_skips_when_nothing_is_new(world):
    schedule = world.defs.resolve_schedule_def("improve_model_nightly")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED

    def tick():
        context = dg.build_schedule_context(
            instance=world.instance, resources={"store": StoreResource(root=str(world.store.root))}
        )
        return schedule(context)

    assert isinstance(tick(), dg.RunRequest)
    training_set(world.store, KEYS[:2])
    assert "nothing was labelled" in tick().skip_message
    (world.store.root / "exclusions.txt").write_text(f"{KEYS[0]} 0 # ice\n")
    assert isinstance(tick(), dg.RunRequest)


def test_reasons_that_curation_does_not_give_are_refused():
    with pytest.raises(ParameterError, match=r"not a reason of curation.*finders disagree"):
        TrainingSetParams(curated_reasons=("because",))
