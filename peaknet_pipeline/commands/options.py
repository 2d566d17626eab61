"""Options that several commands share, and the printing of figures."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
DATA = click.option(
    "--data", type=PATH, default=Path("data"), envvar="PEAKNET_DATA", show_default=True, help="Data root."
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print the figures as one JSON object on the last line."
)
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set a parameter; may be repeated."
)


def figures(command: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """Make a command that returns figures print them, as lines or, with ``--json``, as one object."""

    @JSON
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, **kwargs: Any) -> None:
        result = command(*args, **kwargs)
        if as_json:
            click.echo(json.dumps(result, sort_keys=True, default=str))
            return
        for name, value in result.items():
            click.echo(f"{name.replace('_', ' '):>22}  {value}")

    return wrapped
