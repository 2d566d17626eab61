"""Let another process look into a file first: HDF5 itself can crash, or loop without end, on a damaged one.

Superblock, object headers, chunk indices and heaps of text are read by HDF5's own code, which trusts what some of them
say. What that code does to a damaged file shows in a child of a helper process; here it only becomes an error. The helper
starts with the first file (0.15 s) and is asked once for each state of a file (some milliseconds).
"""

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from peaknet_pipeline.errors import RunError

_PROCESS = Path(__file__).with_name("trial_process.py")


def try_file(path: Path, *, growing: bool = False) -> None:
    """Let another process open a file and its objects, ``growing`` if somebody is writing it in SWMR mode.

    Raises
    ------
    RunError
        HDF5 crashes on the file, or does not come to an end.

    """
    state = path.stat()
    ended = _ending(path, growing, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))
    if ended:
        raise RunError(
            f"HDF5 itself fails on the file ({ended})", where=path, remedy="It is damaged: copy it again."
        )


@functools.lru_cache(maxsize=4096)
def _ending(path: Path, growing: bool, state: tuple[int, ...]) -> str:
    """Return the name of the signal that ended the child; nothing where it came to its end."""
    status = _helper.ask(json.dumps([str(path.resolve()), growing]))
    return signal.Signals(-status).name if status < 0 else ""


class _Helper:
    """The process that is asked; of the process that started it alone, and started again where it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.stop)

    def ask(self, question: str) -> int:
        """Return how the child ended that looked into a file."""
        with self._lock:
            for _ in range(2):  # it ends by itself when nobody asks, perhaps just now
                with contextlib.suppress(BrokenPipeError):
                    answer = self._answer(question)
                    if answer:
                        return int(answer)
                self._end()
        raise RunError(
            "the process that looks into HDF5 files first cannot be started or was killed",
            where=_PROCESS,
            remedy="See whether memory is short, or processes are limited (ulimit -u), and try again.",
        )

    def stop(self) -> None:
        """Let the process end, and wait for it."""
        with self._lock:
            self._end()

    def _answer(self, question: str) -> bytes:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603  (our own script)
                [sys.executable, "-P", str(_PROCESS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        if self._process.stdin is None or self._process.stdout is None:
            return b""
        self._process.stdin.write(f"{question}\n".encode())
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            process.wait()

    def _forget(self) -> None:
        """In a fork: the pipes belong to the process that opened them."""
        self._lock = threading.Lock()
        process, self._process = self._process, None
        if process is not None:
            process.returncode = 0  # not this process's child to wait for
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


_helper = _Helper()
