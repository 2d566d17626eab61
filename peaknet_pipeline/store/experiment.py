"""An experiment's own settings: geometry, cell and parameters, from ``experiment.yaml`` beside its raw runs."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from peaknet_pipeline.errors import CellError, GeometryError, ParameterError, PeaknetError, RunError
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.store.keys import RunKey, parse_key, run_number
from peaknet_pipeline.store.layout import Store

SECTIONS = (
    "finder",
    "scan",
    "index",
    "match",
    "fit",
    "labels",
    "cell_check",
    "curation",
    "prediction",
    "metrics",
    "bad_pixels",
    "diagnosis",
    "calibration",
    "mask",
    "droplet",
    "cell_search",
    "refine_geometry",
)
"""Parameter sections that ``experiment.yaml`` may hold."""

ENGINES = ("lattice", "indexamajig")
"""Indexing engines that ``experiment.yaml`` may name: the embedded one, or CrystFEL's."""

REFINED = "refined"
"""What ``experiment.yaml`` gives as its geometry to use one that was refined from a run."""

CLASSICAL_FINDERS = ("peakfinder8", "droplet")
"""Classical finders that ``experiment.yaml`` may name."""

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
    classical_finder: str = "peakfinder8"
    calibration_file: Path | None = None
    """Constants for raw frames (``/pedestal``, ``/gain``); None where the frames are calibrated."""

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


def read_experiment(store: Store, key: RunKey) -> Experiment:
    """Read an experiment's settings; without ``experiment.yaml``, its only ``.geom`` and ``.cell`` are taken.

    ``geometry: refined`` takes the geometry refined from the experiment's first run that has one.

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
    values = _read_settings(folder / "experiment.yaml")
    sections = {name: values.pop(name) for name in SECTIONS if name in values}
    geometry = _geometry(store, key, folder, values.pop("geometry", None))
    named_cell = values.pop("cell", None)
    no_cell = named_cell is None and not any(folder.glob("*.cell"))
    cell = None if no_cell else _choose(store, folder, named_cell, "*.cell", CellError)
    constants = values.pop("calibration_file", None)
    if constants is None and "calibration" in sections:
        raise ParameterError(
            "calibration without constants", where=folder, expected="calibration_file: constants.h5"
        )
    calibration = None if constants is None else _inside(store, folder, constants, RunError)
    data_path = values.pop("data_path", None)
    engine = _one_of(ENGINES, "engine", values, folder)
    finder = _one_of(CLASSICAL_FINDERS, "classical_finder", values, folder)
    if values:
        raise ParameterError(
            f"unknown settings {sorted(values)}",
            where=folder / "experiment.yaml",
            expected=f"geometry, cell, calibration_file, data_path, engine, classical_finder, {', '.join(SECTIONS)}",
        )
    return Experiment(
        key.experiment, folder, geometry, cell, data_path, engine, sections, finder, calibration
    )


def find_run_file(store: Store, key: RunKey) -> Path:
    """Return the raw file of a run.

    Raises
    ------
    RunError
        No file, or more than one, bears the run's number.

    """
    folder = store.experiment_folder(key)
    files = run_files(folder).get(key.number, [])
    if len(files) != 1:
        raise RunError(
            f"run {key.number} has {len(files)} raw files",
            where=folder,
            expected="exactly one, such as r0001.h5",
            found=[p.name for p in files] or "none",
        )
    return files[0]


def run_files(folder: Path) -> dict[int, list[Path]]:
    """Return the raw files of each run number in an experiment's folder: of those of one run, the master alone."""
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("*")):
        number = run_number(path)
        if number is not None:
            found.setdefault(number, []).append(path)
    masters = {n: [p for p in files if p.stem.endswith("_master")] for n, files in found.items()}
    return {number: masters[number] or files for number, files in found.items()}


def settings_digest(experiment: Experiment) -> dict[str, Any]:
    """Return the settings as plain values, for provenance."""
    return {k: v if not isinstance(v, Path) else v.name for k, v in dataclasses.asdict(experiment).items()}


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"not readable as YAML ({error})", where=path) from error
    if values is not None and not isinstance(values, dict):
        raise ParameterError(
            "not a mapping", where=path, expected="NAME: VALUE lines", found=type(values).__name__
        )
    for name in SECTIONS:
        if values and not isinstance(values.get(name, {}), dict):
            raise ParameterError(f"section {name} is not a mapping", where=path, expected="NAME: VALUE lines")
    return dict(values or {})


def _one_of(choices: tuple[str, ...], name: str, values: dict[str, Any], folder: Path) -> str:
    """Take a named choice out of the settings; the first one where it isn't named."""
    chosen = values.pop(name, choices[0])
    if chosen not in choices:
        raise ParameterError(f"unknown {name}", where=folder, expected=f"one of {choices}", found=chosen)
    return str(chosen)


def _geometry(store: Store, key: RunKey, folder: Path, named: object) -> Path:
    if named != REFINED:
        return _choose(store, folder, named, "*.geom", GeometryError)
    files = sorted((store.root / "store" / "refined_geometry").glob(f"{key.experiment}-r*.geom"))
    files = [path for path in files if parse_key(path.stem).experiment == key.experiment]
    if not files:
        raise GeometryError(
            "no refined geometry",
            where=folder / "experiment.yaml",
            remedy="Index a run with the geometry as given, materialize refined_geometry for it, then set this.",
        )
    return files[0]


def _choose(
    store: Store, folder: Path, named: object, pattern: str, error: type[GeometryError] | type[CellError]
) -> Path:
    if named is not None:
        return _inside(store, folder, named, error)
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise error(
            f"{len(files)} files {pattern}",
            where=folder,
            expected="exactly one, or one named in experiment.yaml",
            found=[p.name for p in files] or "none",
        )
    return files[0]


def _inside(store: Store, folder: Path, named: object, error: type[PeaknetError]) -> Path:
    """Return a file that ``experiment.yaml`` names, which may not lie outside its folder."""
    path = store.confine(Path(str(named)), folder)
    if not path.is_file():
        raise error("no such file", where=path, remedy="Mend experiment.yaml.")
    return path
