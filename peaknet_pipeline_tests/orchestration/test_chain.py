"""The chain in Dagster: it runs, reruns only what changed, and tells what it made."""

import dagster as dg
import pandas as pd
import pytest

from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.orchestration.jobs import INFER, INGEST, SUMMARY, TRAIN
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.orchestration.run_chain import find_stale
from peaknet_pipeline.provenance import read_recipe
from peaknet_pipeline.schemas import SCAN, SCHEMAS, SCORES, SECOND_LOOK, SECOND_LOOK_RATES
from peaknet_pipeline.stages.reporting import report_command
from peaknet_pipeline.store.scores import format_scores, read_all_scores
from peaknet_pipeline.store.trace import trace_file
from peaknet_pipeline.tables import read_table
from peaknet_pipeline_tests.orchestration.conftest import FRAMES, KEYS, failure_text

BY_HAND = ("finder_scan", "refined_geometry", "second_look", "run_merge", "merged")
"""Assets that no job makes."""


def test_the_definitions_load_and_jobs_cover_every_asset(fresh):
    dg.Definitions.validate_loadable(fresh.defs)
    assert {spec.name for spec in CHAIN} == {*INGEST, *TRAIN, *INFER, *SUMMARY, *BY_HAND}
    graph = fresh.defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey("training_set")).parent_keys == {dg.AssetKey("peak_labels")}
    assert dg.AssetKey("champion") in graph.get(dg.AssetKey("peaknet_peaks")).parent_keys
    assert dg.AssetKey("peaknet_student") in graph.get(dg.AssetKey("champion")).parent_keys


def test_every_run_is_scored_with_both_finders_and_consistent_denominators(made):
    scores = read_table(made.store.table("experiment_summary", "all"), SCORES)
    expected = sorted((k, f) for k in KEYS for f in ("classical", "peaknet"))
    assert sorted(zip(scores["run"], scores["finder"], strict=True)) == expected
    assert (scores["frames"] == FRAMES).all()
    assert (scores["hits"] <= scores["frames"]).all()
    assert scores["hit_rate"].to_numpy() == pytest.approx(scores["hits"] / scores["frames"])
    assert scores["indexing_yield"].to_numpy() == pytest.approx(scores["indexed"] / scores["frames"])
    subsets = dict(zip(scores["run"], scores["subset"], strict=True))
    assert subsets == dict(zip(KEYS, ("train", "validate", "test"), strict=True))
    assert (scores["false_index_rate"].fillna(0) == 0).all()


def test_the_student_finds_true_peaks_on_the_run_it_never_saw(made):
    scores = read_all_scores(made.store).set_index(["run", "finder"])
    unseen = scores.loc[(KEYS[2], "peaknet")]
    assert unseen["precision"] > 0.9
    assert unseen["recall"] > 0.7


def test_the_printed_table_has_a_row_per_run_and_finder(made):
    lines = format_scores(read_all_scores(made.store)).splitlines()
    assert len(lines) == 2 + 2 * len(KEYS)
    assert all(any(key in line for line in lines) for key in KEYS)


def test_every_table_of_a_run_reads_with_pandas_and_follows_its_schema(made):
    for spec in (spec for spec in CHAIN if spec.name not in BY_HAND):
        for name in spec.tables:
            event = made.instance.get_latest_materialization_event(dg.AssetKey(spec.name))
            metadata = event.asset_materialization.metadata
            path = metadata[f"{name}_path"].value
            assert list(pd.read_parquet(path).columns) == SCHEMAS[name].column_names()


def test_checks_from_the_schemas_ran_and_passed(made):
    result = made.materialize(["run_metrics"], KEYS[0])
    names = {
        (e.asset_key.to_user_string(), e.check_name): e.passed for e in result.get_asset_check_evaluations()
    }
    assert names == {("run_metrics", "run_metrics_schema"): True, ("run_metrics", "rates_in_range"): True}


def test_nothing_is_stale_after_a_whole_pass(made):
    for key in KEYS:
        assert find_stale(made, list(INGEST), key) == []
        assert find_stale(made, list(INFER), key) == []
    assert find_stale(made, list(TRAIN), None) == []


def test_a_changed_experiment_makes_its_runs_stale_from_the_first_asset_that_reads_it(made):
    path = made.store.raw_root / "small" / "experiment.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("threshold: 70", "threshold: 90"))
        assert find_stale(made, list(INGEST), KEYS[0]) == list(INGEST)
    finally:
        path.write_text(before)


def test_a_recipe_names_stage_parameters_inputs_and_content(made):
    recipe = read_recipe(made.store.table("classical_peaks", KEYS[0]))
    assert recipe["stage"] == "classical_peaks"
    assert recipe["parameters"]["threshold"] == 70
    assert any(name.endswith("small-r0001.h5") for name in recipe["inputs"])


def test_rows_and_cxi_files_name_run_code_parameters_model_and_labels_and_trace_to_the_raw_run(made):
    manifest = read_recipe(made.store.table("training_set", "all"))["figures"]["manifest"]
    row = read_all_scores(made.store).set_index(["run", "finder"]).loc[(KEYS[0], "peaknet")]
    assert row["label_manifest"] == manifest
    assert row["model"] == "student-v0001"
    assert row["mean_peaks"] == pytest.approx(row["peaks"] / FRAMES)
    for path in (
        made.store.file("peaknet_peaks", KEYS[0], ".cxi"),
        made.store.table("peaknet_index/reflections", KEYS[0]),
        made.store.table("run_metrics", KEYS[0]),
        made.store.report / "index.html",
    ):
        step = trace_file(path)
        assert step.origin["code_version"]
        assert step.origin["parameters_hash"]
        if path.suffix != ".html":
            assert step.origin["run"] == KEYS[0]
            assert step.origin["label_manifest"] == manifest
            assert step.origin["model"] == row["model"]
        sources = {s.path.name for s in step.walk() if not s.inputs}
        assert {"r0001.h5", "small.geom", "small.cell"} <= sources
        assert not [s for s in step.walk() if s.problems]


def test_run_config_overrides_the_experiment(fresh):
    register_runs(fresh.instance, KEYS[:1])
    assets = ["raw_run", "run_statistics", "classical_peaks"]
    config = {"ops": {"classical_peaks": {"config": {"threshold": 5000.0}}}}
    result = fresh.materialize(assets, KEYS[0], run_config=config)
    assert result.success, failure_text(result)
    assert read_recipe(fresh.store.table("classical_peaks", KEYS[0]))["parameters"]["threshold"] == 5000.0


def test_a_parameter_out_of_range_fails_the_run_with_its_name(fresh):
    register_runs(fresh.instance, KEYS[:1])
    config = {"ops": {"run_statistics": {"config": {}}, "classical_peaks": {"config": {"min_pix": 0}}}}
    result = fresh.materialize(["raw_run", "run_statistics", "classical_peaks"], KEYS[0], run_config=config)
    assert not result.success
    assert "Peakfinder8Params.min_pix" in failure_text(result)
    assert not fresh.store.table("classical_peaks", KEYS[0]).exists()


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_inference_and_metrics_follow_for_a_new_run_and_training_does_not(fresh):
    def evaluate(cursor=None):
        return dg.evaluate_automation_conditions(defs=fresh.defs, instance=fresh.instance, cursor=cursor)

    def report(name, partition=None):
        fresh.instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=partition))

    for name in TRAIN:
        report(name)
    first = evaluate()
    register_runs(fresh.instance, KEYS[:1])
    for name in INGEST:
        report(name, KEYS[0])
    second = evaluate(first.cursor)
    assert second.get_requested_partitions(dg.AssetKey("peaknet_peaks")) == {KEYS[0]}
    assert second.get_requested_partitions(dg.AssetKey("run_metrics")) == {KEYS[0]}
    for name in (*TRAIN, *INGEST):
        assert not second.get_requested_partitions(dg.AssetKey(name))


def test_the_report_is_one_page_with_every_run_and_nothing_from_elsewhere(made):
    page = (made.store.report / "index.html").read_text(encoding="utf-8")
    assert all(key in page for key in KEYS)
    assert page.count("data:image/png;base64,") >= 3 * len(KEYS)
    assert "http://" not in page
    assert "https://" not in page


def test_the_scan_records_the_whole_grid_and_its_best_setting_indexes_no_less_than_the_one_in_use(made):
    grid = {
        "threshold": [70.0, 2000.0],
        "min_snr": [5.0],
        "min_pix": [2],
        "max_pix": [60],
        "local_bg_radius": [4],
    }
    config = {"ops": {"finder_scan": {"config": {**grid, "frames": FRAMES}}}}
    result = made.materialize(["finder_scan"], KEYS[1], run_config=config)
    assert result.success, failure_text(result)
    scan = read_table(made.store.table("finder_scan", KEYS[1]), SCAN)
    assert sorted(scan["threshold"]) == [70.0, 2000.0]
    used = read_all_scores(made.store).set_index(["run", "finder"]).loc[(KEYS[1], "classical"), "indexed"]
    assert scan["indexed"].iloc[0] >= used
    assert scan["threshold"].iloc[0] == 70.0
    assert scan["indexed"].iloc[1] < scan["indexed"].iloc[0]


def test_the_second_look_has_rates_and_a_control_of_its_own(made):
    config = {"ops": {"second_look": {"config": {"n_controls": 6, "max_pairs": 500, "n_refined": 60}}}}
    result = made.materialize(["second_look"], KEYS[2], run_config=config)
    assert result.success, failure_text(result)
    rates = read_table(made.store.table("second_look/rates", KEYS[2]), SECOND_LOOK_RATES)
    lattices = read_table(made.store.table("second_look", KEYS[2]), SECOND_LOOK)
    assert sorted(rates["finder"]) == ["classical", "peaknet"]
    known = read_all_scores(made.store).set_index(["run", "finder"])["indexed"]
    for row in rates.to_dict("records"):
        assert row["indexed"] == known[KEYS[2], row["finder"]]
        assert row["second_look_yield"] == pytest.approx(
            (row["indexed"] + row["second_look_indexed"]) / row["frames"]
        )
    found = lattices[lattices["origin"] == "second look"]
    assert (found["score"] >= rates["second_look_bar"].iloc[0]).all()
    assert rates["second_look_highest"].fillna(-1.0).iloc[0] < rates["second_look_bar"].iloc[0]
    page = report_command(made.store, KEYS[2].rpartition("-")[0]).read_text(encoding="utf-8")
    told = f"1 of {len(KEYS)} runs were looked at again. No score of {rates['second_look_copies'].iloc[0]:,} scrambled copies"
    assert told in page
