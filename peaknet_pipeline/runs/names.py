"""What the names of raw files say: the number of a run, and which part of it a file is.

The field's names are known: ``r0013.h5``, ``lyso_run13.cxi`` and ``r0012-lyso_3.h5`` (a number after *r* or *run*),
``r0042-class1-lyso.cxi`` and ``cxilx0000_0016.h5`` (Cheetah), ``run372134-0.h5`` (SACLA: a run in parts),
``lyso_13_master.h5`` with ``lyso_13_data_000001.h5`` (DECTRIS), folders ``r0042`` (European XFEL).
"""

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.errors import RunError

RUN_SUFFIXES = (".h5", ".hdf5", ".hdf", ".cxi", ".nxs", ".psana", ".lst", ".list")
"""Endings of names of files that can hold a raw run, or name one."""

NAMING_SUFFIXES = (".psana", ".lst", ".list")
"""Endings of files that hold no frames, but name where they are."""

STORE_SUFFIX = ".zarr"
"""Ending of folders that are read, and named, as one file."""

RESULT_WORDS = frozenset(
    ("badpixels", "darkcal", "gaincal", "mask", "peaks", "powder", "sum", "virtualpowder")
)
"""Words after a run's number which say that the file was made from the run and is not the run."""

CALIBRATION_WORDS = RESULT_WORDS | frozenset(
    ("background", "constants", "dark", "flatfield", "gain", "geometry", "pedestal", "pedestals")
)
"""Words in a name that carries no *r* or *run* which say that the file holds no frames of a run."""

_AFTER_R = re.compile(
    r"(?:(?<![^\W_])r|(?<![A-Za-z0-9])run)[\s_-]?(?P<number>[0-9]{3,6}(?![0-9])|[0-9]{1,2}(?![^\W_]))",
    re.IGNORECASE,
)
_AT_END = re.compile(r"^(?P<prefix>.*[^\W\d_].*?)[\s_-](?P<number>[0-9]{1,6})$")
_SECOND_NUMBER = re.compile(r"[\s_-][0-9]+$")
_DATE = re.compile(r"(?:19|20)[0-9]{2}[-_]?[01][0-9][-_]?[0-3][0-9]$")
_MASTER = re.compile(r"[_-]master$", re.IGNORECASE)
_LINKED_DATA = re.compile(r"^(?P<series>.+)_data_[0-9]+$", re.IGNORECASE)
_PART = re.compile(r"^(?P<before>[\s_.-](?:part|p)?[\s_-]?)(?P<part>[0-9]{1,5})(?P<after>)$", re.IGNORECASE)
_CLASS = re.compile(r"^(?P<before>[_-]class)(?P<part>[0-9]{1,5})(?P<after>.*)$", re.IGNORECASE)
_EUXFEL = re.compile(r"^[A-Z]+-R[0-9]{4,6}-[A-Z0-9]+-S[0-9]{5}\.h5$")


@dataclass(frozen=True)
class RunName:
    """What a file's name says.

    Attributes
    ----------
    number : int
        The run's.
    series : str
        The name without the part: files of one run share it.
    part : int or None
        Which part of the run the file is; None where it is the whole run.
    has_gaps : bool
        Parts may be missing: they are classes of frames, not stretches of the run.

    """

    number: int
    series: str
    part: int | None = None
    has_gaps: bool = False


def read_run_name(path: Path, *, is_folder: bool = False) -> RunName:
    """Read the run's number from the name of a file, or of a folder, where it must follow *r* or *run*.

    Raises
    ------
    RunError
        The name bears no number of a run, or two; the error says so in words, without the file.

    """
    stem = unicodedata.normalize(
        "NFC", path.stem if path.suffix.lower() in (*RUN_SUFFIXES, STORE_SUFFIX) else path.name
    )
    tokens = list(_AFTER_R.finditer(stem))
    numbers = sorted({int(token["number"]) for token in tokens})
    if len(numbers) > 1:
        raise RunError(f"the name bears {len(numbers)} run numbers, {', '.join(map(str, numbers))}")
    if tokens:
        return _named_after_r(stem, tokens[0], path.suffix.lower())
    if is_folder:
        raise RunError("the folder's name bears no run number")
    return _numbered_at_end(stem)


def _named_after_r(stem: str, token: re.Match[str], suffix: str) -> RunName:
    number, before, tail = int(token["number"]), stem[: token.end()], stem[token.end() :]
    _refuse_words(tail, RESULT_WORDS)
    for pattern in (_CLASS, _PART):
        match = pattern.match(tail)
        if match is not None:
            series = f"{before}{match['before']}*{match['after']}{suffix}"
            return RunName(number, series, int(match["part"]), has_gaps=pattern is _CLASS)
    return RunName(number, f"{stem}{suffix}")


def _numbered_at_end(stem: str) -> RunName:
    plain = _MASTER.sub("", stem)
    match = _AT_END.match(plain)
    if match is None:
        raise RunError("the name bears no run number")
    _refuse_words(match["prefix"], CALIBRATION_WORDS)
    if _DATE.search(plain):
        raise RunError("the name ends in a date, not in a run number")
    if plain == stem and _SECOND_NUMBER.search(match["prefix"]):
        raise RunError("the name ends in several numbers, and which is the run's is not known")
    return RunName(int(match["number"]), stem)


def _refuse_words(text: str, words: frozenset[str]) -> None:
    found = [word for word in re.split(r"[\W\d_]+", text.lower()) if word in words]
    if found:
        raise RunError(f"the name says {found[0]!r}, so that it is not taken for a run")


def is_run_file_name(path: Path) -> bool:
    """Tell whether a file of this name can be a raw run: its ending is one of those, and it isn't hidden."""
    return path.suffix.lower() in RUN_SUFFIXES and not path.name.startswith(".")


def is_euxfel_file(path: Path) -> bool:
    """Tell whether a file is named like one of European XFEL's: ``CORR-R0042-AGIPD00-S00000.h5``."""
    return _EUXFEL.match(path.name) is not None


def master_of(path: Path) -> Path | None:
    """Return the master file that a numbered data file (``lyso_13_data_000001.h5``) belongs to; None for other names."""
    match = _LINKED_DATA.match(path.stem)
    return None if match is None else path.with_name(f"{match['series']}_master{path.suffix}")


def is_master(path: Path) -> bool:
    """Tell whether a file is named like a master file."""
    return _MASTER.search(path.stem) is not None


def natural_order(path: Path) -> tuple[tuple[int, str], ...]:
    """Return what sorts names as people do: ``part2`` before ``part10``."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces)


def files_of_run(folder: Path) -> list[Path]:
    """Return the files of a folder that holds one run, in natural order; of masters and their data, the masters."""
    entries = [path for path in folder.iterdir() if is_run_file_name(path)]
    files = sorted(
        (path for path in entries if os.path.isfile(path)),  # noqa: PTH113  (Path.is_file may raise)
        key=natural_order,
    )
    masters = [path for path in files if is_master(path)]
    return masters or [path for path in files if path.suffix.lower() not in NAMING_SUFFIXES]
