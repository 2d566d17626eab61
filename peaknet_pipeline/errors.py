"""Errors that say what is wrong, where, what was expected and found, and what to do about it."""

import unicodedata
from pathlib import Path

SHOWN = 2000
"""Characters of one side of a disagreement that are shown at most."""


def printable(text: str) -> str:
    """Return text in which control characters, other than line breaks and tabs, are shown escaped.

    Names and values come from files: what a terminal would take for a command (colours, titles, moved cursors, reversed
    writing) is shown as ``\\x1b`` and the like, and so are bytes that are no text in a file's name.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


class PeaknetError(Exception):
    """Base of every error that a user can cause or mend.

    Parameters
    ----------
    what : str
        What is wrong, in one clause.
    where : str or Path, optional
        File, run, frame, panel or column.
    expected, found : object, optional
        The two sides of the disagreement.
    remedy : str, optional
        The next step for the reader.

    """

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(self._message())

    def _message(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where is not None else self.what]
        if self.expected is not None:
            parts.append(f"expected {_shortened(self.expected)}")
        if self.found is not None:
            parts.append(f"found {_shortened(self.found)}")
        text = ", ".join(parts)
        return printable(f"{text}. {self.remedy}" if self.remedy else text)


class RunError(PeaknetError):
    """A raw run that cannot be read or does not fit its geometry."""


class GeometryError(PeaknetError):
    """A geometry that does not parse or describes no usable detector."""


class CellError(PeaknetError):
    """A unit cell that is missing, malformed or impossible."""


class ParameterError(PeaknetError):
    """A parameter that is unknown or out of its range."""


class TableError(PeaknetError):
    """A table that does not follow its declared schema."""


class LabelError(PeaknetError):
    """Labels or a training set that cannot teach anything."""


class ModelError(PeaknetError):
    """Weights, a configuration or a registry entry that cannot be used."""


class IndexingError(PeaknetError):
    """An indexing engine that is missing or failed."""


class StreamError(PeaknetError):
    """A stream of frames that broke off."""


class OutputError(PeaknetError):
    """An output that would destroy an input or another's file, or cannot be written."""
