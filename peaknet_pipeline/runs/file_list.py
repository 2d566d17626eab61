"""List files as CrystFEL's programs take them: a file per line, or a file and the event of one of its frames.

A line without an event stands for every frame of its file. An event is ``names//number``: the names stand for the
placeholders of the data's path, one after another (``tag-1024//``), the number counts frames from 0 (``//12``).
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.joined import RunPart, join_runs
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.text_files import read_text
from peaknet_pipeline.types import Geometry

LIST_SUFFIXES = (".lst", ".list")
MAX_BYTES = 2**28
_WITH_EVENT = re.compile(r"(?P<name>.*\S)\s+(?P<event>\S*//\S*)")


@dataclass(frozen=True)
class ListLine:
    """A line of a list: its number from 1, its file, and the event of its frame; None for every frame of the file."""

    number: int
    file: Path
    event: str | None


def is_list(path: Path) -> bool:
    """Tell whether a file is named like a list of files."""
    return path.suffix.lower() in LIST_SUFFIXES


def read_file_list(path: Path) -> list[ListLine]:
    """Read a list of files; names that aren't absolute are below the list's folder, or else the working directory.

    Raises
    ------
    RunError
        The list is missing, empty or no text, or names files that aren't there; the first is told with its line.

    """
    remedy = "Write a file's path on each line."
    text = read_text(path, kind="list of files", error=RunError, max_bytes=MAX_BYTES, remedy=remedy)
    found: dict[str, Path | None] = {}
    lines, missing = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        name, event = _split(line.strip(), path, found)
        file = _find(name, path, found)
        if file is None:
            missing.append(f"line {number}: {name}")
        else:
            lines.append(ListLine(number, file, event))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        expected = f"files below {path.resolve().parent} or {Path.cwd()}, or absolute paths"
        raise RunError("listed files are missing", where=path, expected=expected, found=missing[0] + more)
    if not lines:
        raise RunError("the list names no files", where=path, remedy=remedy)
    return lines


def open_listed(path: Path, open_file: Callable[[Path], Run], geometry: Geometry | None) -> Run:
    """Open the frames that a list names as one run, in the order of its lines.

    Parameters
    ----------
    path : Path
        The list.
    open_file : callable
        Opens one of its files.
    geometry : Geometry, optional
        What the files are opened with.

    Raises
    ------
    RunError
        A file cannot be opened or lacks an event (the line is told), or files don't belong together.

    """
    runs: dict[Path, Run] = {}
    parts = []
    try:
        for file, lines in itertools.groupby(read_file_list(path), key=lambda line: line.file):
            if file not in runs:
                runs[file] = open_file(file)
            parts += _parts(runs[file], list(lines), path)
        return join_runs(parts, path, geometry=geometry, file_format="list")
    except BaseException:
        for run in runs.values():
            run.close()
        raise


def _parts(run: Run, lines: Sequence[ListLine], path: Path) -> list[RunPart]:
    """Return the parts of a run that neighbouring lines of one file name."""
    parts = []
    for whole, some in itertools.groupby(lines, key=lambda line: line.event is None):
        if whole:
            parts += [RunPart(run) for _ in some]
        else:
            frames = [frame_of_event(run, line.event or "", f"{path}, line {line.number}") for line in some]
            parts.append(RunPart(run, np.array(frames, dtype=np.int64)))
    return parts


def frame_of_event(run: Run, event: str, where: str) -> int:
    """Return the number within an open file of the frame that an event names.

    Raises
    ------
    RunError
        The file has no such event, or fewer frames.

    """
    names, _, number = event.partition("//")
    order = run.sources[0].order
    wanted = tuple(name for name in names.split("/") if name)
    first, count = 0, order.n_frames
    if wanted or len(set(order.events)) > 1:
        if wanted not in order.events:
            known = ", ".join("/".join(one) + "//" for one in order.events[:3])
            remedy = "Give the geometry whose data has placeholders (%), and the events of this file."
            raise RunError(
                "no such event", where=where, expected=f"events such as {known}", found=event, remedy=remedy
            )
        index = order.events.index(wanted)
        first, count = sum(order.counts[:index]), order.counts[index]
    if not (number or "0").isdecimal() or int(number or "0") >= count or (not number and count > 1):
        raise RunError("no such frame", where=where, expected=f"//0 … //{count - 1}", found=event)
    return first + int(number or "0")


def _split(text: str, path: Path, found: dict[str, Path | None]) -> tuple[str, str | None]:
    """Return a line's file and event; a file whose own name looks like both counts first."""
    match = _WITH_EVENT.fullmatch(text)
    if match is None or _find(text, path, found) is not None:
        return text, None
    return match["name"], match["event"]


def _find(name: str, path: Path, found: dict[str, Path | None]) -> Path | None:
    if name not in found:
        places = (folder / name for folder in (path.resolve().parent, Path.cwd()))
        found[name] = next((place for place in places if _is_file(place)), None)
    return found[name]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False
