"""Settings of what belongs to all runs together, from ``pipeline.yaml`` in the data root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.settings_text import SettingsText, join_problems, read_settings_text

SECTIONS = ("training_set", "teacher", "student", "champion", "inference", "sensor", "slurm")

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
    text = _read_pipeline(store)
    problems = list(text.section_problems(section, cls))
    if problems:
        raise join_problems(text.path, problems)
    return cls.from_mapping({**(defaults or {}), **text.section(section), **given})


def pipeline_roots(store: Store) -> tuple[Path, ...]:
    """Return the folders that runs of every experiment may lead into by links; none where the file names none."""
    text = _read_pipeline(store)
    return folders_of(text.values.get(ROOTS), text.path.parent, text.where(ROOTS))


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


def _read_pipeline(store: Store) -> SettingsText:
    text = read_settings_text(pipeline_file(store))
    problems = list(text.name_problems((*SECTIONS, ROOTS)))
    if problems:
        raise join_problems(text.path, problems)
    return text
