"""Settings are checked whole when they are read: every problem at once, each with its line and the nearest name."""

import pytest
from click.testing import CliRunner

from peaknet_pipeline.cli import peaknet
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.hits import HitParams
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.provenance import make_recipe, write_recipe
from peaknet_pipeline.store.experiment import read_experiment
from peaknet_pipeline.store.keys import RunKey
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import manifest_path, refined_geometry_path
from peaknet_pipeline.store.settings import pipeline_parameters

WRONG = """\
finder:
  threshold: 100
  min_snrr: 5
  max_pix: many
engine: latice
geometri: lyso.geom
index: {tolerance: -1}
runs: {x: a.h5}
"""


@pytest.fixture
def store(tmp_path):
    """An experiment with a geometry, ready for settings."""
    folder = tmp_path / "raw" / "lyso"
    folder.mkdir(parents=True)
    for name in ("a.geom", "a.cell"):
        (folder / name).write_bytes(b"x")
    return Store(tmp_path)


def settings(store, text):
    """Write the experiment's settings; return their path."""
    path = store.raw_root / "lyso" / "experiment.yaml"
    path.write_text(text)
    return path


def test_every_problem_of_the_settings_is_told_with_its_line_before_any_stage_needs_it(store):
    settings(store, WRONG)
    with pytest.raises(ParameterError) as caught:
        read_experiment(store, RunKey("lyso", 1))
    told = str(caught.value)
    for part in (
        "experiment.yaml: 6 problems",
        "line 6: unknown settings ['geometri']",
        "Did you mean geometry?",
        "line 3: unknown parameter 'min_snrr'",
        "Did you mean min_snr?",
        "line 4: finder.max_pix: cannot be read",
        "line 5: unknown engine",
        "Did you mean lattice?",
        "line 7: unknown parameter 'tolerance'",
        "line 8: not a run number",
    ):
        assert part in told


def test_one_problem_is_told_by_itself_and_right_settings_are_read(store):
    settings(store, "# lysozyme\n\nfinder:\n  threshold: 30\n  min_snr: -2\n")
    with pytest.raises(
        ParameterError, match=r"experiment\.yaml, line 5: finder\.min_snr: .*expected ≥ 0, found -2"
    ):
        read_experiment(store, RunKey("lyso", 1))
    settings(store, "finder: {threshold: 30}\nscan:\nruns: {1: a.h5}\n")
    experiment = read_experiment(store, RunKey("lyso", 1))
    assert experiment.parameters("finder", Peakfinder8Params).threshold == 30


def test_inspect_lists_the_problems_of_settings(store):
    path = settings(store, WRONG)
    result = CliRunner().invoke(peaknet, ["inspect", str(path)])
    assert result.exit_code == 2
    assert "6 problems that keep it from being processed" in result.output
    assert "experiment.yaml, line 3: unknown parameter 'min_snrr'" in result.output
    path.write_text("finder: {threshold: 30}\n")
    result = CliRunner().invoke(peaknet, ["inspect", str(path)])
    assert (result.exit_code, "settings of an experiment" in result.output) == (0, True)


def test_the_pipelines_settings_name_the_line_and_the_nearest_name(store):
    path = store.root / "pipeline.yaml"
    path.write_text("champion:\n  min_peakss: 3\n")
    with pytest.raises(
        ParameterError, match=r"pipeline\.yaml, line 2: .*'min_peakss'.*Did you mean min_peaks\?"
    ):
        pipeline_parameters(store, "champion", HitParams)
    path.write_text("\nchampoin: {}\n")
    with pytest.raises(ParameterError, match=r"line 2: .*'champoin'.*Did you mean champion\?"):
        pipeline_parameters(store, "champion", HitParams)


def test_settings_on_the_command_line_suggest_the_nearest_name():
    with pytest.raises(ParameterError, match=r"unknown parameter 'treshold'.*Did you mean threshold\?"):
        Peakfinder8Params.from_settings(["treshold=3"])
    with pytest.raises(ParameterError) as caught:
        Peakfinder8Params.from_settings(["colour=3"])
    assert "Did you mean" not in str(caught.value)


def refined(store, number):
    """Put a geometry where the one refined from a run lies; return its path."""
    path = refined_geometry_path(store, f"lyso-r{number:04d}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return path


def test_geometry_auto_gives_each_run_the_one_refined_from_the_last_run_before_it(store):
    settings(store, "geometry: auto\n")
    given = store.raw_root / "lyso" / "a.geom"
    paths = {number: refined(store, number) for number in (2, 10)}
    taken = [read_experiment(store, RunKey("lyso", number)).geometry for number in (1, 2, 3, 10, 11)]
    assert taken == [given, given, paths[2], paths[2], paths[10]]


def test_a_run_keeps_the_geometry_that_it_was_ingested_with(store):
    settings(store, "geometry: auto\n")
    given, key = store.raw_root / "lyso" / "a.geom", RunKey("lyso", 5)
    manifest = manifest_path(store, str(key))
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    recipe = make_recipe("raw_run", code="1", parameters={}, inputs=[given])
    write_recipe(manifest, recipe, seconds=0.0)
    later = refined(store, 4)

    assert read_experiment(store, key).geometry == given
    assert read_experiment(store, key, anew=True).geometry == later


def test_groups_are_read_in_their_order_and_their_mistakes_told_with_their_lines(store):
    key = RunKey("lyso", 1)
    settings(store, "groups:\n  dark: {every: 5, at: 4}\n  light: {data_set: /evr, equals: 1}\n")
    read = read_experiment(store, key).groups
    assert list(read) == ["dark", "light"]
    assert read["dark"].at == (4,)
    settings(
        store,
        "groups:\n  dark:\n    evry: 5\n  light: 3\n  late: {data_set: /delay, below: soon}\n"
        "  odd: {every: 2, at: 2}\n  'a/b': {every: 2}\n",
    )
    with pytest.raises(ParameterError) as caught:
        read_experiment(store, key)
    for part in (
        "line 3: unknown parameter 'evry'",
        "Did you mean every?",
        "line 4: group light is not a rule",
        "line 5: groups.late.below: cannot be read",
        "line 6: groups.odd: a place outside the period",
        "line 7: not a group's name",
    ):
        assert part in str(caught.value), part
