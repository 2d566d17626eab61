"""The truth of a simulated run: three tables, kept in the run's own file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from peaknet_pipeline.errors import RunError, TableError
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.schemas import TRUTH_FRAMES, TRUTH_LATTICES, TRUTH_REFLECTIONS, Schema
from peaknet_pipeline.simulate.frames import Columns, SimulatedFrame
from peaknet_pipeline.tables import empty_table, make_table

TABLES = {"frames": TRUTH_FRAMES, "lattices": TRUTH_LATTICES, "reflections": TRUTH_REFLECTIONS}


@dataclass(frozen=True)
class Truth:
    """What was simulated: tables after ``TRUTH_FRAMES``, ``TRUTH_LATTICES`` and ``TRUTH_REFLECTIONS``."""

    frames: pd.DataFrame
    lattices: pd.DataFrame
    reflections: pd.DataFrame


def collect_truth(frames: Iterable[SimulatedFrame]) -> Truth:
    """Gather the truth of frames; their pixels are not kept."""
    return join_truth([truth_columns(frame) for frame in frames])


def truth_columns(frame: SimulatedFrame) -> tuple[Columns, Columns, Columns]:
    """Return one frame's rows of the three tables, as columns."""
    shot, names = frame.shot, [f"{a}star_{x}" for a in "abc" for x in "xyz"]
    shots: Columns = {
        "frame": np.array([shot.frame]),
        "kind": np.array([shot.kind], dtype=object),
        "n_lattices": np.array([len(shot.rotations)]),
        "background_scale": np.array([shot.background_scale]),
        "photon_energy_ev": np.array([shot.photon_energy_ev]),
    }
    axes = np.stack([a.ravel() for a in frame.axes]) if frame.axes else np.empty((0, 9))
    lattices: Columns = {"frame": np.full(len(axes), shot.frame), "lattice": np.arange(len(axes))}
    lattices |= dict(zip(names, axes.T, strict=True))
    n_reflections = len(frame.reflections["fs"]) if frame.reflections else 0
    reflections: Columns = {"frame": np.full(n_reflections, shot.frame), **frame.reflections}
    return shots, lattices, reflections


def join_truth(parts: list[tuple[Columns, Columns, Columns]]) -> Truth:
    """Make the tables from the columns of several frames."""
    return Truth(
        *(
            _join(list(columns), schema)
            for columns, schema in zip(zip(*parts, strict=True), TABLES.values(), strict=True)
        )
    )


def write_truth(file: Any, truth: Truth) -> None:
    """Write the tables below ``/truth``, one data set per column."""
    for name, schema in TABLES.items():
        group = file.require_group(f"truth/{name}")
        group.attrs["meaning"] = schema.meaning
        for column in schema.columns:
            values = getattr(truth, name)[column.name].to_numpy()
            stored = values.astype("S16") if column.dtype == "string" else values
            data = group.create_dataset(column.name, data=stored)
            data.attrs["unit"], data.attrs["meaning"] = column.unit, column.meaning


def read_truth(path: Path) -> Truth:
    """Read the truth of a simulated run.

    Raises
    ------
    RunError
        The file is unreadable, or holds no truth of this package's form.

    """
    try:
        with LinkedFiles(path) as files:
            return Truth(*(_read_columns(files, f"/truth/{name}", schema) for name, schema in TABLES.items()))
    except (RunError, TableError, *DAMAGE) as error:
        raise RunError(
            "holds no simulated truth",
            where=path,
            found=error,
            remedy="Only runs written by the simulator have it.",
        ) from error


def _read_columns(files: LinkedFiles, place: str, schema: Schema) -> pd.DataFrame:
    columns: Mapping[str, npt.NDArray[np.generic]] = {
        c.name: read_whole(files.dataset(f"{place}/{c.name}")) for c in schema.columns
    }
    text = {c.name for c in schema.columns if c.dtype == "string"}
    return make_table(
        schema, {n: v.astype("U16").astype(object) if n in text else v for n, v in columns.items()}
    )


def _join(parts: list[Columns], schema: Schema) -> pd.DataFrame:
    filled = [part for part in parts if len(part["frame"])]
    if not filled:
        return empty_table(schema)
    names = [name for name in schema.column_names() if name in filled[0]]
    return make_table(schema, {name: np.concatenate([part[name] for part in filled]) for name in names})
