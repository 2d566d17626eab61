"""What there is to see of one run: frames, the detector, bad pixels by reason, peaks and lattices of each finder."""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.maps import panel_table
from peaknet_pipeline.hits import MIN_PEAKS, hit_frames
from peaknet_pipeline.indexing.predict import predict_reflections, table_cells
from peaknet_pipeline.runs.rings import ICE_RINGS_ANGSTROM
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.statistics import compute_statistics
from peaknet_pipeline.schemas import CurationTable, IndexTable, PeakTable
from peaknet_pipeline.steps.peak_tables import positions_px
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry, IntArray, UnitCell

POWDER_FRAMES = 100
"""Frames of a virtual powder at most, evenly spaced over the run."""


@dataclass(frozen=True)
class Lattices:
    """Lattices of one source: the list indexer with a finder's peaks, or a second look."""

    table: IndexTable
    finder: str | None
    """Whose peaks they were found from; None where they were not found from a list."""


@dataclass
class Scene:
    """One run with what was found in it; open until :meth:`close`.

    Attributes
    ----------
    run : Run
        With a geometry.
    name : str
    layers : mapping of (n_panels, ss, fs) bool
        Bad pixels by reason, True = bad.
    peaks, lattices : mapping
        By the name of the finder or of the source.
    cell : UnitCell, optional
        Needed to predict reflections.
    curation : CurationTable, optional
    min_peaks : int
        Least peaks of a hit.
    opened : ExitStack
        What to close besides the run.

    """

    run: Run
    name: str
    layers: Mapping[str, BoolArray]
    peaks: dict[str, PeakTable] = field(default_factory=dict)
    lattices: dict[str, Lattices] = field(default_factory=dict)
    cell: UnitCell | None = None
    curation: CurationTable | None = None
    min_peaks: int = MIN_PEAKS
    opened: ExitStack = field(default_factory=ExitStack, repr=False)

    def __post_init__(self) -> None:
        """Look up which rows belong to which frame, once."""
        self.geometry: Geometry = geometry_of(self.run)
        self.bad_pixels: BoolArray = np.logical_or.reduce(list(self.layers.values()) or [self.run.bad_pixels])
        self._lock = threading.Lock()
        self._rows = {name: table.groupby("frame").indices for name, table in self.peaks.items()}
        self._lattice_rows = {name: s.table.groupby("frame").indices for name, s in self.lattices.items()}
        self._powder: dict[str, npt.NDArray[np.float32]] = {}

    def close(self) -> None:
        """Close the run's files."""
        with self.opened:
            self.run.close()

    @cached_property
    def layout(self) -> npt.NDArray[np.uint32]:
        """The assembled image's pixels, (rows, columns): 1 + flat index into the stack, 0 where there is no panel."""
        stack = np.arange(1, self.bad_pixels.size + 1, dtype=np.uint32).reshape(self.bad_pixels.shape)
        return np.asarray(assemble(stack, self.geometry, fill=0), dtype=np.uint32)

    @cached_property
    def reasons(self) -> npt.NDArray[np.uint8]:
        """Bad pixels of the stack, (n_panels, ss, fs): 1 + number of the first reason, 0 = good."""
        reasons = np.zeros(self.bad_pixels.shape, dtype=np.uint8)
        for number, layer in reversed(list(enumerate(self.layers.values(), start=1))):
            reasons[layer] = min(number, 255)
        return reasons

    def frame(self, number: int) -> npt.NDArray[Any]:
        """Return a frame, (n_panels, ss, fs), in a type that a browser has."""
        values = self.read(number)
        return np.ascontiguousarray(values, dtype=browser_type(values.dtype))

    def read(self, number: int) -> FrameArray:
        """Return a frame as stored, (n_panels, ss, fs)."""
        with self._lock:
            single: FrameArray = self.run.read(number, number + 1)[0]
        return single

    def powder(self, kind: str) -> npt.NDArray[np.float32]:
        """Return the mean or maximum of each pixel over frames spread over the run, (n_panels, ss, fs), adu."""
        with self._lock:
            if not self._powder:
                statistics = compute_statistics(self.run, max_frames=POWDER_FRAMES)
                self._powder = {
                    "mean": statistics.mean.astype(np.float32),
                    "max": statistics.maximum.astype(np.float32),
                }
        return self._powder[kind]

    def about(self) -> dict[str, Any]:
        """Return what does not change from frame to frame; lengths in metres, energies in eV, pixels of the first panel."""
        left, _, _, top = image_extent(self.geometry)
        energy = self.run.photon_energy_ev
        known = np.isfinite(energy)
        return {
            "name": self.name,
            "path": str(self.run.info.path),
            "n_frames": self.run.n_frames,
            "shape": list(self.bad_pixels.shape),
            "image": list(self.layout.shape),
            "origin": [left, top],
            "pixel_m": self.geometry.panels[0].pixel_size_m,
            "panels": [panel.name for panel in self.geometry.panels],
            "panel_table": panel_table(self.geometry).tolist() if knows_distance(self.geometry) else None,
            "photon_energy_ev": float(np.median(energy[known])) if known.any() else None,
            "reasons": list(self.layers),
            "n_bad": [int(layer.sum()) for layer in self.layers.values()],
            "finders": list(self.peaks),
            "sources": {name: source.finder for name, source in self.lattices.items()},
            "min_peaks": self.min_peaks,
            "cell": None if self.cell is None else _cell_text(self.cell),
            "ice_d": list(ICE_RINGS_ANGSTROM),
        }

    def marks(self, number: int) -> dict[str, Any]:
        """Return peaks, lattices and predicted reflections of a frame, positions in pixels of the assembled image."""
        energy = float(self.run.photon_energy_ev[number])
        return {
            "frame": number,
            "event": self.run.event(number)[1],
            "photon_energy_ev": energy if np.isfinite(energy) else None,
            "peaks": {name: self.peak_marks(self.peaks_of(name, number)) for name in self.peaks},
            "lattices": {name: self._lattice_marks(name, number) for name in self.lattices},
        }

    def peaks_of(self, finder: str, number: int) -> PeakTable:
        """Return a finder's peaks in one frame."""
        return self.peaks[finder].iloc[self._rows[finder].get(number, [])]

    def peak_marks(self, peaks: PeakTable) -> dict[str, Any]:
        """Return positions and figures of some peaks, as lists."""
        place = self._image_positions(peaks)
        shown = {"x": place[:, 0], "y": place[:, 1]}
        shown |= {name: peaks[name].to_numpy(np.float64) for name in ("snr", "intensity", "inv_d", "score")}
        return {name: _plain(values) for name, values in shown.items()}

    def _lattice_marks(self, source: str, number: int) -> dict[str, Any]:
        lattices = self.lattices[source].table.iloc[self._lattice_rows[source].get(number, [])]
        found: dict[str, Any] = {"lattices": [], "x": [], "y": [], "hkl": [], "lattice": []}
        if not len(lattices) or self.cell is None:
            return found
        for (_, row), cell in zip(lattices.iterrows(), table_cells(lattices, self.cell), strict=True):
            figures = {
                name: _number(row[name]) for name in ("n_peaks", "n_explained", "score") if name in row
            }
            found["lattices"].append({"cell": _cell_text(cell), **figures})
        finder = self.lattices[source].finder
        predicted = predict_reflections(
            lattices,
            peaks=self.peaks_of(finder, number) if finder in self.peaks else None,
            cell=self.cell,
            geometry=self.geometry,
            photon_energy_ev=self.run.photon_energy_ev,
        )
        place = self._image_positions(predicted)
        found |= {"x": _plain(place[:, 0]), "y": _plain(place[:, 1])}
        found["hkl"] = predicted[["h", "k", "l"]].to_numpy().tolist()
        found["lattice"] = predicted["lattice"].to_numpy().tolist()
        return found

    def frames(self) -> dict[str, Any]:
        """Return all frames by column: peaks and hits (0 or 1) of each finder, lattices of each source, curation."""
        n = self.run.n_frames
        table: dict[str, Any] = {"frame": list(range(n))}
        for name, peaks in self.peaks.items():
            hits = hit_frames(peaks, min_peaks=self.min_peaks)
            table[f"peaks {name}"] = _per_frame(peaks, n).tolist()
            table[f"hit {name}"] = np.isin(np.arange(n), hits).astype(int).tolist()
        for name, source in self.lattices.items():
            table[f"lattices {name}"] = _per_frame(source.table, n).tolist()
        if self.curation is not None:
            rank: list[int | None] = [None] * n
            reason = [""] * n
            for frame, place, why in zip(
                self.curation["frame"], self.curation["rank"], self.curation["reason"], strict=True
            ):
                rank[int(frame)], reason[int(frame)] = int(place), str(why)
            table |= {"rank": rank, "reason": reason}
        return table

    def _image_positions(self, table: PeakTable) -> Float64Array:
        left, _, _, top = image_extent(self.geometry)
        lab = positions_px(table, self.geometry)
        return np.asarray(np.column_stack([lab[:, 0] - left, top - lab[:, 1]]), dtype=np.float64)


def browser_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the little-endian type of a JavaScript array that holds values of ``dtype``; 64 bits become float32."""
    if dtype.kind in "uib" and dtype.itemsize <= 4:
        return np.dtype("u1") if dtype.kind == "b" else dtype.newbyteorder("<")
    return np.dtype("<f4")


def _per_frame(table: PeakTable, n_frames: int) -> IntArray:
    return np.bincount(table["frame"].to_numpy(dtype=np.int64), minlength=n_frames)[:n_frames]


def _plain(values: Float64Array) -> list[float | None]:
    """Return numbers for JSON, which has no NaN."""
    return [None if not np.isfinite(v) else round(float(v), 4) for v in values]


def _number(value: Any) -> float | None:
    return round(float(value), 2) if np.isfinite(value) else None


def _cell_text(cell: UnitCell) -> str:
    lengths = " × ".join(f"{v:.1f}" for v in (cell.a, cell.b, cell.c))
    angles = ", ".join(f"{v:.1f}" for v in (cell.alpha, cell.beta, cell.gamma))
    return f"{lengths} Å, {angles}°"
