"""Benchmarks by name; each module has ``run(**settings) -> dict`` of plain figures."""

import importlib
import inspect
import json
from collections.abc import Callable, Iterable
from typing import Any

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.params import did_you_mean

OPERATION = "operation"
"""The benchmark of Dagster itself, which is called from the room that knows it."""

NAMES = (
    "distillation",
    "finder",
    "finders",
    "fit",
    "gpu",
    "index",
    "labels",
    "loop",
    "merging",
    "model",
    "realism",
    "scale",
    "second-look",
    "shipped",
    "simulate",
    "stream",
)


ALL = tuple(sorted((*NAMES, OPERATION)))
"""Every name that ``peaknet bench`` takes."""


def run(name: str, settings: Iterable[str]) -> dict[str, Any]:
    """Run a benchmark with ``NAME=VALUE`` settings.

    Raises
    ------
    ParameterError
        No such benchmark or setting.

    """
    if name not in NAMES:
        raise ParameterError(
            "no such benchmark",
            expected=f"one of {', '.join(ALL)}",
            found=name,
            remedy=did_you_mean(name, ALL),
        )
    return call(
        name, importlib.import_module(f"peaknet_pipeline.bench.{name.replace('-', '_')}").run, settings
    )


def call(name: str, function: Callable[..., dict[str, Any]], settings: Iterable[str]) -> dict[str, Any]:
    """Call a benchmark's function with ``NAME=VALUE`` settings.

    Raises
    ------
    ParameterError
        No such setting.

    """
    values = dict(_setting(text) for text in settings)
    unknown = set(values) - set(inspect.signature(function).parameters)
    if unknown:
        accepted = ", ".join(inspect.signature(function).parameters) or "none"
        raise ParameterError(
            f"unknown settings {sorted(unknown)}",
            where=f"bench {name}",
            expected=accepted,
            remedy=did_you_mean(min(unknown), inspect.signature(function).parameters),
        )
    return function(**values)


def _setting(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ParameterError("not a setting", expected="NAME=VALUE", found=text)
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
