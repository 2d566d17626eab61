"""Whether outputs stand as they were made, from inputs that are current themselves: staleness is handed down the chain.

An output is current when it is what its recipe tells of, by this version of its stage, and every input is the one that it
was made from and is current itself. Some inputs count by their content alone (``TAKEN_AS_THEY_ARE``): they begin the next
turn of the loop, and following them would lead in a circle.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from peaknet_pipeline.provenance import describes, file_stamp, input_digest, read_recipe
from peaknet_pipeline.runs.names import is_run_file_name
from peaknet_pipeline.store.make_stage import CODE

TAKEN_AS_THEY_ARE: Mapping[str, frozenset[str]] = {
    "training_set": frozenset({"curated_labels"}),
    "peaknet_peaks": frozenset({"peaknet_teacher", "peaknet_student"}),
    "run_metrics": frozenset({"training_set"}),
}
"""Inputs of a stage, by the stage that made them, whose own staleness is no concern of its: labels of the turn before, a
network in use (a version that stays), the division into subsets that a run's rates are told with."""

CHOSEN = frozenset({"refined_geometry"})
"""What somebody chose as an input of any stage; it was made from outputs of that very stage."""


class Freshness:
    """Looks at outputs and remembers what it has seen: for one look at many outputs that share their inputs."""

    def __init__(self, *, follow: bool = True) -> None:
        """Follow inputs to what they were made from, or compare their content alone."""
        self._follow = follow
        self._problems: dict[str, str] = {}
        self._records: dict[str, Mapping[str, Any] | None] = {}
        self._sources: dict[tuple[str, str, str | None], str] = {}

    def remember(self, output: Path, record: Mapping[str, Any]) -> None:
        """Take the recipe of an output that was read already."""
        self._records[os.path.abspath(output)] = record  # noqa: PTH100  (see below)

    def problem(self, output: Path) -> str:
        """Return why an output is not current, the cause at the root of it first; empty where it is."""
        name = os.path.abspath(output)  # noqa: PTH100  (Path is slow, and this is asked for every input of every run)
        if name not in self._problems:
            self._problems[name] = "is made from itself"
            self._problems[name] = self._look(name, self._recipe(name))
        return self._problems[name]

    def _recipe(self, name: str) -> Mapping[str, Any] | None:
        if name not in self._records:
            self._records[name] = read_recipe(Path(name))
        return self._records[name]

    def _look(self, name: str, record: Mapping[str, Any] | None) -> str:
        path = Path(name)
        if record is None:
            return f"{path.name} has no recipe"
        if not path.is_file():
            return f"{path.name} is gone"
        stage = str(record.get("stage"))
        if record.get("code") != CODE.get(stage, record.get("code")):
            return f"{stage} was made by an earlier version"
        if not describes(record, path):
            return f"{path.name} is not what its recipe tells of"
        stamps = record.get("stamps", {})
        problems = (
            self._input_problem(stage, given, digest, stamps.get(given))
            for given, digest in record.get("inputs", {}).items()
        )
        return next((problem for problem in problems if problem), "")

    def _input_problem(self, stage: str, name: str, digest: str, stamp: str | None) -> str:
        path, made = Path(name), self._recipe(name)
        if made is None:
            asked = (name, digest, stamp)
            if asked not in self._sources:
                self._sources[asked] = _source_problem(path, digest, stamp)
            return self._sources[asked]
        if not path.is_file():
            return f"{path.name} is gone"
        maker = str(made.get("stage"))
        if self._follow and maker not in CHOSEN and maker not in TAKEN_AS_THEY_ARE.get(stage, ()):
            problem = self.problem(path)
            if problem:
                return problem
        return "" if made.get("content") == digest else f"{maker} was made again since"


def replaced_files(record: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Return what happened to a run's raw files since its manifest was made; empty where nothing did.

    ``record`` is the manifest's recipe, ``files`` are those that the run has now. Settings and geometry don't count.
    """
    now = [os.path.abspath(path) for path in files]  # noqa: PTH100  (as above)
    inputs, stamps = record.get("inputs", {}), record.get("stamps", {})
    raw = [name for name in inputs if name in now or is_run_file_name(Path(name))]
    problems = (_source_problem(Path(name), inputs[name], stamps.get(name)) for name in raw)
    came = (f"{Path(name).name} came since" for name in now if raw and name not in inputs)
    return next((problem for problem in (*problems, *came) if problem), "")


def _source_problem(path: Path, digest: str, stamp: str | None) -> str:
    """Return what happened to an input that was not made here: a raw file, a geometry, settings."""
    try:
        if path.is_file() and stamp is not None and file_stamp(path) == stamp:
            return ""
        if path.is_file() or path.is_dir():
            return "" if input_digest(path) == digest else f"{path.name} was replaced or changed since"
    except OSError as error:
        return f"{path.name} can't be read ({error.strerror})"
    return f"{path.name} is gone"


def is_current(output: Path, *, code: str) -> bool:
    """Tell whether ``output`` is current (see :class:`Freshness`), made by the version ``code`` of its stage."""
    return _is_made_by(output, code) and not Freshness().problem(output)


def has_its_inputs(output: Path, *, code: str) -> bool:
    """Tell whether ``output`` stands as it was made, from inputs whose content hasn't changed, stale or not, since.

    Making it again would give the same, so that this is what decides whether there is something new to do.
    """
    return _is_made_by(output, code) and not Freshness(follow=False).problem(output)


def _is_made_by(output: Path, code: str) -> bool:
    record = read_recipe(output)
    return record is not None and record.get("code") == code
