"""The command line as a whole: help, one-line errors, exit status."""

import click
import pytest

from peaknet_pipeline.cli import SECTIONS, main, peaknet


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of one command line."""
    status = 0
    try:
        main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, *capsys.readouterr()


def test_help_lists_every_command_under_exactly_one_heading(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    listed = [command for commands in SECTIONS.values() for command in commands]
    assert len(listed) == len({command.name for command in listed}) == len(peaknet.commands)
    for heading, commands in SECTIONS.items():
        section = out.split(f"{heading}:\n")[1].split("\n\n")[0]
        for command in commands:
            assert f"  {command.name} " in section


@pytest.mark.parametrize("command", list(peaknet.commands.values()), ids=lambda command: command.name)
def test_every_command_and_option_says_what_it_is_for(command):
    assert command.get_short_help_str()
    assert "``" not in (command.help or "")
    for option in (p for p in command.params if isinstance(p, click.Option) and p.name != "help"):
        assert option.help, f"{command.name} {option.opts}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["find"], "peaknet find: Missing argument 'RUN'"),
        (["fnd"], "Did you mean 'find'?"),
        (["find", "run.h5", "--colour"], "peaknet find: No such option"),
        (["find", "/nowhere/run.h5", "--out", "peaks.parquet"], "/nowhere/run.h5: no such file"),
        (["simulate", "--out", "x", "--runs", "none"], "peaknet simulate: Invalid value for '--runs'"),
    ],
)
def test_a_mistake_gives_one_line_and_status_2(capsys, arguments, expected):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert expected in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_data_root_or_experiment_that_is_not_there_is_named(capsys, tmp_path):
    for command in (["runs"], ["report", "lyso"], ["run", "lyso-r0001"]):
        status, _, err = run(capsys, *command, "--data", str(tmp_path / "nowhere"))
        assert status == 2
        assert f"no folder {tmp_path / 'nowhere'}" in err
    (tmp_path / "raw" / "lyso").mkdir(parents=True)
    (tmp_path / "raw" / "lyso" / "r0001.h5").write_bytes(b"")
    for command in ("runs", "report"):
        status, _, err = run(capsys, command, "lyzo", "--data", str(tmp_path))
        assert status == 2
        assert "Did you mean lyso?" in err
    assert not (tmp_path / "dagster_home").exists()


def test_completion_is_installed_where_the_shell_looks(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(capsys, "completion", "bash")[0] == 0
    script = (tmp_path / ".local/share/bash-completion/completions/peaknet").read_text()
    assert "_PEAKNET_COMPLETE=bash_complete" in script


def test_help_of_the_benchmarks_names_each_that_there_is(capsys):
    _, out, _ = run(capsys, "bench", "--help")
    _, _, err = run(capsys, "bench", "findre")
    names = err.split("one of ")[1].split(", found")[0]
    assert names in " ".join(out.split())
