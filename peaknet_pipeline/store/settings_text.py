"""Settings files as they stand: values, and the line of every name, so that an error can say where to look."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.params import Parameters, did_you_mean
from peaknet_pipeline.text_files import decode_text
from peaknet_pipeline.yaml_files import read_yaml

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

    def name_problems(self, known: Iterable[str]) -> Iterator[ParameterError]:
        """Yield an error for every outermost name that isn't one of ``known``; it names the nearest one."""
        names = tuple(known)
        for name in self.values:
            if name not in names:
                expected, near = f"one of {', '.join(names)}", did_you_mean(name, names)
                what = f"unknown settings ['{name}']"
                yield ParameterError(what, where=self.where(name), expected=expected, remedy=near)

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

    def section_problems(self, name: str, cls: type[Parameters]) -> Iterator[ParameterError]:
        """Yield an error for every parameter of a section that is unknown, of another type or out of its range."""
        try:
            values = self.section(name)
        except ParameterError as error:
            yield error
            return
        yield from self.mapping_problems((name,), values, cls)

    def mapping_problems(
        self, names: Names, values: Mapping[Any, Any], cls: type[Parameters]
    ) -> Iterator[ParameterError]:
        """Yield an error for every wrong parameter of a mapping, which stands under these names, outermost first."""
        found = False
        for parameter, value in values.items():
            try:
                cls.checked(str(parameter), value)
            except ParameterError as error:
                found = True
                yield self._at(error, *names, parameter)
        if not found:  # what concerns several of them at once
            try:
                cls.from_mapping(values)
            except ParameterError as error:
                yield self._at(error, *names)

    def _at(self, error: ParameterError, *names: object) -> ParameterError:
        """Return an error of a parameter set as one of this file: where it stands, and which parameter it is."""
        what = error.what if "parameter" in error.what else f"{'.'.join(map(str, names))}: {error.what}"
        return ParameterError(
            what, where=self.where(*names), expected=error.expected, found=error.found, remedy=error.remedy
        )


def join_problems(path: Path, problems: list[ParameterError]) -> ParameterError:
    """Return one error that tells all problems of a file."""
    if len(problems) == 1:
        return problems[0]
    told = "; ".join(
        f"({i}) {str(p).removeprefix(str(path)).lstrip(', :')}" for i, p in enumerate(problems, start=1)
    )
    return ParameterError(f"{len(problems)} problems: {told}", where=path)


def read_settings_text(path: Path) -> SettingsText:
    """Read a YAML file of settings; one that isn't there says nothing.

    Raises
    ------
    ParameterError
        It can't be read, is no YAML, holds no names and values, or gives one name twice; the line is told.

    """
    if not path.is_file():
        return SettingsText(path, {}, {})
    values = read_yaml(path, error=ParameterError)
    root = yaml.compose(decode_text(path.read_bytes()), Loader=yaml.SafeLoader)
    return SettingsText(path, values, {} if root is None else dict(_lines(path, root, ())))


def _lines(path: Path, node: yaml.Node, names: Names) -> Iterator[tuple[Names, int]]:
    """Yield the names of a mapping and of the mappings in it, three deep, with their lines; a name given twice is refused."""
    if not isinstance(node, yaml.MappingNode) or len(names) > 2:
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen:
            raise ParameterError(f"{name} is given twice", where=path, found=f"lines {seen[name]} and {line}")
        seen[name] = line
        yield (*names, name), line
        yield from _lines(path, value, (*names, name))
