"""Settings files as they stand: values, and the line of every name, so that an error can say where to look."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.records import UNREADABLE, describe
from peaknet_pipeline.text_files import decode_text

MAX_BYTES = 2**20
Names = tuple[str, ...]


@dataclass(frozen=True)
class SettingsText:
    """What a settings file says.

    Attributes
    ----------
    path : Path
    values : dict
        Its names and values; empty where there is no file, or nothing in it.
    lines : mapping from names, outermost first, to line numbers from 1

    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[Names, int]

    def where(self, *names: object) -> str:
        """Return the file, with the line on which the names stand."""
        line = self.lines.get(tuple(map(str, names)))
        return str(self.path) if line is None else f"{self.path}, line {line}"

    def check_names(self, known: Iterable[str]) -> None:
        """Raise ParameterError unless every outermost name is one of ``known``; the error names the nearest one."""
        names = tuple(known)
        for name in self.values:
            if name not in names:
                near = did_you_mean(name, names)
                raise ParameterError(
                    f"unknown settings ['{name}']",
                    where=self.where(name),
                    expected=f"one of {', '.join(names)}",
                    remedy=near,
                )

    def section(self, name: str) -> Mapping[Any, Any]:
        """Return what stands under a name, which must be names and values themselves; empty where it isn't there.

        Raises
        ------
        ParameterError
            Something else stands there.

        """
        values = self.values.get(name)
        if values is None:
            return {}
        if not isinstance(values, dict):
            raise ParameterError(
                f"section {name} is not a mapping",
                where=self.where(name),
                expected="NAME: VALUE lines",
                found=type(values).__name__,
            )
        return values


def did_you_mean(name: object, known: Iterable[str]) -> str | None:
    """Return the question that names the nearest of the known names; None where none is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else None


def read_settings_text(path: Path) -> SettingsText:
    """Read a YAML file of settings; one that isn't there says nothing.

    Raises
    ------
    ParameterError
        It can't be read, is no YAML, holds no names and values, or gives one name twice; the line is told.

    """
    if not path.is_file():
        return SettingsText(path, {}, {})
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ParameterError("the file is too large", where=path, expected=f"≤ {MAX_BYTES} bytes")
        text = decode_text(content)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ParameterError(
                "YAML aliases (*name) are not read here", where=path, remedy="Write values out."
            )
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = {} if root is None else dict(_lines(path, root, ()))
        values = yaml.safe_load(text)
    except (yaml.YAMLError, *UNREADABLE, LookupError, TypeError, AttributeError) as error:
        raise ParameterError(
            f"not readable as YAML ({describe(error)})", where=_place(path, error)
        ) from error
    if values is not None and not isinstance(values, dict):
        raise ParameterError(
            "not a mapping", where=path, expected="NAME: VALUE lines", found=type(values).__name__
        )
    return SettingsText(path, values or {}, lines)


def _place(path: Path, error: BaseException) -> str:
    mark = getattr(error, "problem_mark", None)
    return str(path) if mark is None else f"{path}, line {mark.line + 1}"


def _lines(path: Path, node: yaml.Node, names: Names) -> Iterator[tuple[Names, int]]:
    """Yield the names of a mapping and of the mappings in it, two deep, each with its line; a name given twice is refused."""
    if not isinstance(node, yaml.MappingNode) or len(names) > 1:
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen:
            raise ParameterError(f"{name} is given twice", where=path, found=f"lines {seen[name]} and {line}")
        seen[name] = line
        yield (*names, name), line
        yield from _lines(path, value, (*names, name))
