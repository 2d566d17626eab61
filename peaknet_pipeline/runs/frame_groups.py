"""Groups of a run's frames: light and dark, delays, samples, by rules that the experiment declares.

A frame belongs to the first group whose rule holds for it, and to none, the empty name, where no rule does. All conditions
of a rule must hold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import BoolArray, Float64Array

MAX_NAME = 64
"""Letters of a group's name."""

ReadValues = Callable[[str], Float64Array]
"""Gives a data set of the run's file, (n_frames, k): one value per frame, or several, as event codes are."""


@dataclass(frozen=True)
class GroupRule(Parameters):
    """Which frames belong to a group."""

    every: int = parameter(
        0, meaning="period of the frame numbers; 0 = frames are not divided by number", ge=0
    )
    at: tuple[int, ...] = parameter((0,), meaning="places in the period, from 0, that belong to the group")
    first_frame: int = parameter(0, meaning="frame number at which the period begins", ge=0)
    data_set: str | None = parameter(
        None, meaning="place in the run's file with a number, or several such as event codes, for each frame"
    )
    equals: float | None = parameter(None, meaning="number that the frame must have there")
    contains: float | None = parameter(None, meaning="number that must be among the frame's")
    least: float | None = parameter(None, meaning="least number that the frame may have there")
    below: float | None = parameter(None, meaning="number that the frame's must be less than")
    in_runs: tuple[int, ...] = parameter((), meaning="runs that belong to the group; none named = all")

    def __post_init__(self) -> None:
        """Check what concerns several parameters at once.

        Raises
        ------
        ParameterError
            A place is outside the period, a condition has no data set, or the other way round; or nothing is asked at all.

        """
        super().__post_init__()
        conditions = [name for name in CONDITIONS if getattr(self, name) is not None]
        if self.every and not all(0 <= place < self.every for place in self.at):
            raise ParameterError(
                "a place outside the period", where="at", expected=f"0 … {self.every - 1}", found=self.at
            )
        if conditions and self.data_set is None:
            raise ParameterError(f"{conditions[0]} without a data_set", where="GroupRule")
        if self.data_set is not None and not conditions:
            raise ParameterError(
                "data_set without a condition", where="GroupRule", expected=f"one of {', '.join(CONDITIONS)}"
            )
        if not (self.every or conditions or self.in_runs):
            found = sorted(item.name for item in fields(self) if getattr(self, item.name) != item.default)
            raise ParameterError(
                "a group of all frames", where="GroupRule", expected="every, data_set or in_runs", found=found
            )


CONDITIONS = ("equals", "contains", "least", "below")
"""What may be asked of the numbers in a data set."""


def group_of_frames(
    rules: Mapping[str, GroupRule], *, n_frames: int, run_number: int, read_values: ReadValues
) -> list[str]:
    """Return the group of each frame, (n_frames,), by its name; empty where no rule holds.

    Parameters
    ----------
    rules : mapping of name to GroupRule
        In the order in which they are asked.
    n_frames, run_number : int
    read_values : callable
        Is asked once for each data set.

    """
    values: dict[str, Float64Array] = {}
    names = np.full(n_frames, "", dtype=object)
    free = np.ones(n_frames, dtype=np.bool_)
    for name, rule in rules.items():
        if rule.in_runs and run_number not in rule.in_runs:
            continue
        holds = _holds_by_number(rule, n_frames)
        if rule.data_set is not None:
            if rule.data_set not in values:
                values[rule.data_set] = read_values(rule.data_set)
            holds &= _holds_by_value(rule, values[rule.data_set])
        names[free & holds] = name
        free &= ~holds
    return [str(name) for name in names]


def _holds_by_number(rule: GroupRule, n_frames: int) -> BoolArray:
    if not rule.every:
        return np.ones(n_frames, dtype=np.bool_)
    return np.isin((np.arange(n_frames) - rule.first_frame) % rule.every, rule.at)


def _holds_by_value(rule: GroupRule, values: Float64Array) -> BoolArray:
    """Tell for which frames the conditions hold; a frame without a number is in no group of numbers."""
    first = values[:, 0]
    holds = np.ones(len(values), dtype=np.bool_)
    if rule.equals is not None:
        holds &= first == rule.equals
    if rule.contains is not None:
        holds &= (values == rule.contains).any(axis=1)
    if rule.least is not None:
        holds &= first >= rule.least
    if rule.below is not None:
        holds &= first < rule.below
    return holds
