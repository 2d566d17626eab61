"""The files of a lasting deployment, written out with this machine's paths: services, instance, container, cluster."""

import getpass
import sys
from importlib.resources import files
from pathlib import Path

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.errors import ParameterError

KINDS = {"machine": ("machine", "service"), "facility": ("facility", "service")}
"""Folders of the package's ``deploy`` that make a kind of deployment."""

SECRET_FILES = ("peaknet.env",)
"""Files that will hold secrets: readable by their owner and group only."""


def deployment_text(name: str) -> str:
    """Return one of the package's deployment files, such as ``machine/dagster.yaml``, as it is."""
    return files("peaknet_pipeline").joinpath("deploy", name).read_text(encoding="utf-8")


def write_deployment(
    out: Path, *, kind: str, data: Path, user: str | None = None, force: bool = False
) -> list[Path]:
    """Write the files of a deployment to a folder; return them.

    Parameters
    ----------
    out : Path
        Where services will look for ``dagster.yaml``, ``workspace.yaml`` and ``peaknet.env``.
    kind : {"machine", "facility"}
    data : Path
        Data root of the services.
    user : str, optional
        Who the services run as; by default who writes the files.
    force : bool
        Overwrite files that were changed.

    Raises
    ------
    ParameterError
        A file exists with another content, a path cannot stand in a unit file, or there is no such kind.

    """
    if kind not in KINDS:
        raise ParameterError("no such deployment", expected=f"one of {', '.join(KINDS)}", found=kind)
    home = out.absolute()
    values = {
        "OUT": _plain(home),
        "HOME": _plain(home),
        "DATA": _plain(data.absolute()),
        "BIN": _plain(Path(sys.executable).parent.absolute()),
        "USER": user or getpass.getuser(),
    }
    texts = {name: _filled(text, values) for name, text in _templates(kind).items()}
    changed = [name for name, text in texts.items() if _differs(home / name, text)]
    if changed and not force:
        raise ParameterError(
            "files exist and differ",
            where=out,
            found=", ".join(changed),
            remedy="Write to another folder, or overwrite them with --force.",
        )
    for name, text in texts.items():
        write_file(home / name, text)
        if name in SECRET_FILES:
            (home / name).chmod(0o640)
    return [home / name for name in texts]


def _templates(kind: str) -> dict[str, str]:
    root = files("peaknet_pipeline").joinpath("deploy")
    return {
        item.name: item.read_text(encoding="utf-8")
        for folder in KINDS[kind]
        for item in sorted(root.joinpath(folder).iterdir(), key=lambda item: item.name)
    }


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _plain(path: Path) -> str:
    text = str(path)
    if any(sign.isspace() or sign in "\"'\\$%#@" for sign in text):
        raise ParameterError(
            "a path with blanks or special signs cannot stand in a unit file",
            where=path,
            remedy="Choose another path.",
        )
    return text


def _differs(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() != text.encode()
