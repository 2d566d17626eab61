"""Settings of what belongs to all runs together, from ``pipeline.yaml`` in the data root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.records import read_yaml
from peaknet_pipeline.store.layout import Store

SECTIONS = ("training_set", "teacher", "student", "champion", "inference", "sensor")

ROOTS = "allowed_roots"
"""Where ``pipeline.yaml``, or an experiment's settings, name folders that links may lead into."""

P = TypeVar("P", bound=Parameters)


def pipeline_file(store: Store) -> Path:
    """Return where the settings lie."""
    return store.root / "pipeline.yaml"


def pipeline_parameters(
    store: Store,
    section: str,
    cls: type[P],
    overrides: Mapping[str, Any] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
) -> P:
    """Return a parameter set: defaults, then the file's section, then the overrides that aren't None.

    Raises
    ------
    ParameterError
        The file is malformed or names unknown sections or parameters.

    """
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    return cls.from_mapping({**(defaults or {}), **_read_section(pipeline_file(store), section), **given})


def pipeline_roots(store: Store) -> tuple[Path, ...]:
    """Return the folders that runs of every experiment may lead into by links; none where the file names none."""
    path = pipeline_file(store)
    return folders_of(_read_settings(path).get(ROOTS), path.parent, path)


def folders_of(value: object, base: Path, where: Path | str) -> tuple[Path, ...]:
    """Return folders that a settings file names, resolved; names that aren't absolute are below ``base``.

    Raises
    ------
    ParameterError
        It is no list of names, or a folder isn't there.

    """
    names = [] if value is None else value if isinstance(value, list) else [value]
    folders = tuple((base / name).resolve() for name in names if isinstance(name, str) and name)
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if len(folders) < len(names) or missing:
        raise ParameterError(
            f"{ROOTS} are not folders", where=where, expected="a list of folders", found=missing or value
        )
    return folders


def settings_inputs(store: Store) -> list[Path]:
    """Return the settings file, if there is one, as an input of what it decides."""
    path = pipeline_file(store)
    return [path] if path.is_file() else []


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values = read_yaml(path, error=ParameterError)
    if set(values) - {*SECTIONS, ROOTS}:
        raise ParameterError(
            "unknown sections", where=path, expected=f"only {', '.join((*SECTIONS, ROOTS))}", found=values
        )
    return values


def _read_section(path: Path, section: str) -> dict[str, Any]:
    chosen = _read_settings(path).get(section) or {}
    if not isinstance(chosen, dict):
        raise ParameterError(f"section {section} is not a mapping", where=path, expected="NAME: VALUE lines")
    return dict(chosen)
