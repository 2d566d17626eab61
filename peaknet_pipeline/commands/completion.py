"""Completion of commands, options and their values by the shell."""

from pathlib import Path

import click
from click.shell_completion import get_completion_class

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.tell import tell

PLACES = {
    "bash": ".local/share/bash-completion/completions/peaknet",
    "zsh": ".zfunc/_peaknet",
    "fish": ".config/fish/completions/peaknet.fish",
}
"""Where a shell looks for its completions, below the home folder."""


@command()
@click.argument("shell", type=click.Choice(list(PLACES)))
@click.option("--show", is_flag=True, help="Print the script instead of installing it.")
def completion(shell: str, show: bool) -> None:
    """Install the completion of peaknet's commands, options and values for SHELL, in your home folder.

    It counts in the next shell that you open. Of zsh, ~/.zshrc must have: fpath+=~/.zfunc; autoload -Uz compinit; compinit
    """
    from peaknet_pipeline.atomic import write_file

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"no completion for {shell}")
    script = kind(
        click.get_current_context().find_root().command, {}, "peaknet", "_PEAKNET_COMPLETE"
    ).source()
    if show:
        tell(script)
        return
    path = Path.home() / PLACES[shell]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, script)
    tell(f"{path} written; open a new shell to use it")
