"""Data sets whose frames follow one another: one group per frame, or the numbered links of a master file.

A path such as ``/%/data`` stands for one data set in every group; the names that stood for ``%`` are the *event*, as
in CrystFEL, and take the placeholders' place in every other path of the geometry, too. Without placeholders, members of
one group whose names differ in a number alone are one run, in the order of the numbers.
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.files import LinkedFileMissingError, LinkedFiles
from peaknet_pipeline.hdf5.storage import address
from peaknet_pipeline.types import IntArray

MAX_SETS = 100_000
"""Data sets that one run may consist of."""

Event = tuple[str, ...]
_NUMBER = re.compile(r"[0-9]+")
_MASTERS_NAME = re.compile(r"data_[0-9]+")


@dataclass(frozen=True)
class FrameOrder:
    """How a run's frames are counted: data set by data set.

    Attributes
    ----------
    counts : tuple of int
        Frames in each data set.
    events : tuple of Event
        For each data set, what stands for the placeholders of a path; empty where there are none.
    is_cut : bool
        The run was planned to have more frames.

    """

    counts: tuple[int, ...]
    events: tuple[Event, ...]
    is_cut: bool = False

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return sum(self.counts)


def substitute(pattern: str, event: Event) -> str:
    """Return a path with its placeholders, in order, taken by an event's names; an event may be longer than needed.

    Raises
    ------
    RunError
        The path has more placeholders than the frames' data.

    """
    pieces = pattern.split("%")
    if len(pieces) - 1 > len(event):
        raise RunError(
            f"{pattern} has more placeholders than the data",
            expected=f"at most {len(event)} of %",
            found=len(pieces) - 1,
            remedy="Name the data in the geometry with as many placeholders (%).",
        )
    return pieces[0] + "".join(name + piece for name, piece in zip(event, pieces[1:], strict=False))


def find_events(files: LinkedFiles, pattern: str) -> list[Event]:
    """Return, for every data set that a path with placeholders stands for, what stands for them, in order of name.

    Raises
    ------
    RunError
        There is none, or absurdly many.

    """
    found: list[tuple[str, Event]] = [("", ())]
    for part in pattern.strip("/").split("/"):
        known: dict[tuple[int, int], list[tuple[str, Event]]] = {}
        every = (
            (f"{path}/{member}", (*event, *names))
            for path, event in found
            for member, names in _matching(files, path, part, known)
        )
        found = list(itertools.islice(every, MAX_SETS + 1))
        if len(found) > MAX_SETS:
            raise RunError(
                "absurdly many data sets", where=files.path, expected=f"≤ {MAX_SETS}", found=pattern
            )
    events = [event for path, event in found if files.find(path) is not None]
    if not events:
        raise RunError("no data set matches", where=files.path, expected=pattern)
    return events


def _matching(
    files: LinkedFiles, parent: str, part: str, known: dict[tuple[int, int], list[tuple[str, Event]]]
) -> list[tuple[str, Event]]:
    """Return the members of a group that one part of a path stands for, each with what stands for its placeholders.

    A group that was met before, by another link, is not looked through again.
    """
    if "%" not in part:
        return [(part, ())]
    group = files.find(parent or "/")
    if not isinstance(group, h5py.Group):
        return []
    if address(group) not in known:
        pattern = re.compile("(.+)".join(map(re.escape, part.split("%"))))
        matches = (pattern.fullmatch(name) for name, _ in files.members(group, MAX_SETS + 1))
        known[address(group)] = sorted((match[0], match.groups()) for match in matches if match)
    return known[address(group)]


@dataclass(frozen=True)
class Series:
    """Open data sets whose frames follow one another, their paths in the file, and their events.

    ``is_cut`` tells that data sets at the end are missing, as after an aborted run.
    """

    datasets: tuple[Any, ...]
    paths: tuple[str, ...]
    events: tuple[Event, ...]
    is_cut: bool = False


def open_series(files: LinkedFiles, path: str, *, named: bool = True) -> Series:
    """Open the data set at a path, and those that follow it.

    Parameters
    ----------
    files : LinkedFiles
    path : str
        May hold placeholders.
    named : bool
        Someone named the path: others count only if it is the first of a master file's numbered links.

    Raises
    ------
    RunError
        There is no data set, there are absurdly many, or one is missing before the last.

    """
    if "%" in path:
        events = tuple(find_events(files, path))
        paths = tuple(substitute(path, event) for event in events)
        return Series(tuple(files.dataset(one) for one in paths), paths, events)
    paths = numbered_paths(files, path, named=named)
    if len(paths) == 1:
        return Series((files.dataset(path),), paths, ((),))
    found = [_look(files, one) for one in paths]
    n = _until_gap(files, paths, found)
    return Series(tuple(found[:n]), paths[:n], ((),) * n, is_cut=n < len(paths))


def numbered_paths(files: LinkedFiles, path: str, *, named: bool = True) -> tuple[str, ...]:
    """Return the paths of a group's members that are one run with the one at ``path``, in the order of their numbers.

    Their names differ in a single number; they are links to other files, or hold frames of the same shape and type.

    Raises
    ------
    RunError
        There are absurdly many, or the numbers of stacks have a gap.

    """
    parent, _, own = path.rpartition("/")
    group = files.find(parent or "/")
    if not isinstance(group, h5py.Group):
        return (path,)
    numbered = _same_but_for_a_number(own, files.names(group, MAX_SETS + 1))
    links = {name: files.link(group, name) for _, name in numbered}
    external = {name for name, link in links.items() if isinstance(link, h5py.ExternalLink)}
    if named and not (
        numbered and numbered[0][1] == own and (_MASTERS_NAME.fullmatch(own) or own in external)
    ):
        return (path,)
    reference = _frame_type(files, path)
    alike = {name for _, name in numbered if _frame_type(files, f"{parent}/{name}") == reference is not None}
    kept = [(number, name) for number, name in numbered if name in {own, *external, *alike}]
    if len(kept) > MAX_SETS:
        raise RunError("absurdly many linked data sets", where=files.path, found=len(kept))
    if reference is None or len(reference) > 3:  # stacks of frames, not a data set per frame
        _check_numbers(files, kept)
    return tuple(f"{parent}/{name}" for _, name in kept) or (path,)


def was_written(dataset: Any) -> bool:
    """Tell whether a data set holds values at all; one that was only declared has none."""
    stored = dataset.chunks is None or dataset.is_virtual or dataset.id.get_storage_size() > 0
    return bool(stored)


def missing_frames(dataset: Any, frame_axis: int | None) -> IntArray:
    """Return the numbers of frames of which no chunk was ever written, (n,); none where that can't be told."""
    none: IntArray = np.empty(0, dtype=np.int64)
    if (
        frame_axis is None
        or not isinstance(dataset, h5py.Dataset)
        or dataset.is_virtual
        or not dataset.chunks
    ):
        return none
    wanted = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    if dataset.id.get_num_chunks() >= wanted:
        return none
    step, n = dataset.chunks[frame_axis], dataset.shape[frame_axis]
    there = np.zeros(-(-n // step), dtype=np.bool_)

    def mark(chunk: Any) -> None:
        there[chunk.chunk_offset[frame_axis] // step] = True

    dataset.id.chunk_iter(mark)
    return np.flatnonzero(~np.repeat(there, step)[:n])


def _same_but_for_a_number(own: str, names: Sequence[str]) -> list[tuple[int, str]]:
    """Return number and name of those that differ from one name in a single number, the last that does."""
    for digits in reversed(list(_NUMBER.finditer(own))):
        before, after = re.escape(own[: digits.start()]), re.escape(own[digits.end() :])
        matches = [re.fullmatch(f"{before}([0-9]+){after}", name) for name in names]
        found = sorted((int(match[1]), match[0]) for match in matches if match)
        if len(found) > 1:
            return found
    return []


def _frame_type(files: LinkedFiles, path: str) -> tuple[object, ...] | None:
    """Return number of dimensions, type and shape of a data set's frames; None where there is no data set."""
    try:
        found = files.find(path)
    except LinkedFileMissingError:
        return None
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        return None
    return (found.dtype, *((None, *found.shape[1:]) if found.ndim > 2 else found.shape))


def _check_numbers(files: LinkedFiles, members: Sequence[tuple[int, str]]) -> None:
    numbers = [number for number, _ in members]
    steps = {b - a for a, b in itertools.pairwise(numbers)}
    if len(steps) > 1:
        gap = next(i for i, (a, b) in enumerate(itertools.pairwise(numbers)) if b - a != min(steps))
        raise RunError(
            "numbered data sets have a gap",
            where=files.path,
            expected=f"one numbered {numbers[gap] + min(steps)} after {members[gap][1]}",
            found=members[gap + 1][1],
            remedy="Name one data set with the geometry's data, or complete the file.",
        )


def _look(files: LinkedFiles, path: str) -> Any:
    """Return the data set at a path; where it holds no frames or its file is missing, the error that says so."""
    if not files.has_link(path):
        return RunError("no such data set", where=files.path, found=path)
    try:
        found = files.find(path)
    except LinkedFileMissingError as error:
        return error
    if found is None:
        return RunError("a link that leads nowhere", where=files.path, found=path)
    dataset = files.dataset(path)
    if 0 in (dataset.shape or ()):
        return RunError(f"{path} has no frames", where=files.path, found=f"shape {dataset.shape}")
    return dataset if was_written(dataset) else RunError(f"{path} was never written", where=files.path)


def _until_gap(files: LinkedFiles, paths: Sequence[str], found: Sequence[Any]) -> int:
    """Return how many data sets come before the first missing one; doubt the end, refuse a gap before more frames."""
    missing = [i for i, one in enumerate(found) if isinstance(one, RunError)]
    if not missing:
        return len(paths)
    first, error = missing[0], found[missing[0]]
    if first == 0 and len(missing) == len(found):
        raise error
    what = f"{error.what} ({error.found})" if error.found else error.what
    if len(missing) < len(found) - first:
        raise RunError(
            f"frames are missing in the middle: {paths[first]}: {what}",
            where=files.path,
            expected="every data set before the last one with frames",
            remedy="Copy the missing file beside the run.",
        )
    names = ", ".join(paths[i].rpartition("/")[2] for i in missing[:5]) + (" …" if len(missing) > 5 else "")
    files.doubt(
        f"The run ends after {first} of {len(paths)} data sets; without frames are {names}. {paths[first]}: {what}. "
        "A run that was stopped looks like this; else copy what is missing beside the run."
    )
    return first
