"""Parameters declared once: default, unit, meaning and range, for Python, the command line and Dagster alike."""

import dataclasses
import difflib
import hashlib
import json
import math
import operator
import sys
import types as pytypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from peaknet_pipeline.errors import ParameterError


def parameter(
    default: Any,
    *,
    meaning: str,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare one field of a :class:`Parameters` dataclass: default, meaning, unit and allowed range."""
    metadata = {"meaning": meaning, "unit": unit, "ge": ge, "gt": gt, "le": le, "choices": choices}
    return field(default=default, metadata=metadata)


def declared(owner: "type[Parameters]", name: str, *, default: Any = dataclasses.MISSING) -> Any:
    """Declare a field as another set declares it; only its default may differ.

    Unit, meaning and range stay with their one owner.
    """
    item = next(item for item in dataclasses.fields(owner) if item.name == name)
    default = item.default if default is dataclasses.MISSING else default
    return field(default=default, metadata={**item.metadata, "owner": owner.__name__})


@dataclass(frozen=True)
class Parameters:
    """Base of all parameter sets; every instance is within its declared ranges."""

    def __post_init__(self) -> None:
        """Check every field against its declaration.

        Raises
        ------
        ParameterError
            Naming the first field out of range.

        """
        for item in dataclasses.fields(self):
            _check(type(self).__name__, item, getattr(self, item.name))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and values; unknown names are refused, strings converted to the declared type."""
        hints = get_type_hints(cls)
        known = {item.name for item in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise _unknown(cls, name, known)
        return cls(**{name: _convert(cls.__name__, name, hints[name], v) for name, v in values.items()})

    @classmethod
    def checked(cls, name: str, value: Any) -> None:
        """Refuse one unknown name or unfit value by itself, whatever the other parameters are."""
        known = {item.name: item for item in dataclasses.fields(cls)}
        if name not in known:
            raise _unknown(cls, name, known)
        _check(cls.__name__, known[name], _convert(cls.__name__, name, get_type_hints(cls)[name], value))

    @classmethod
    def from_settings(cls, settings: Iterable[str]) -> Self:
        """Build from ``NAME=VALUE`` strings, as given by ``--set`` on the command line."""
        return cls.from_mapping(read_settings(settings, where=cls.__name__))

    @classmethod
    def own(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the values whose names are parameters of this set."""
        known = {item.name for item in dataclasses.fields(cls)}
        return {name: value for name, value in values.items() if name in known}

    @classmethod
    def part_of(cls, whole: "Parameters") -> Self:
        """Return this set out of one that is composed of several."""
        return cls(**{item.name: getattr(whole, item.name) for item in dataclasses.fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Return names and values, ready for JSON."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """Return a short hash of all values, for provenance columns."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def composed(name: str, meaning: str, sets: Sequence[type[Parameters]]) -> type[Parameters]:
    """Return a parameter set that has the fields of several; the first set's where two have one of the same name."""
    module = sys._getframe(1).f_globals["__name__"]
    made = type(name, tuple(sets), {"__doc__": meaning, "__module__": module})
    return dataclass(frozen=True)(made)


def did_you_mean(name: object, known: Iterable[str]) -> str | None:
    """Return the question that names the nearest of the known names; None where none is near."""
    near = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else None


def read_settings(settings: Iterable[str], *, where: str) -> dict[str, str]:
    """Return names and values of ``NAME=VALUE`` strings; ParameterError, naming ``where``, if one is none."""
    pairs: dict[str, str] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise ParameterError("not a setting", where=where, expected="NAME=VALUE", found=setting)
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs


def _unknown(cls: type[Parameters], name: object, known: Iterable[str]) -> ParameterError:
    expected = f"one of {', '.join(sorted(known))}"
    what = f"unknown parameter {name!r}"
    return ParameterError(what, where=cls.__name__, expected=expected, remedy=did_you_mean(name, known))


def _check(owner: str, item: "dataclasses.Field[Any]", value: Any) -> None:
    meta = item.metadata
    where = f"{owner}.{item.name}"
    choices = meta.get("choices")
    if choices and value not in choices:
        raise ParameterError("not an allowed choice", where=where, expected=f"one of {choices}", found=value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise ParameterError("not a finite number", where=where, found=value)
    for name, sign, allowed in (("ge", "≥", operator.ge), ("gt", ">", operator.gt), ("le", "≤", operator.le)):
        bound = meta.get(name)
        if bound is not None and not allowed(value, bound):
            raise ParameterError("out of range", where=where, expected=f"{sign} {bound}", found=value)


def _convert(owner: str, name: str, hint: Any, value: Any) -> Any:
    where = f"{owner}.{name}"
    if get_origin(hint) in (Union, pytypes.UnionType):
        if value is None or value == "none":
            return None
        hint = next(arm for arm in get_args(hint) if arm is not type(None))
    if get_origin(hint) is tuple:
        parts = (
            value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
        )
        arm = get_args(hint)[0]
        return tuple(_convert(owner, name, arm, part) for part in parts)
    try:
        if hint is bool and isinstance(value, str):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                value.lower()
            ]
        if hint is int and isinstance(value, float) and value != int(value):
            raise ValueError
        return hint(value)
    except (ValueError, KeyError, TypeError) as error:
        raise ParameterError(
            "cannot be read", where=where, expected=f"a value of type {hint.__name__}", found=repr(value)
        ) from error
