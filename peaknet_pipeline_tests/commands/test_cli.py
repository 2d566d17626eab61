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
