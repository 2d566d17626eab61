"""JSON written by others or by hand, read with a bound and as the declared types, or refused in one line."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.text_files import decode_text

MAX_JSON_BYTES = 256 * 2**20
UNREADABLE = (OSError, ValueError, RecursionError, MemoryError, OverflowError)
"""What reading a text raises: no file, no rights, no text or no JSON (both ValueErrors), thousands of levels."""

T = TypeVar("T")


def read_json(path: Path, *, error: type[PeaknetError], remedy: str | None = None) -> dict[str, Any]:
    """Read a file that holds one JSON object; ``error`` is raised where it doesn't."""
    try:
        text = read_bounded(path, MAX_JSON_BYTES)
    except UNREADABLE as why:
        raise error(f"not readable JSON ({describe(why)})", where=path, remedy=remedy) from why
    return parse_json(text, where=path, error=error, remedy=remedy)


def parse_json(
    text: str | bytes, *, where: Path | str, error: type[PeaknetError], remedy: str | None = None
) -> dict[str, Any]:
    """Return the JSON object that a text holds; ``error`` is raised where it holds none."""
    try:
        value = json.loads(text)
    except UNREADABLE as why:
        raise error(f"not readable JSON ({describe(why)})", where=where, remedy=remedy) from why
    if not isinstance(value, dict):
        raise error("not a JSON object", where=where, found=type(value).__name__, remedy=remedy)
    return value


def parse_list(text: str | bytes, *, where: Path | str, error: type[PeaknetError]) -> list[Any]:
    """Return the JSON list that a text holds; ``error`` is raised where it holds none."""
    try:
        value = json.loads(text)
    except UNREADABLE as why:
        raise error(f"not readable JSON ({describe(why)})", where=where) from why
    if not isinstance(value, list):
        raise error("not a JSON list", where=where, found=type(value).__name__)
    return value


def make_record(kind: type[T], values: object, *, where: Path | str, error: type[PeaknetError]) -> T:
    """Return a dataclass from names and values whose types are the declared ones; ``error`` names the first that is not."""
    if not isinstance(values, Mapping):
        raise error("not names and values", where=where, found=type(values).__name__)
    hints = get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise error("unknown field", where=where, expected=f"one of {', '.join(known)}", found=name)
        if not _fits(hints[name], value):
            told = getattr(hints[name], "__name__", str(hints[name]))
            raise error(f"field {name} has the wrong type", where=where, expected=told, found=repr(value))
    missing = [n for n, item in known.items() if n not in values and _is_needed(item)]
    if missing:
        raise error(f"field {missing[0]} is missing", where=where, found=f"fields {', '.join(values)}")
    return kind(**{name: _as_declared(hints[name], value) for name, value in values.items()})


def describe(error: BaseException) -> str:
    """Return what an exception says in one line, with its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def read_bounded(path: Path, limit: int) -> str:
    """Return a text file's content; ValueError if it holds more than ``limit`` bytes."""
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{size} bytes, at most {limit} expected")
    return decode_text(path.read_bytes())


def _is_needed(item: "dataclasses.Field[Any]") -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _fits(hint: Any, value: Any) -> bool:
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(arm, value) for arm in get_args(hint))
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(get_args(hint)[0], one) for one in value)
    if origin is not None:
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_small(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, hint)


def _is_small(value: float) -> bool:
    try:
        return float(value) == value or value != value
    except OverflowError:
        return False


def _as_declared(hint: Any, value: Any) -> Any:
    return tuple(value) if get_origin(hint) is tuple else value
