"""Settings of what belongs to all runs together, from ``pipeline.yaml`` in the data root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.records import read_yaml
from peaknet_pipeline.store.layout import Store

SECTIONS = ("training_set", "teacher", "student", "champion", "inference", "sensor")

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


def settings_inputs(store: Store) -> list[Path]:
    """Return the settings file, if there is one, as an input of what it decides."""
    path = pipeline_file(store)
    return [path] if path.is_file() else []


def _read_section(path: Path, section: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values = read_yaml(path, error=ParameterError)
    if set(values) - set(SECTIONS):
        raise ParameterError(
            "unknown sections", where=path, expected=f"only {', '.join(SECTIONS)}", found=values
        )
    chosen = values.get(section) or {}
    if not isinstance(chosen, dict):
        raise ParameterError(f"section {section} is not a mapping", where=path, expected="NAME: VALUE lines")
    return dict(chosen)
