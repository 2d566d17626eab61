"""Runs and frames that a user takes out of teaching, a line each in a file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.text_files import read_text
from peaknet_pipeline.types import BoolArray, IntArray

MAX_FILE_BYTES = 2**20


@dataclass(frozen=True)
class Exclusions:
    """Runs and frames that a user named, to take them out.

    Attributes
    ----------
    runs : dict of str to str
        Run key → reason.
    frames : dict of str to list of (first, last, reason)
        Run key → frame ranges, inclusive.

    """

    runs: dict[str, str]
    frames: dict[str, list[tuple[int, int, str]]]

    def keeps(self, run: str, frames: IntArray) -> BoolArray:
        """Return which frames of a run remain."""
        keep = np.full(len(frames), run not in self.runs)
        for first, last, _ in self.frames.get(run, []):
            keep &= (frames < first) | (frames > last)
        return keep


def parse_exclusions(text: str, *, where: str = "exclusions") -> Exclusions:
    """Read exclusions, one per line: ``RUN``, ``RUN FRAME`` or ``RUN FIRST-LAST``, then ``# reason``.

    Raises
    ------
    LabelError
        Naming the first line that is none of these.

    """
    runs: dict[str, str] = {}
    frames: dict[str, list[tuple[int, int, str]]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry, _, reason = (part.strip() for part in line.partition("#"))
        words = entry.split()
        if not words:
            continue
        if len(words) == 1:
            runs[words[0]] = reason
            continue
        first, _, last = words[1].partition("-")
        if len(words) > 2 or not first.isdecimal() or (last and not last.isdecimal()):
            raise LabelError(
                "not an exclusion",
                where=f"{where}, line {number}",
                expected="RUN, RUN FRAME or RUN FIRST-LAST, then # reason",
                found=repr(line),
            )
        frames.setdefault(words[0], []).append((int(first), int(last or first), reason))
    return Exclusions(runs, frames)


def read_exclusions(path: Path | None) -> Exclusions:
    """Read an exclusions file; no path or no file means nothing is excluded."""
    if path is None or not path.is_file():
        return Exclusions({}, {})
    return parse_exclusions(
        read_text(path, kind="exclusions file", error=LabelError, max_bytes=MAX_FILE_BYTES), where=str(path)
    )
