"""Which inputs, parameters and code an output was made from; kept beside it, and compared before anything is made again.

A recipe names its inputs from where it lies, so that a data root may be moved or mounted elsewhere.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.records import read_json
from peaknet_pipeline.tables import read_table_metadata, write_json
from peaknet_pipeline.version import code_version

NO_CONTENT = {"experiment.yaml": "runs", "pipeline.yaml": "sensor"}
"""The section of a settings file that decides which runs there are and not what is made of them: it counts for no output."""

LARGE_BYTES = 32 * 2**20
"""Files from here on are known by size and time of change instead of a hash of their content."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an output's content; inputs by absolute path."""

    stage: str
    code: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    stamps: Mapping[str, str] = field(default_factory=dict)
    """Size and times of the inputs that were not made here: while they stand, the content needn't be read again."""

    def digest(self) -> str:
        """Return a short hash of the whole recipe: the same wherever the folder lies that holds all inputs."""
        common = os.path.commonpath([str(Path(name).parent) for name in self.inputs]) if self.inputs else "/"
        inputs = {os.path.relpath(name, common): digest for name, digest in self.inputs.items()}
        return digest_of([self.stage, self.code, self.parameters, inputs])


def now() -> str:
    """Return the present time, UTC, as 2026-01-31T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def digest_of(value: object) -> str:
    """Return a short hash of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return a short hash of a file's content; of settings without the section that decides no content."""
    if path.name in NO_CONTENT:
        block = rf"^{NO_CONTENT[path.name]}:.*(?:\n|\Z)(?:[ \t].*(?:\n|\Z)|\n)*".encode()
        return hashlib.sha256(re.sub(block, b"", path.read_bytes(), flags=re.MULTILINE)).hexdigest()[:16]
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def recipe_path(output: Path) -> Path:
    """Return where an output's recipe lies."""
    return output.with_name(f"{output.name}.recipe.json")


def make_recipe(stage: str, *, code: str, parameters: Mapping[str, Any], inputs: Iterable[Path]) -> Recipe:
    """Describe an output to be made from these input files.

    Raises
    ------
    TableError
        An input does not exist.

    """
    plain = json.loads(json.dumps(parameters, default=str))
    paths = {str(path.absolute()): path for path in inputs}
    stamps = {name: file_stamp(path) for name, path in paths.items() if path.is_file()}
    return Recipe(stage, code, plain, {name: input_digest(path) for name, path in paths.items()}, stamps)


def origin_of(recipe: Recipe, *, run: str = "", model: str = "", manifest: str = "") -> dict[str, str]:
    """Return what an output says about itself in its own metadata, so that it can be traced wherever it is copied to.

    Parameters
    ----------
    recipe : Recipe
    run : str
        Partition key.
    model, manifest : str
        Model version, and hash of the training set's manifest, where a network took part.

    """
    return {
        "stage": recipe.stage,
        "run": run,
        "code_version": code_version(),
        "parameters_hash": digest_of(recipe.parameters),
        "model": model,
        "label_manifest": manifest,
        "recipe": recipe.digest(),
        "inputs": json.dumps(dict(recipe.inputs), sort_keys=True),
    }


def command_origin(
    command: str,
    parameters: Mapping[str, Any],
    inputs: Iterable[Path | None],
    *,
    model: str = "",
    manifest: str = "",
) -> dict[str, str]:
    """Return what an output of a ``peaknet`` command says about itself; inputs that weren't given are None."""
    given = [path for path in inputs if path is not None]
    recipe = make_recipe(f"peaknet {command}", code="", parameters=parameters, inputs=given)
    return origin_of(recipe, model=model, manifest=manifest)


def network_of(peaks: Path) -> dict[str, str]:
    """Return model version and training manifest that a peak table names; empty for classical peaks."""
    metadata = read_table_metadata(peaks)
    return {"model": metadata.get("model", ""), "manifest": metadata.get("label_manifest", "")}


def write_recipe(
    output: Path,
    recipe: Recipe,
    *,
    seconds: float,
    figures: Mapping[str, Any] | None = None,
    checks: Iterable[Mapping[str, Any]] = (),
) -> None:
    """Record how ``output`` was made, and what its checks said (``name``, ``passed``, ``description``)."""
    record = {
        "stage": recipe.stage,
        "code": recipe.code,
        "code_version": code_version(),
        "parameters": recipe.parameters,
        "inputs": {_seen_from(output, name): digest for name, digest in recipe.inputs.items()},
        "stamps": {_seen_from(output, name): stamp for name, stamp in recipe.stamps.items()},
        "recipe": recipe.digest(),
        "content": file_digest(output),
        "stamp": _stamp(output),
        "seconds": round(seconds, 3),
        "made": now(),
        "figures": dict(figures or {}),
        "checks": [dict(check) for check in checks],
    }
    write_json(recipe_path(output), record)


def read_recipe(output: Path) -> dict[str, Any] | None:
    """Return the record of how an output was made, its inputs by absolute path; None where there is none to be read."""
    path = recipe_path(output)
    if not path.is_file():
        return None
    try:
        record = read_json(path, error=TableError)
    except TableError:  # what has no usable record is made again
        return None
    parts = {part: record.get(part, {}) for part in ("inputs", "stamps")}
    if not all(isinstance(told, dict) for told in parts.values()):
        return None
    folder = str(output.absolute().parent)
    seen = {part: {_seen_by_all(folder, n): v for n, v in told.items()} for part, told in parts.items()}
    return {**record, **seen}


def _seen_from(output: Path, name: str) -> str:
    """Return an input's path from the folder of the output that was made from it."""
    return os.path.relpath(name, output.absolute().parent)


def _seen_by_all(folder: str, name: str) -> str:
    """Return the absolute path of an input, told as seen from a folder; absolute ones stay."""
    return os.path.normpath(os.path.join(folder, name))  # noqa: PTH118  (read for every input of every run)


def input_digest(path: Path) -> str:
    """Return what identifies an input's content: its own recipe's content hash, else a hash, else size and time.

    A folder (a EuXFEL run) is known by its files' names, sizes and times.

    Raises
    ------
    TableError
        The file does not exist, or is not the one that its recipe tells of.

    """
    if path.is_dir():
        return digest_of([(name, s.st_size, s.st_mtime_ns) for name, s in _entries(path, below=path)])
    if not path.is_file():
        raise TableError("input is missing", where=path, remedy="Materialize the stage that makes it first.")
    record = read_recipe(path)
    if record is None:
        return file_digest(path) if path.stat().st_size < LARGE_BYTES else _stamp(path)
    if not describes(record, path):
        raise TableError(
            "is not what its recipe tells of: a run was interrupted, or it was changed by hand",
            where=path,
            expected=f"content {record.get('content')}",
            remedy=f"Materialize {record.get('stage')} again.",
        )
    return str(record["content"])


def _stamp(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size}-{state.st_mtime_ns}"


def _entries(folder: Path, *, below: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and state of a folder's files, and of those in its folders (a Zarr store), by name."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _entries(entry, below=below)
        else:
            yield str(entry.relative_to(below)), entry.stat() if entry.exists() else entry.lstat()


def file_stamp(path: Path) -> str:
    """Return size, and times of change of content and of entry: equal ones mean that a file wasn't touched."""
    state = path.stat()
    return f"{state.st_size}-{state.st_mtime_ns}-{state.st_ctime_ns}"


def describes(record: Mapping[str, Any], output: Path) -> bool:
    """Tell whether an output is the one that was recorded; a killed run may have replaced it before its recipe."""
    return record.get("stamp") == _stamp(output) or record.get("content") == file_digest(output)
