"""What an experiment's folder holds: the files of each run, and every entry that is left out, with the reason.

Each entry is looked at by itself: one that can't be read is left out and changes nothing for the others.
"""

import errno
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import ParameterError, PeaknetError, RunError
from peaknet_pipeline.runs.file_list import is_list
from peaknet_pipeline.runs.names import (
    RUN_SUFFIXES,
    STORE_SUFFIX,
    RunName,
    files_of_run,
    is_master,
    is_run_file_name,
    master_of,
    natural_order,
    read_run_name,
)
from peaknet_pipeline.store.settings_text import SettingsText, read_settings_text

SETTINGS_FILE = "experiment.yaml"
MAX_NUMBER = 999_999
REMEDY = "Rename it, or name it under runs: in experiment.yaml (runs: {13: FILE})."
Given = Mapping[int, tuple[Path, ...]]


@dataclass
class RawFolder:
    """The runs of an experiment's folder.

    Attributes
    ----------
    runs : dict from run number to files
        The files of each run, in the order of their frames; a folder is one run.
    refused : dict from run number to (path, reason)
        Runs that have files but can't be used.
    left_out : list of (path, reason)
        Entries that belong to no run.
    problem : str
        Why the whole folder can't be used; empty where it can.

    """

    runs: dict[int, tuple[Path, ...]] = field(default_factory=dict)
    refused: dict[int, tuple[Path, str]] = field(default_factory=dict)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    problem: str = ""


def read_raw_folder(folder: Path) -> RawFolder:
    """Return what an experiment's folder holds: runs by their names, and by the section ``runs`` of ``experiment.yaml``."""
    found = RawFolder(problem=entry_problem(folder))
    if found.problem:
        return found
    try:
        entries = sorted(folder.iterdir(), key=natural_order)
        settings = read_settings_text(folder / SETTINGS_FILE)
        given = mapped_files(settings, entries)
    except (OSError, PeaknetError) as error:
        found.problem = _reason(error)
        return found
    for number, files in given.items():
        _take(found, number, files)
    given_files = {path for files in given.values() for path in files}
    used = {*given_files, *(path.parent for path in given_files), *_files_in(folder, settings.values)}
    named = _read_names(found, [path for path in entries if path not in used], given)
    for number, group in named.items():
        _take_named(found, number, group)
    return found


def mapped_files(settings: SettingsText, entries: Iterable[Path]) -> Given:
    """Return the files that ``experiment.yaml`` gives to run numbers, under ``runs``, in the order given there.

    Parameters
    ----------
    settings : SettingsText
    entries : iterable of Path
        What lies in the experiment's folder: a name that is spelt with other Unicode marks is found among them.

    Raises
    ------
    ParameterError
        What stands there isn't run numbers with one name, or a list of names, each; a name leads out of the folder, or is
        given to two runs.

    """
    by_name = {_plain(path.name): path for path in entries}
    given: dict[int, tuple[Path, ...]] = {}
    owner: dict[Path, int] = {}
    for number, names in settings.section("runs").items():
        files = tuple(
            by_name.get(_plain(name), settings.path.parent / name) for name in _names(settings, number, names)
        )
        for path in files:
            if owner.setdefault(path, number) != number:
                found = f"runs {owner[path]} and {number}"
                raise ParameterError(
                    f"{path.name} is given to two runs", where=settings.where("runs", number), found=found
                )
        given[number] = files
    return given


def _names(settings: SettingsText, number: object, names: object) -> list[str]:
    listed: list[Any] = names if isinstance(names, list) else [names]
    is_number = isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= MAX_NUMBER
    if not is_number or not listed or not all(isinstance(name, str) for name in listed):
        raise ParameterError(
            "not a run number with its files",
            where=settings.where("runs", number),
            expected="lines such as 13: lyso_a.h5 or 14: [first.h5, second.h5]",
            found=f"{number}: {names}",
        )
    for name in listed:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ParameterError(
                "path leads out of its folder",
                where=settings.where("runs", number),
                expected="a name in the experiment's folder",
                found=name,
            )
    return listed


def entry_problem(path: Path) -> str:
    """Return why a file or folder can't be read, in words; empty where it can. A named pipe is never opened."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return _link_problem(path, error)
    if stat.S_ISREG(mode):
        return "" if os.access(path, os.R_OK) else "may not be read (permission denied)"
    if stat.S_ISDIR(mode):
        return "" if os.access(path, os.R_OK | os.X_OK) else "the folder may not be read (permission denied)"
    return "a named pipe (FIFO) or device, not a file"


def _link_problem(path: Path, error: OSError) -> str:
    if not path.is_symlink():
        return "no such file" if error.errno == errno.ENOENT else f"can't be looked at ({error.strerror})"
    if error.errno == errno.ELOOP:
        return "a link that leads in a circle"
    if error.errno == errno.ENOENT:
        return f"a link to {path.readlink()}, which isn't there"
    return f"a link that can't be followed ({error.strerror})"


def _read_names(found: RawFolder, entries: list[Path], given: Given) -> dict[int, list[tuple[RunName, Path]]]:
    """Return the entries that are runs by their names, by number; the others are left out, or of no concern."""
    masters = {path for path in entries if is_master(path)}
    named: dict[int, list[tuple[RunName, Path]]] = {}
    for path in entries:
        if not _may_be_run(path) or _belongs_to_master(path, masters):
            continue
        try:
            name = _read_name(path)
        except RunError as error:
            found.left_out.append((path, f"{error.what}. {REMEDY}"))
            continue
        if name.number in given:
            files = ", ".join(file.name for file in given[name.number])
            found.left_out.append((path, f"{SETTINGS_FILE} gives run {name.number} to {files}"))
            continue
        named.setdefault(name.number, []).append((name, path))
    return named


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises where a link leads into a forbidden folder)


def _read_name(path: Path) -> RunName:
    if _is_folder(path) and path.suffix.lower() in RUN_SUFFIXES:
        raise RunError("a folder with the name of a file")
    master = master_of(path)
    if master is not None:
        raise RunError(f"a data file whose master {master.name} isn't here")
    return read_run_name(path, is_folder=_is_folder(path) and path.suffix.lower() != STORE_SUFFIX)


def _may_be_run(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if not _is_folder(path) or path.suffix.lower() in RUN_SUFFIXES:
        return is_run_file_name(path)
    if path.suffix.lower() == STORE_SUFFIX:
        return True
    try:
        read_run_name(path, is_folder=True)
    except RunError:
        return not entry_problem(path) and bool(files_of_run(path))
    return True


def _belongs_to_master(path: Path, masters: set[Path]) -> bool:
    if path in masters:
        return False
    return any(path.stem.startswith(f"{master.stem[: -len('master')]}") for master in masters)


def _take_named(found: RawFolder, number: int, group: list[tuple[RunName, Path]]) -> None:
    """Take the files of one number as a run: one file, or the parts of one series without a gap.

    A list of files is a run only where no other file bears its number: many lie beside the runs whose frames they choose.
    """
    lists = [one for one in group if is_list(one[1])]
    if len(lists) < len(group):
        reason = f"a list beside the files of run {number}. To use it, name it under runs: in {SETTINGS_FILE}"
        found.left_out += [(path, reason) for _, path in lists]
        group = [one for one in group if one not in lists]
    group = sorted(group, key=lambda one: (one[0].part is None, one[0].part or 0, natural_order(one[1])))
    names, files = [name for name, _ in group], tuple(path for _, path in group)
    parts = [name.part for name in names if name.part is not None]
    if len(files) > 1 and (len({name.series for name in names}) > 1 or len(set(parts)) < len(files)):
        listed = ", ".join(path.name for path in files)
        reason = f"run {number} has {len(files)} raw files: {listed}. Keep one, or say which under runs: in {SETTINGS_FILE}."
        found.refused[number] = (files[0], reason)
        return
    missing = sorted(set(range(parts[0], parts[-1])) - set(parts)) if parts and not names[0].has_gaps else []
    if missing:
        reason = f"run {number} lacks part {', '.join(map(str, missing))} of {parts[0]} to {parts[-1]}"
        found.refused[number] = (files[0], reason)
        return
    _take(found, number, files)


def _take(found: RawFolder, number: int, files: tuple[Path, ...]) -> None:
    for path in files:
        problem = entry_problem(path)
        if problem:
            found.refused[number] = (path, f"run {number}: {problem}")
            return
    found.runs[number] = files


def _files_in(folder: Path, value: Any) -> Iterator[Path]:
    """Yield what a settings file may name: every text in it, as a path in its folder."""
    if isinstance(value, str):
        yield folder / value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _files_in(folder, one)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PeaknetError) else str(getattr(error, "strerror", None) or error)
