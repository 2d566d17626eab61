"""A PostgreSQL server of one's own for a test: in a temporary folder, on a Unix socket, as an unprivileged user."""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEBIAN = "/usr/lib/postgresql"


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    password: str


def postgres_bin() -> Path | None:
    """Return the folder of PostgreSQL's server programs, or None where they are not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path(DEBIAN).glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


@contextlib.contextmanager
def postgres_server(programs: Path) -> Iterator[Server]:
    """Start a server that wants a password, with an empty database ``dagster``; stop and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    owner = {"user": "nobody"} if os.geteuid() == 0 else {}  # PostgreSQL refuses to be root
    password = secrets.token_hex(16)
    try:
        (folder / "password").write_text(password)
        if owner:
            for path in (folder, folder / "password"):
                shutil.chown(path, **owner)
        data, log = folder / "data", folder / "log"

        def call(program: str, *arguments: object) -> None:
            command = [str(programs / program), *map(str, arguments)]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **owner)

        call(
            "initdb",
            "-D",
            data,
            "-U",
            "peaknet",
            "-A",
            "scram-sha-256",
            "--pwfile",
            folder / "password",
            "-N",
        )
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        call("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield Server(f"postgresql+psycopg2://peaknet:{password}@/postgres?host={folder}", password)
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
