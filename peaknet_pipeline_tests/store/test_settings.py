"""Settings are checked whole when they are read: every problem at once, each with its line and the nearest name."""

import pytest
from click.testing import CliRunner

from peaknet_pipeline.cli import peaknet
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.hits import HitParams
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.store.experiment import read_experiment
from peaknet_pipeline.store.keys import RunKey
from peaknet_pipeline.store.layout import Store
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
