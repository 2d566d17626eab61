"""What a command says: on a terminal, nothing that a file holds is taken for one of the terminal's commands."""

import sys

import click

from peaknet_pipeline.errors import printable


def tell(message: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a message to standard output or, with ``err``, to standard error.

    Control characters are shown escaped, and so is what the output's encoding has no sign for.
    """
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = printable(str(message)).encode(encoding, "backslashreplace").decode(encoding)
    click.echo(text, err=err, nl=nl)
