"""What a command says: on a terminal, nothing that a file holds is taken for one of the terminal's commands."""

import click

from peaknet_pipeline.errors import printable


def tell(message: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a message, its control characters escaped, to standard output or, with ``err``, to standard error."""
    click.echo(printable(str(message)), err=err, nl=nl)
