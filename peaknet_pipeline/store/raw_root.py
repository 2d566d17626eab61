"""Everything under the raw root: the files of every run, and whatever is not taken, with the reason."""

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.provenance import digest_of
from peaknet_pipeline.runs.names import is_run_file_name
from peaknet_pipeline.store.keys import RunKey, parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.raw_folder import entry_problem, read_raw_folder

MAX_LISTED = 20
"""Names that are listed for one reason; of more, the rest are counted."""


@dataclass
class RawRoot:
    """What lies under the raw root.

    Attributes
    ----------
    runs : dict from key to files
        The files of every run, in the order of their frames.
    refused : dict from key to (path, reason)
        Runs that have files but can't be used.
    left_out : list of (path, reason)
        What belongs to no run, though it could.
    broken : dict from experiment to reason
        Experiments whose folder or settings can't be read, so that their runs aren't known.

    """

    runs: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    refused: dict[str, tuple[Path, str]] = field(default_factory=dict)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)

    def not_taken(self) -> list[tuple[Path, str]]:
        """Return all that is refused or left out, with the reasons, in the order of their paths."""
        return sorted({*self.left_out, *self.refused.values()})


def read_raw_root(store: Store) -> RawRoot:
    """Return what lies under the raw root; every entry is looked at by itself, so that a bad one changes nothing else."""
    found = RawRoot()
    for folder in _experiment_folders(store, found):
        raw = read_raw_folder(folder)
        if raw.problem:
            found.broken[folder.name] = raw.problem
            found.left_out.append((folder, raw.problem))
        found.runs |= {str(RunKey(folder.name, number)): files for number, files in raw.runs.items()}
        found.refused |= {str(RunKey(folder.name, number)): told for number, told in raw.refused.items()}
        found.left_out += raw.left_out
    return found


def _experiment_folders(store: Store, found: RawRoot) -> Iterator[Path]:
    """Yield the experiments' folders, by name; what could be one and can't is left out."""
    try:
        entries = sorted(store.raw_root.iterdir()) if store.raw_root.is_dir() else []
    except OSError as error:
        found.left_out.append((store.raw_root, f"can't be read ({error.strerror})"))
        return
    for path in entries:
        problem = entry_problem(path) or _no_experiment(path)
        if problem:
            found.left_out.append((path, problem))
        elif path.is_dir() and not path.name.startswith("."):
            yield path


def _no_experiment(path: Path) -> str:
    if not path.is_dir():
        where = "lies in no experiment's folder. Move it to raw/<experiment>/."
        return where if is_run_file_name(path) else ""
    if path.name.startswith("."):
        return ""
    try:
        parse_key(str(RunKey(path.name, 1)))
    except ParameterError as error:
        return f"the folder's name is no experiment's: {error}"
    return ""


def find_run_files(store: Store, key: RunKey) -> tuple[Path, ...]:
    """Return the raw files of a run, in the order of their frames; a folder is one run.

    Raises
    ------
    RunError
        No file bears the run's number, or those that do can't be one run.

    """
    folder = store.experiment_folder(key)
    raw = read_raw_folder(folder)
    if raw.problem:
        raise RunError(raw.problem, where=folder)
    if key.number in raw.refused:
        path, reason = raw.refused[key.number]
        raise RunError(reason, where=path)
    if key.number not in raw.runs:
        remedy = f"{len(raw.left_out)} files there are no runs: see `peaknet runs`." if raw.left_out else None
        raise RunError(
            f"run {key.number} has 0 raw files",
            where=folder,
            expected=f"a name such as r{key.number:04d}.h5",
            remedy=remedy,
        )
    return raw.runs[key.number]


def states_of(files: Collection[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield path and state of every file of a run, those in a folder one by one.

    Raises
    ------
    RunError
        A file can't be read.

    """
    for path in files:
        inside = (p for p in path.rglob("*") if not p.name.startswith(".")) if path.is_dir() else (path,)
        for file in sorted(inside):
            problem = entry_problem(file)
            if problem:
                raise RunError(problem, where=file.name)
            state = file.stat()
            if stat.S_ISREG(state.st_mode):
                yield file, state


def stamp_of(files: Collection[Path]) -> str:
    """Return what tells a run's files from others under the same names: names, sizes and times; empty if one can't be read."""
    try:
        return digest_of([[path.name, s.st_size, s.st_mtime_ns] for path, s in states_of(files)])
    except (OSError, RunError):
        return ""


def check_runs_have_files(store: Store, keys: Collection[str]) -> None:
    """Raise RunError unless every run has files that can be one run; all that have none are named at once.

    Raises
    ------
    ParameterError
        A text is no key.

    """
    raw = read_raw_root(store)
    wrong = {
        key: raw.refused.get(key)
        for key in sorted({str(parse_key(key)) for key in keys})
        if key not in raw.runs
    }
    if not wrong:
        return
    told = [key if why is None else f"{key} ({why[0].name}: {why[1]})" for key, why in wrong.items()]
    raise RunError(
        f"no raw file for {', '.join(told)}",
        where=store.raw_root,
        expected="a file such as <experiment>/r0001.h5",
        remedy="See `peaknet runs` for what lies there and isn't taken.",
    )


def format_not_taken(entries: Collection[tuple[Path, str]]) -> list[str]:
    """Return lines that tell what is not taken, entries with one reason together."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in entries:
        by_reason.setdefault(reason, []).append(f"{path.parent.name}/{path.name}")
    return [f"{len(names)} not taken: {_listed(names)}: {reason}" for reason, names in by_reason.items()]


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
