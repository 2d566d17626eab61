"""The chain behind any output: what made it, from what, up to the raw runs, and what is missing or has changed since."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import ModelError, TableError
from peaknet_pipeline.learn.checkpoint import CARD_FILE, WEIGHTS_FILE, read_card, weights_digest
from peaknet_pipeline.provenance import (
    digest_of,
    file_digest,
    input_digest,
    read_recipe,
    recipe_path,
)
from peaknet_pipeline.records import parse_json
from peaknet_pipeline.store.origin import told_inside

NAMED = ("stage", "run", "code_version", "parameters_hash", "model", "label_manifest", "recipe", "made")
"""What is told of every file that knows its origin."""


@dataclass(frozen=True)
class Step:
    """One file of a chain.

    ``origin`` holds what the file says of itself (the names in ``NAMED``, those that are known); it is empty for what
    was not made here, such as a raw run. ``shown_before`` marks a file whose inputs stand further up.
    """

    path: Path
    origin: Mapping[str, str]
    problems: tuple[str, ...] = ()
    inputs: tuple["Step", ...] = ()
    shown_before: bool = False

    def walk(self) -> Iterator["Step"]:
        """Yield this file and, in depth, what it was made from."""
        yield self
        for step in self.inputs:
            yield from step.walk()

    def to_dict(self) -> dict[str, Any]:
        """Return the chain as plain values."""
        return {
            "path": str(self.path),
            **self.origin,
            "problems": list(self.problems),
            "inputs": [step.to_dict() for step in self.inputs],
        }


def trace_file(path: Path) -> Step:
    """Return the chain behind a table, CXI file, model folder, label file or report.

    Raises
    ------
    TableError
        There is no such file, or it does not tell where it came from.

    """
    target = path / CARD_FILE if (path / CARD_FILE).is_file() else path
    if not target.exists():
        raise TableError("no such file", where=path, remedy="Name an output, or a model's folder.")
    step = _trace(target.absolute(), None, set())
    if not step.origin:
        raise TableError(
            "the file does not tell where it came from",
            where=path,
            expected=f"{recipe_path(target).name} beside it, or provenance inside a Parquet or CXI file",
        )
    return step


def _trace(path: Path, expected: str | None, seen: set[Path]) -> Step:
    if not path.exists():
        return Step(path, {}, ("missing",))
    origin, inputs, content = _read_origin(path)
    problems = [*_own_problems(path, content)]
    if not problems and expected is not None and input_digest(path) != expected:
        problems.append("changed since the output above was made from it")
    if path in seen:
        return Step(path, origin, tuple(problems), shown_before=True)
    seen.add(path)
    steps = tuple(_trace(path.parent / name, digest, seen) for name, digest in inputs.items())
    return Step(path, origin, tuple(problems), steps)


def _read_origin(path: Path) -> tuple[dict[str, str], dict[str, str], str]:
    """Return what is told of a file, its inputs with their digests, and the digest that its content had (or nothing)."""
    inside = told_inside(path)
    record = read_recipe(path) or {}
    inputs = record.get("inputs") or parse_json(inside.get("inputs", "{}"), where=path, error=TableError)
    told = {**inside, **{name: record[name] for name in NAMED if record.get(name)}}
    if record:
        told["parameters_hash"] = digest_of(record.get("parameters", {}))
    return {n: str(told[n]) for n in NAMED if told.get(n)}, dict(inputs), str(record.get("content", ""))


def _own_problems(path: Path, content: str) -> Iterator[str]:
    if content and path.is_file() and file_digest(path) != content:
        yield "its content is not what was written"
    if path.name == CARD_FILE:
        yield from _weights_problems(path.parent)


def _weights_problems(folder: Path) -> Iterator[str]:
    try:
        recorded = read_card(folder).weights
    except ModelError as error:
        yield f"its card cannot be read ({error})"
        return
    if not (folder / WEIGHTS_FILE).is_file():
        yield f"{WEIGHTS_FILE} is missing"
    elif recorded and weights_digest(folder) != recorded:
        yield f"{WEIGHTS_FILE} is not what the card was written for"


def format_trace(step: Step) -> str:
    """Return the chain as a tree for a terminal, then what it hangs on and every problem."""
    steps = list(step.walk())
    base = Path(os.path.commonpath([s.path.parent for s in steps]))
    lines = [f"below {base}", "", _line(step, base), *_branches(step, "", base), ""]
    for name, title in (("model", "model"), ("label_manifest", "label manifest"), ("code_version", "code")):
        values = sorted({s.origin[name] for s in steps if name in s.origin})
        lines.append(f"{title:>15}  {', '.join(values) or '–'}")
    sources = [s for s in steps if not s.origin]
    lines.append(f"{'sources':>15}  {len({s.path for s in sources})} files that were not made here")
    wrong = [f"{_from(base, s.path)}: {problem}" for s in steps for problem in s.problems]
    lines.append(f"{'problems':>15}  {len(wrong) or 'none: every file is as it was recorded'}")
    return "\n".join([*lines, *(f"{'':>15}  {text}" for text in wrong)])


def _from(base: Path, path: Path) -> str:
    return os.path.relpath(path, base)


def _branches(step: Step, indent: str, base: Path) -> Iterator[str]:
    """Yield a line per input; sources that are as they were share one line."""
    plain = [s for s in step.inputs if not s.origin and not s.problems]
    told = [s for s in step.inputs if s not in plain]
    entries = [", ".join(_from(base, s.path) for s in plain)] if plain else []
    entries += [_line(s, base) for s in told]
    below: list[Step | None] = [None] * bool(plain) + list(told)
    for number, (entry, child) in enumerate(zip(entries, below, strict=True)):
        last = number == len(entries) - 1
        yield f"{indent}{'└─' if last else '├─'} {entry}"
        if child is not None:
            yield from _branches(child, indent + ("   " if last else "│  "), base)


def _line(step: Step, base: Path) -> str:
    origin = step.origin
    parts = [_from(base, step.path)]
    if origin:
        told = [origin.get("stage", ""), origin.get("run", ""), origin.get("model", "")]
        parts.append(" ".join(text for text in told if text))
        parts.append(f"parameters {origin['parameters_hash'][:8]}" if "parameters_hash" in origin else "")
        parts.append(origin.get("made", ""))
    parts += ["(see above)"] if step.shown_before and step.origin else []
    parts += [f"✗ {problem}" for problem in step.problems]
    return "  ".join(part for part in parts if part)
