"""Look into a file in a process of its own first: HDF5 itself can crash or loop for ever on a damaged file.

Run as ``python -m peaknet_pipeline.runs.probe PATH GEOMETRY ROOT DATA_PATH [MORE_ROOT …]`` it reads
the first, middle and last frame and prints the inspection as JSON.
"""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.inspect import inspect_path

MEMORY_BYTES = 8 * 2**30


def probe_run(
    path: Path,
    geometry: Path | None = None,
    *,
    data_path: str | None = None,
    root: Path | None = None,
    more_roots: Sequence[Path] = (),
    timeout_s: float = 60.0,
) -> dict[str, object]:
    """Inspect a run in a process of its own, bounded in time and memory.

    Returns
    -------
    What :func:`~peaknet_pipeline.runs.inspect.inspect_path` reports, as a dict.

    Raises
    ------
    RunError
        The file makes the reading process crash or take longer than ``timeout_s``.

    """
    arguments = [str(path), str(geometry or ""), str(root or ""), data_path or "", *map(str, more_roots)]
    command = [sys.executable, "-m", "peaknet_pipeline.runs.probe", *arguments]
    remedy = "It is damaged: copy it again."
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"reading the file takes longer than {timeout_s:g} s", where=path, remedy=remedy
        ) from error
    if done.returncode != 0:
        reason = signal.Signals(-done.returncode).name if done.returncode < 0 else done.stderr.strip()[-200:]
        raise RunError(f"reading the file ends in a crash ({reason})", where=path, remedy=remedy)
    report: dict[str, object] = json.loads(done.stdout)
    return report


def main(arguments: list[str]) -> None:
    """Inspect the file named by the arguments and write the report to standard output."""
    path, geometry, root = (Path(a) if a else None for a in (*arguments, "", "")[:3])
    data_path = (*arguments, "", "", "")[3] or None
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    more_roots = [Path(name) for name in arguments[4:]]
    report = inspect_path(path or Path(), geometry, data_path=data_path, root=root, more_roots=more_roots)
    sys.stdout.write(json.dumps(report.to_dict(), default=float))


if __name__ == "__main__":
    main(sys.argv[1:])
