"""Let another process look into a file first where HDF5 itself can crash, or loop without end, on a damaged one.

This is needed for text of variable length, which lies in a heap that HDF5 walks through without looking where it steps.
It takes some tenths of a second, once for each state of a file.
"""

import functools
import signal
import subprocess
import sys
from pathlib import Path

from peaknet_pipeline.errors import RunError

TIMEOUT_S = 30.0
_PROCESS = Path(__file__).with_name("trial_process.py")


def try_file(path: Path) -> None:
    """Let another process read the attributes of a file.

    Raises
    ------
    RunError
        That ends the other process, or takes it too long.

    """
    state = path.stat()
    ended = _ending(path, (state.st_ino, state.st_size, state.st_mtime_ns))
    if ended:
        raise RunError(
            f"reading the file ends in a crash ({ended})", where=path, remedy="It is damaged: copy it again."
        )


@functools.lru_cache(maxsize=4096)
def _ending(path: Path, state: tuple[int, int, int]) -> str:
    """Return what ended the other process; nothing where it came to its end."""
    command = [sys.executable, "-P", str(_PROCESS), str(path)]
    try:
        done = subprocess.run(  # noqa: S603  (our own script and a path)
            command, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return f"longer than {TIMEOUT_S:g} s"
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    return done.stderr.decode(errors="replace").strip()[-200:] if done.returncode else ""
