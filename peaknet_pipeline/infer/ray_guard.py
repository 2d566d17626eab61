"""Ends what is left of a local Ray when the process that started it is killed.

Most of Ray's processes end with the one that started them; its agents notice only after a minute. All of them have files of
their session's folder open. The guard is a process of its own, this file without any import of the package. It waits for
the end of its input, which comes with the end of the process that holds the other side, whatever ended that.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

GRACE_S, GIVE_UP_S = 3.0, 30.0


@contextlib.contextmanager
def guarded(session: str) -> Iterator[None]:
    """End what is left of the Ray with this session's name after the block, also when SIGKILL ends this process in it."""
    guard = subprocess.Popen(  # noqa: S603 - this interpreter, this file
        [sys.executable, "-I", __file__, session, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        guard.communicate()


def processes_of(session: str) -> list[int]:
    """Return this user's processes of Ray that have a file of the session's folder open."""
    part, found = f"{os.sep}{session}{os.sep}", []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            is_ray = b"ray" in (folder.parent / "cmdline").read_bytes()
            if is_ray and any(part in _target(link) for link in folder.iterdir()):
                found.append(int(folder.parent.name))
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def end_processes_of(session: str, driver: int) -> None:
    """Wait a moment for them to end by themselves, then end those that don't, but for the one that drives Ray."""
    started = time.monotonic()
    while time.monotonic() - started < GIVE_UP_S and (left := {*processes_of(session)} - {driver}):
        if time.monotonic() - started > GRACE_S:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.2)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_processes_of(sys.argv[1], int(sys.argv[2]))
