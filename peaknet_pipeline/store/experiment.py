"""An experiment's own settings: geometry, cell and parameters, from ``experiment.yaml`` beside its raw runs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from peaknet_pipeline.errors import CellError, GeometryError, ParameterError, PeaknetError, RunError
from peaknet_pipeline.metrics import MetricParams
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.peaks.classical import CLASSICAL
from peaknet_pipeline.provenance import read_recipe
from peaknet_pipeline.runs.frame_groups import GroupRule
from peaknet_pipeline.store.group_rules import group_rules
from peaknet_pipeline.store.keys import RunKey, parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import manifest_path, refined_geometry_path
from peaknet_pipeline.store.raw_folder import SETTINGS_FILE
from peaknet_pipeline.store.sections import CHOICES, ENGINES, SECTIONS, settings_problems
from peaknet_pipeline.store.settings import ROOTS, folders_of, pipeline_file, pipeline_roots
from peaknet_pipeline.store.settings_text import SettingsText, join_problems, read_settings_text

PATTERNS = {"geometry": "*.geom", "cell": "*.cell"}
"""Which file of the folder is taken where none is named."""

REFINED, AUTO = "refined", "auto"
"""What ``experiment.yaml`` gives as its geometry to use the one refined from the first run that has one, for all runs; or for
each run the one refined from the run before it, as far as there is one when it is ingested.
"""

P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True)
class Experiment:
    """One experiment's folder, files and settings; without a cell of its own, one is found for each run."""

    name: str
    folder: Path
    geometry: Path
    cell: Path | None
    data_path: str | None = None
    engine: str = "lattice"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    classical_finder: str = next(iter(CLASSICAL))
    groups: Mapping[str, GroupRule] = field(default_factory=dict)
    """Groups of frames, by their names in the order in which they are asked."""
    calibration_file: Path | None = None
    """Constants for raw frames (``/pedestal``, ``/gain``); None where the frames are calibrated."""
    allowed_roots: tuple[Path, ...] = ()
    """Folders that run files and links in them may lead into, besides the raw root."""

    @property
    def min_peaks(self) -> int:
        """Least peaks of a hit: what the section ``metrics`` says holds for every asset of the experiment's runs."""
        return self.parameters("metrics", MetricParams).min_peaks

    def parameters(
        self,
        section: str,
        cls: type[P],
        overrides: Mapping[str, Any] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> P:
        """Return a parameter set: defaults, then the experiment's section, then the overrides that aren't None."""
        given = {k: v for k, v in (overrides or {}).items() if v is not None}
        return cls.from_mapping({**(defaults or {}), **self.settings.get(section, {}), **given})


def read_experiment(store: Store, key: RunKey, *, anew: bool = False) -> Experiment:
    """Read an experiment's settings; without ``experiment.yaml``, its only ``.geom`` and ``.cell`` are taken.

    ``geometry: refined`` takes the geometry refined from the experiment's first run that has one; ``geometry: auto`` the one
    refined from the last earlier run that has one. A run keeps the one that it was ingested with, so that all its outputs
    go together, until it is ingested ``anew``.

    Raises
    ------
    RunError
        The experiment has no folder under the raw root.
    ParameterError
        ``experiment.yaml`` is malformed or names unknown settings.
    GeometryError, CellError
        No geometry, or more than one geometry or cell to choose from.

    """
    folder = store.experiment_folder(key)
    if not folder.is_dir():
        raise RunError("no such experiment", where=folder, remedy="Put its raw runs there.")
    text = read_settings_text(folder / SETTINGS_FILE)
    problems = list(settings_problems(text))
    if problems:
        raise join_problems(text.path, problems)
    values = text.values
    named_cell = values.get("cell")
    no_cell = named_cell is None and not any(folder.glob("*.cell"))
    constants = values.get("calibration_file")
    return Experiment(
        name=key.experiment,
        folder=folder,
        geometry=_geometry(store, key, text, anew=anew),
        cell=None if no_cell else _choose(store, text, "cell", CellError),
        data_path=values.get("data_path"),
        engine=values.get("engine", ENGINES[0]),
        settings={name: text.section(name) for name in SECTIONS if name in values},
        classical_finder=values.get("classical_finder", CHOICES["classical_finder"][0]),
        groups=group_rules(text),
        calibration_file=None if constants is None else _inside(store, text, "calibration_file", RunError),
        allowed_roots=allowed_roots(store, text),
    )


def refined_runs(store: Store, experiment: str) -> list[RunKey]:
    """Return the runs of an experiment that a geometry was refined from, in their order."""
    paths = (store.root / "store" / "refined_geometry").glob(f"{experiment}-r*.geom")
    keys = [parse_key(path.stem) for path in paths]
    return sorted((key for key in keys if key.experiment == experiment), key=lambda key: key.number)


def _geometry(store: Store, key: RunKey, text: SettingsText, *, anew: bool) -> Path:
    wanted = text.values.get("geometry")
    if wanted not in (REFINED, AUTO):
        return _choose(store, text, "geometry", GeometryError)
    refined = refined_runs(store, key.experiment)
    if wanted == AUTO:
        earlier = [refined_geometry_path(store, str(run)) for run in refined if run.number < key.number]
        choices = [_choose(store, text, "geometry", GeometryError), *earlier]
        return (None if anew else _ingested_with(store, key, choices)) or choices[-1]
    files = [refined_geometry_path(store, str(run)) for run in refined]
    if not files:
        raise GeometryError(
            "no refined geometry",
            where=text.where("geometry"),
            remedy="Index a run with the geometry as given, materialize refined_geometry for it, then set this.",
        )
    return files[0]


def _ingested_with(store: Store, key: RunKey, choices: Sequence[Path]) -> Path | None:
    """Return which geometry a run's manifest was made with; None before it was made, or where that one is gone."""
    record = read_recipe(manifest_path(store, str(key))) or {}
    inputs = record.get("inputs", {})
    return next((path for path in choices if os.path.abspath(path) in inputs), None)  # noqa: PTH100  (as in recipes)


def _choose(
    store: Store, text: SettingsText, name: str, error: type[GeometryError] | type[CellError]
) -> Path:
    """Return the geometry or cell that the settings name, or the only one in the folder."""
    if text.values.get(name) not in (None, AUTO):
        return _inside(store, text, name, error)
    pattern, folder = PATTERNS[name], text.path.parent
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise error(
            f"{len(files)} files {pattern}",
            where=folder,
            expected="exactly one, or one named in experiment.yaml",
            found=[p.name for p in files] or "none",
        )
    return files[0]


def allowed_roots(store: Store, text: SettingsText) -> tuple[Path, ...]:
    """Return the folders that the experiment's links may lead into, besides those that hold for all experiments.

    Raises
    ------
    ParameterError
        A folder isn't there, or ``pipeline.yaml`` names folders and it lies in none of them.

    """
    general = pipeline_roots(store)
    own = folders_of(text.values.get(ROOTS), text.path.parent, text.where(ROOTS))
    outside = [str(folder) for folder in own if general and not any(map(folder.is_relative_to, general))]
    if outside:
        raise ParameterError(
            f"{ROOTS} lead out of those of {pipeline_file(store)}",
            where=text.where(ROOTS),
            expected=f"folders below {' or '.join(map(str, general))}",
            found=outside,
        )
    return tuple(dict.fromkeys((*general, *own)))


def _inside(store: Store, text: SettingsText, name: str, error: type[PeaknetError]) -> Path:
    """Return a file that ``experiment.yaml`` names, which may not lie outside its folder."""
    path = store.confine(Path(str(text.values[name])), text.path.parent)
    if not path.is_file():
        raise error("no such file", where=path, remedy=f"Mend {text.where(name)}.")
    return path
