"""Files and folders that are complete under their final name or absent, whenever the process is killed."""

import contextlib
import ctypes
import errno
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

FOREIGN_AGE_S = 2 * 86400.0
"""Seconds without change after which another machine's temporary counts as left behind."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""System errors of a writer only: the disk, a share of it or a limit on files is full."""

_WRITER = re.compile(r"\.(?P<path_and_host>.+)-(?P<pid>\d+)\.[^.]+\.tmp")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary sibling of ``path`` to write to; it takes the final name only when the block succeeds.

    What killed writers of the same path left beside it is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(path), suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if (
            error.filename is None and error.errno in NO_ROOM
        ):  # Arrow's, for one, doesn't say which file it was
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes to a file that appears under its name only when it is complete."""
    with replace_atomically(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replace_folder_atomically(folder: Path) -> Iterator[Path]:
    """Give a temporary sibling of ``folder`` to fill; it takes the final name, in the place of an older folder, at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=temporary_prefix(folder), suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o755)
        _take_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_prefix(path: Path) -> str:
    """Return how this process's temporaries for ``path`` begin: hidden, with the names of machine and process."""
    return f".{path.name}.{socket.gethostname()}-{os.getpid()}."


def remove_leftovers(path: Path) -> None:
    """Remove the temporaries that killed writers of ``path`` left beside it.

    A temporary stays while its process lives, or, if another machine made it, until it has not changed for two days.
    """
    _remove_left(path.parent, f".{path.name}.")


def remove_all_leftovers(folder: Path) -> None:
    """Remove what killed writers of anything left in a folder whose names never come again; as :func:`remove_leftovers`."""
    _remove_left(folder, ".")


def _remove_left(folder: Path, start: str) -> None:
    with os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if entry.name.startswith(start)]
    for temporary in found:
        writer = _WRITER.fullmatch(temporary.name)
        if writer is None or not _is_left(temporary, writer["path_and_host"], int(writer["pid"])):
            continue
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _is_left(temporary: Path, path_and_host: str, pid: int) -> bool:
    if path_and_host.endswith(f".{socket.gethostname()}"):
        return not _is_alive(pid)
    try:
        return time.time() - temporary.stat().st_mtime > FOREIGN_AGE_S
    except FileNotFoundError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _take_place(new: Path, folder: Path) -> None:
    """Give ``new`` the name ``folder``; what was there goes to the name ``new``, to be removed."""
    if not folder.exists():
        new.rename(folder)
    elif not _exchange(new, folder):  # file systems without exchange have a moment without the folder
        old = new.with_name(f"{new.name.removesuffix('.tmp')}old.tmp")
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
