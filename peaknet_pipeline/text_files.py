"""Text files as editors and instruments write them: read right whatever the byte order mark, line ends and encoding."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peaknet_pipeline.errors import PeaknetError

LATIN = "peaknet-latin"
"""How bytes that are no UTF-8 are decoded: as Windows and older programs write them, one byte a character."""

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(
    path: Path, *, kind: str, error: type[PeaknetError], max_bytes: int, remedy: str | None = None
) -> str:
    """Read a text file whole; see :func:`decode_text`.

    Parameters
    ----------
    path : Path
    kind : str
        What the file should be, for the messages: ``geometry file``.
    error : type
        What is raised where it is missing, larger than ``max_bytes`` or no text.
    remedy : str, optional
        What to do about a file that is no text.

    """
    if not path.is_file():
        raise error(f"no such {kind}", where=path, remedy=f"Check the path of the {kind}.")
    size = path.stat().st_size
    if size > max_bytes:
        raise error(
            f"too large for a {kind}", where=path, expected=f"≤ {max_bytes} bytes", found=f"{size} bytes"
        )
    try:
        return decode_text(path.read_bytes())
    except OSError as why:
        raise error(f"the {kind} cannot be read ({why.strerror})", where=path) from why
    except ValueError as why:
        raise error("not a text file", where=path, remedy=remedy) from why


def decode_text(content: bytes) -> str:
    r"""Return text with lines that end in ``\n``, from UTF-8, UTF-16 with its mark, or Latin letters of one byte.

    Raises
    ------
    ValueError
        There are null bytes: it is no text.

    """
    text = content.decode(_encoding_of(content), errors=_latin())
    if "\0" in text:
        raise ValueError("null bytes in a text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def open_text(path: Path) -> Iterator[Iterator[str]]:
    """Open a long text file for reading line by line, decoded as :func:`decode_text` does."""
    with path.open("rb") as stream:
        encoding = _encoding_of(stream.read(2))
    with path.open(encoding=encoding, errors=_latin()) as lines:
        yield lines


def _encoding_of(start: bytes) -> str:
    return "utf-16" if start.startswith(UTF_16) else "utf-8-sig"


def _latin() -> str:
    """Return the name of the error handler that takes single bytes for what they are not in UTF-8."""
    codecs.register_error(LATIN, _decode_bytes)
    return LATIN


def _decode_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError) or error.encoding.startswith("utf-16"):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(_letter(byte) for byte in wrong), error.end


def _letter(byte: int) -> str:
    """Return the character of one byte in Windows' Latin code page, or in Latin-1 where that has none."""
    single = bytes([byte])
    try:
        return single.decode("cp1252")
    except UnicodeDecodeError:
        return single.decode("latin-1")
