"""Which code this is: the package's version, and the commit where it runs from a clone."""

import functools
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@functools.cache
def code_version() -> str:
    """Return e.g. ``0.1.0``, or ``0.1.0+1f2e3d4c5`` from a clone, with ``.dirty`` where files differ from the commit."""
    try:
        release = version("peaknet-pipeline")
    except PackageNotFoundError:
        release = "uninstalled"
    commit = _commit_of(Path(__file__).resolve().parents[1])
    return f"{release}+{commit}" if commit else release


def _commit_of(folder: Path) -> str:
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return ""
    command = [git, "-C", str(folder), "describe", "--always", "--dirty=.dirty", "--abbrev=9", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
