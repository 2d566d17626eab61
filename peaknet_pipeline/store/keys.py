"""Partition keys ``<experiment>-r0001``: the one place that parses and formats them, and names run files."""

import re
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.errors import ParameterError

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}?"
_KEY = re.compile(rf"(?P<experiment>{_NAME})-r(?P<number>[0-9]{{4,6}})")
_FILE = re.compile(r"^(?:.*[_-])?r(?:un)?[_-]?(?P<number>\d{1,6})(?:_master)?$", re.IGNORECASE)
_FOLDER = re.compile(r"r(?P<number>\d{4,6})")

RUN_SUFFIXES = (".h5", ".hdf5", ".cxi", ".nxs", ".psana")
"""File name endings that can hold a raw run, or name one."""


@dataclass(frozen=True)
class RunKey:
    """One run of one experiment."""

    experiment: str
    number: int

    def __str__(self) -> str:
        """Return the partition key."""
        return f"{self.experiment}-r{self.number:04d}"


def parse_key(text: str) -> RunKey:
    """Read a partition key.

    Raises
    ------
    ParameterError
        The text is not ``<experiment>-r<4 to 6 digits>`` with letters, digits, ``.``, ``_`` and ``-`` in the experiment.

    """
    match = _KEY.fullmatch(text)
    if match is None or "..." in text:
        raise ParameterError("not a run key", expected="<experiment>-r0001", found=repr(text))
    return RunKey(match["experiment"], int(match["number"]))


def run_number(path: Path) -> int | None:
    """Return the run number that a raw file's name ends in (``r0013.h5``, ``lyso_run13.cxi``), or None.

    A folder counts when it is named like a EuXFEL run: ``r0013``.
    """
    folder = _FOLDER.fullmatch(path.name)
    if folder is not None and path.is_dir():
        return int(folder["number"])
    if path.suffix.lower() not in RUN_SUFFIXES or path.name.startswith("."):
        return None
    match = _FILE.match(path.stem)
    return int(match["number"]) if match else None
