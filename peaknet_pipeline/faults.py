"""What the system and absurd input raise, as one clear error: full disks, missing rights, no memory, no UTF-8, no number."""

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from peaknet_pipeline.errors import PeaknetError

SYSTEM_REMEDIES = {
    errno.ENOSPC: "The disk is full: make room, or write to another one.",
    errno.EDQUOT: "Your share of the disk is used up: make room, or write to another one.",
    errno.EFBIG: "The file would be larger than this system allows: raise the limit (ulimit -f), or write less.",
    errno.EROFS: "Write to another folder.",
    errno.EACCES: "Ask the owner for the right, or use another path.",
    errno.EMFILE: "Raise the number of open files that is allowed (ulimit -n).",
}
"""What to do about an error of the system."""

NO_MEMORY = re.compile(r"can't allocate memory|out of memory")
"""How torch says it: its error is a RuntimeError like any other."""


@contextlib.contextmanager
def faults_explained(inputs: Iterable[Path]) -> Iterator[None]:
    """Turn what the system or absurd input raises within the block into one clear error; a KeyError stays a fault of ours.

    Raises
    ------
    PeaknetError
        The disk is full, rights are missing, memory ran out, a text is no UTF-8, a number is out of all range.

    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError, MemoryError, OverflowError, UnicodeError) as error:
        told = explain(error)
        if told is None:
            raise
        named = getattr(error, "filename", None)
        where = os.fsdecode(named) if named else ", ".join(map(str, inputs)) or None
        raise PeaknetError(told[0], where=where, remedy=told[1]) from error


def explain(error: BaseException) -> tuple[str, str | None] | None:
    """Return what a user should know of a system's or an input's fault, and the remedy; None for any other exception."""
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return "not enough memory", "Close other programs, or work with fewer frames at a time."
    if isinstance(error, RecursionError):
        return (
            "nested too deeply to be read",
            "Look at the file: nothing this program reads is nested like that.",
        )
    if isinstance(error, OverflowError):
        return f"a number out of all range ({error})", "Mend the input that holds it."
    if isinstance(error, UnicodeError):
        return f"a text that is not UTF-8 ({error})", "Save it as UTF-8."
    number = _system_error(error)
    if number is None:
        return (str(error), None) if isinstance(error, OSError) else None
    return os.strerror(number), SYSTEM_REMEDIES.get(number)


def _system_error(error: BaseException) -> int | None:
    """Return the system's number of an error; HDF5 puts it into its message, whatever kind h5py makes of it."""
    written = re.search(r"errno = (\d+)", str(error))
    if written is not None:
        return int(written[1])
    return getattr(error, "errno", None)
