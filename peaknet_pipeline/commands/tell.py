"""What a command says: on a terminal, nothing that a file holds is taken for one of the terminal's commands."""

import json
import math
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

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


def tell_json(value: Any) -> None:
    """Print a value as one line of JSON; a number that is not finite is null, for JSON has no sign for it."""
    tell(json.dumps(_finite(value), sort_keys=True, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None
