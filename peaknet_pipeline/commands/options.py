"""Options that several commands share, and the printing of figures."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import Input
from peaknet_pipeline.commands.tell import tell, tell_json
from peaknet_pipeline.hits import MIN_PEAKS as MIN_PEAKS_OF_HIT

PATH = Input()


class DataRoot(click.Path):
    """A data root that is there, or the default one, which commands may find empty."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; a usage error if somebody named a folder that is not there."""
        path = Path(str(super().convert(value, param, ctx)))
        source = ctx.get_parameter_source(str(param.name)) if ctx is not None and param is not None else None
        if source is not click.core.ParameterSource.DEFAULT and not path.is_dir():
            self.fail(f"no folder {path}. `peaknet demo --data {path}` makes one to try with.", param, ctx)
        return path


def _data_option(kind: click.Path) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--data",
        type=kind,
        default=Path("data"),
        envvar="PEAKNET_DATA",
        show_default=True,
        help="Data root.",
    )


DATA, NEW_DATA = _data_option(DataRoot()), _data_option(click.Path(path_type=Path))
"""The data root, which must be there where it is named, and one that a command makes."""
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print the figures as one JSON object on the last line."
)
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set a parameter; may be repeated."
)
ROOTS = click.option(
    "--root",
    "roots",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="Folder that links in the run may lead into, besides the run's own; may be repeated.",
)
INVERT_MASKS = click.option(
    "--invert-mask",
    "invert_masks",
    is_flag=True,
    help="1 is good in masks that take more than half of the pixels: invert those.",
)
GEOMETRY = click.option("--geometry", type=PATH, required=True, help="CrystFEL geometry.")
RUN_GEOMETRY = click.option(
    "--geometry", type=PATH, help="CrystFEL geometry; needed unless the run carries its own."
)


class FinderName(click.Choice[str]):
    """The name of a finder; the list of finders is read when it is needed, so that other commands start at once."""

    def __init__(self) -> None:
        self.case_sensitive = True

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        """The finders' names."""
        from peaknet_pipeline.steps.finders import FINDERS

        return tuple(FINDERS)


def finder_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option ``--finder`` with this default."""
    told = "Classical (droplet: LCLS's) or, peaknet, neural."
    return click.option("--finder", type=FinderName(), default=default, show_default=True, help=told)


HITS_ONLY = click.option("--hits-only", is_flag=True, help="Write hits only (data reduction).")
MIN_PEAKS = click.option(
    "--min-peaks",
    type=click.IntRange(1),
    default=MIN_PEAKS_OF_HIT,
    show_default=True,
    help="Least peaks of a hit.",
)


def figures(command: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """Make a command that returns figures print them, as lines or, with ``--json``, as one object."""

    @JSON
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, **kwargs: Any) -> None:
        result = command(*args, **kwargs)
        if as_json:
            tell_json(result)
            return
        for line in figure_lines(result):
            tell(line)

    return wrapped


def figure_lines(figures: Mapping[str, Any], *, indent: str = "") -> Iterator[str]:
    """Lay figures out for a terminal: a line each, groups of figures indented below their name, rows as a table."""
    labels = {name: str(name).replace("_", " ") for name in figures}
    width = max((len(label) for label in labels.values()), default=0)
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield f"{indent}{labels[name]}"
            yield from figure_lines(value, indent=f"{indent}  ")
        elif _are_rows(value):
            yield f"{indent}{labels[name]}"
            yield from (f"{indent}  {line}" for line in _table(value))
        else:
            for number, one in enumerate(value if _are_texts(value) else [value]):
                yield f"{indent}{labels[name] if not number else '':<{width}}  {_plain(one)}"


def _plain(value: Any) -> str:
    """Return a figure as a person reads it: six digits, no sign of a zero, a dash where there is no number."""
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "–"
    return str((float(f"{value:.6g}") if abs(value) < 1e6 else round(value, 1)) + 0.0)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, str) for one in value)


def _are_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    flat = [_flatten(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    cells = [names, *([_plain(row.get(name, "")) for name in names] for row in flat)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells]


def _flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        label = str(name).replace("_", " ")
        if isinstance(value, Mapping):
            flat |= {f"{label} {inner}": figure for inner, figure in _flatten(value).items()}
        else:
            flat[label] = value
    return flat
