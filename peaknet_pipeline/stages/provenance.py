"""Which inputs, parameters and code an output was made from; kept beside it, and compared before anything is made again."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.tables import write_json

LARGE_BYTES = 32 * 2**20
"""Files from here on are known by size and time of change instead of a hash of their content."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an output's content."""

    stage: str
    code: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]

    def digest(self) -> str:
        """Return a short hash of the whole recipe."""
        return digest_of([self.stage, self.code, self.parameters, self.inputs])


def code_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("peaknet-pipeline")
    except PackageNotFoundError:
        return "uninstalled"


def now() -> str:
    """Return the present time, UTC, as 2026-01-31T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def digest_of(value: object) -> str:
    """Return a short hash of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return a short hash of a file's content."""
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
    return Recipe(stage, code, plain, {str(path.absolute()): input_digest(path) for path in inputs})


def write_recipe(
    output: Path,
    recipe: Recipe,
    *,
    seconds: float,
    figures: Mapping[str, Any] | None = None,
    failed_checks: Mapping[str, str] | None = None,
) -> None:
    """Record how ``output`` was made, and which checks it failed for what reason."""
    record = {
        "stage": recipe.stage,
        "code": recipe.code,
        "code_version": code_version(),
        "parameters": recipe.parameters,
        "inputs": recipe.inputs,
        "recipe": recipe.digest(),
        "content": file_digest(output),
        "seconds": round(seconds, 3),
        "made": now(),
        "figures": dict(figures or {}),
        "failed_checks": dict(failed_checks or {}),
    }
    write_json(recipe_path(output), record)


def read_recipe(output: Path) -> dict[str, Any] | None:
    """Return the record of how an output was made, or None where none was kept."""
    path = recipe_path(output)
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record if isinstance(record, dict) else None


def is_current(output: Path, *, code: str) -> bool:
    """Tell whether ``output`` stands as it was made, from inputs that haven't changed since, by this version of its stage."""
    record = read_recipe(output)
    if record is None or not output.is_file() or record.get("code") != code:
        return False
    inputs = {Path(name): digest for name, digest in record.get("inputs", {}).items()}
    return all(path.is_file() and input_digest(path) == digest for path, digest in inputs.items())


def input_digest(path: Path) -> str:
    """Return what identifies an input's content: its own recipe's content hash, else a hash, else size and time.

    Raises
    ------
    TableError
        The file does not exist.

    """
    if not path.is_file():
        raise TableError("input is missing", where=path, remedy="Materialize the stage that makes it first.")
    record = read_recipe(path)
    if record is not None:
        return str(record["content"])
    state = path.stat()
    return file_digest(path) if state.st_size < LARGE_BYTES else f"{state.st_size}-{state.st_mtime_ns}"
