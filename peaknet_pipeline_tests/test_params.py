"""Parameters: declared once, checked always."""

import math
from dataclasses import dataclass

import pytest

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.params import Parameters, parameter


@dataclass(frozen=True)
class Sample(Parameters):
    """A parameter set with one field of each kind."""

    threshold: float = parameter(10.0, meaning="floor", unit="adu", gt=0)
    count: int = parameter(2, meaning="pixels", ge=1, le=9)
    mode: str = parameter("exact", meaning="statistics", choices=("exact", "sampled"))
    fast: bool = parameter(False, meaning="speed")
    limit: float | None = parameter(None, meaning="optional")
    keys: tuple[str, ...] = parameter((), meaning="list")


def test_settings_are_converted_to_the_declared_types():
    made = Sample.from_settings(
        ["threshold=3.5", "count=4", "mode=sampled", "fast=true", "limit=2", "keys=a,b"]
    )
    assert made == Sample(3.5, 4, "sampled", True, 2.0, ("a", "b"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("threshold=0", "> 0"),
        ("threshold=nan", "not a finite number"),
        ("count=0", "≥ 1"),
        ("count=10", "≤ 9"),
        ("count=2.5", "type int"),
        ("mode=best", "one of"),
        ("fast=perhaps", "type bool"),
        ("treshold=3", "unknown parameter 'treshold'"),
        ("threshold", "NAME=VALUE"),
    ],
)
def test_bad_settings_are_refused_with_what_is_allowed(setting, message):
    with pytest.raises(ParameterError, match=message):
        Sample.from_settings([setting])


def test_the_digest_tells_values_apart_and_nothing_else():
    assert Sample().digest() == Sample(threshold=10.0).digest()
    assert Sample().digest() != Sample(threshold=math.nextafter(10.0, 11.0)).digest()
