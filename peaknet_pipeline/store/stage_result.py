"""What a stage hands to whoever ran it: where the output lies, figures, plots and verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Figure = int | float | str


@dataclass(frozen=True)
class Check:
    """The verdict of one check on a stage's output."""

    name: str
    passed: bool
    description: str
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class StageResult:
    """Output of a stage: its main file, tables by schema name, figures, PNG plots and checks."""

    output: Path
    figures: Mapping[str, Figure] = field(default_factory=dict)
    tables: Mapping[str, Path] = field(default_factory=dict)
    plots: Mapping[str, bytes] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    data_version: str = ""
