"""Tables of the second look: its lattices, and the rates with and without it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.distance import camera_lengths_m
from peaknet_pipeline.indexing.lattice import AXIS_COLUMNS
from peaknet_pipeline.indexing.second_look.acceptance import SecondLookControl
from peaknet_pipeline.indexing.second_look.flat_detector import FlatDetector
from peaknet_pipeline.indexing.second_look.run_model import RunModel
from peaknet_pipeline.indexing.second_look.weak_frame import FoundLattice
from peaknet_pipeline.schemas import INDEX, SECOND_LOOK, SECOND_LOOK_RATES, IndexTable, SecondLookTable
from peaknet_pipeline.tables import empty_table, make_table
from peaknet_pipeline.types import Geometry, IntArray


@dataclass(frozen=True)
class SecondLookOutcome:
    """What the second look found.

    ``table`` accepted lattices, and those of the list with their score; ``control`` of the run; ``model`` what the run's own
    lattices told; ``n_searched`` frames without a lattice that were worth a search, ``n_left`` all frames without one;
    ``spot_sigma`` px; ``seconds`` of processor time that one search took, and all of the second look.
    """

    table: SecondLookTable
    control: SecondLookControl
    model: RunModel
    n_searched: int
    n_left: int
    spot_sigma: float
    seconds: tuple[float, float] = (math.nan, math.nan)

    def record(self) -> dict[str, Any]:
        """Return all but the table, ready for JSON."""
        model = {"cell": asdict(self.model.cell), **asdict(self.model.model), "n_frames": self.model.n_frames}
        return {
            "control": self.control.record(),
            "model": model | {"shift_px": [float(v) for v in self.model.shift]},
            "searched": self.n_searched,
            "frames_without_a_lattice": self.n_left,
            "spot_sigma_px": self.spot_sigma,
            "seconds": {"search": self.seconds[0], "all": self.seconds[1]},
        }


def lattice_rows(
    frame: int, lattices: Sequence[FoundLattice], origin: str, *, first: int = 0
) -> list[dict[str, Any]]:
    """Return the lattices of a frame as rows of the SECOND_LOOK table, numbered from ``first``."""
    return [
        {
            "frame": frame,
            "lattice": first + number,
            "origin": origin,
            "score": one.score,
            "n_predicted": one.n_predicted,
            "axes": one.axes,
            "shift": one.shift,
        }
        for number, one in enumerate(lattices)
    ]


def make_second_look_table(
    rows: Sequence[Sequence[dict[str, Any]]], flat: FlatDetector, geometry: Geometry
) -> SecondLookTable:
    """Return rows of frames as a SECOND_LOOK table, ordered by frame and lattice."""
    flatrows = sorted((row for part in rows for row in part), key=lambda row: (row["frame"], row["lattice"]))
    if not flatrows:
        return empty_table(SECOND_LOOK)
    frames = np.array([row["frame"] for row in flatrows], dtype=np.int64)
    mm = 1e3 * camera_lengths_m(geometry, frames) / flat.distance
    axes = np.stack([row["axes"].T.reshape(9) for row in flatrows])
    # A pattern that lies further in x by some cells means a detector that lies further the other way.
    shift = -np.stack([row["shift"] for row in flatrows]) * mm[:, None]
    columns: dict[str, Any] = {name: axes[:, i] for i, name in enumerate(AXIS_COLUMNS)}
    columns |= {
        name: [row[name] for row in flatrows] for name in ("lattice", "origin", "score", "n_predicted")
    }
    columns |= {"frame": frames, "shift_x_mm": shift[:, 0], "shift_y_mm": shift[:, 1]}
    return make_table(SECOND_LOOK, columns)


def join_second_look(lattices: IndexTable, table: SecondLookTable) -> IndexTable:
    """Return the list's lattices and the second look's own, as one INDEX table ordered by frame and lattice.

    No peak was offered for the second look's, so that their ``n_peaks``, ``n_explained`` and ``residual`` are 0.
    """
    found = table[table["origin"] == "second look"]
    names = ["frame", *AXIS_COLUMNS, "shift_x_mm", "shift_y_mm"]
    nothing = {name: np.zeros(len(found)) for name in ("lattice", "n_peaks", "n_explained", "residual")}
    more = make_table(INDEX, {name: found[name].to_numpy() for name in names} | nothing)
    both = pd.concat([lattices, more], ignore_index=True).sort_values("frame", kind="stable")
    both["lattice"] = both.groupby("frame").cumcount().astype(both["lattice"].dtype)
    return both.reset_index(drop=True)


def best_lattices(tables: Sequence[IndexTable]) -> IndexTable:
    """Return each frame's lattices from the table in which they explain most peaks, ordered by frame and lattice."""
    best: dict[int, IndexTable] = {}
    for table in tables:
        for frame, rows in table.groupby("frame", sort=False):
            number = int(str(frame))
            if number not in best or rows["n_explained"].sum() > best[number]["n_explained"].sum():
                best[number] = rows
    if not best:
        return empty_table(INDEX)
    return pd.concat([best[number] for number in sorted(best)], ignore_index=True)


def frames_left(tables: Sequence[IndexTable], n_frames: int) -> IntArray:
    """Return the frames that at least one of the tables has no lattice of, ascending."""
    settled = np.ones(n_frames, dtype=np.bool_)
    for table in tables:
        settled &= np.isin(np.arange(n_frames), table["frame"].to_numpy(dtype=np.int64))
    return np.flatnonzero(~settled)


def second_look_rates(
    outcome: SecondLookOutcome, lattices: IndexTable, *, experiment: str, run: str, finder: str, n_frames: int
) -> pd.DataFrame:
    """Return the row of one finder in the SECOND_LOOK_RATES table: its list's frames, those added, and the control."""
    listed = set(lattices["frame"].tolist())
    found = outcome.table[outcome.table["origin"] == "second look"]
    added = set(found["frame"].tolist()) - listed
    control = outcome.control
    row = {
        "experiment": experiment,
        "run": run,
        "finder": finder,
        "frames": n_frames,
        "indexed": len(listed),
        "second_look_indexed": len(added),
        "second_look_lattices": len(found),
        "indexing_yield": len(listed) / n_frames if n_frames else np.nan,
        "second_look_yield": (len(listed) + len(added)) / n_frames if n_frames else np.nan,
        "second_look_searched": outcome.n_searched,
        "second_look_copies": control.n_copies,
        "second_look_highest": control.highest if np.isfinite(control.highest) else np.nan,
        "second_look_bar": control.bar,
        "second_look_false_limit": control.false_rate_limit,
    }
    return make_table(SECOND_LOOK_RATES, {name: [value] for name, value in row.items()})
