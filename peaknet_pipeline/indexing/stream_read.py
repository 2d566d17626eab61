"""Read CrystFEL ``.stream`` files, as ``indexamajig`` and :mod:`stream_file` write them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.resolve import resolve_geometry, typical_value
from peaknet_pipeline.indexing.lattice import AXIS_COLUMNS
from peaknet_pipeline.indexing.predict import move_spots
from peaknet_pipeline.indexing.stream_file import HALF_PIXEL
from peaknet_pipeline.schemas import INDEX, PEAKS, REFLECTIONS, IndexTable, PeakTable, ReflectionTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float64Array, Geometry

EXPLAINED_INDEX_ERROR = 0.25
"""A peak is explained when each Miller index is within this of a whole number, as CrystFEL counts."""


@dataclass(frozen=True)
class Stream:
    """What a stream holds: its geometry, and tables by frame number (the number after ``//`` in ``Event``).

    ``photon_energy_ev`` maps frames to eV; ``image_path`` frames to files; frames without peaks appear there too.
    """

    geometry: Geometry
    peaks: PeakTable
    lattices: IndexTable
    reflections: ReflectionTable
    photon_energy_ev: dict[int, float]
    image_path: dict[int, str]
    indexed_by: dict[int, str]


@dataclass
class _Chunk:
    frame: int = -1
    image_path: str = ""
    energy_ev: float = float("nan")
    clen_m: float = float("nan")
    indexed_by: str = "none"
    peaks: list[tuple[float, ...]] = field(default_factory=list)
    crystals: list[Float64Array] = field(default_factory=list)
    shifts: list[tuple[float, float]] = field(default_factory=list)
    reflections: list[tuple[float, ...]] = field(default_factory=list)


def read_stream(path: Path | str, *, geometry: Geometry | None = None) -> Stream:
    """Read a stream.

    Parameters
    ----------
    geometry : Geometry, optional
        Used instead of the embedded one.

    Raises
    ------
    IndexingError
        The file is missing, no stream, or breaks off within a chunk; with the line where it does.

    """
    path = Path(path)
    if not path.is_file():
        raise IndexingError("no such stream", where=path)
    with path.open(encoding="utf-8", errors="replace") as lines:
        first = next(lines, "")
        if not first.startswith("CrystFEL stream format"):
            raise IndexingError("not a CrystFEL stream", where=path, found=first[:40].strip() or "nothing")
        reader = _Reader(lines, path)
        embedded = reader.geometry_text()
        geometry = geometry or parse_geometry(embedded, source=path)
        reader.panels = {p.name: (n, p.min_fs, p.min_ss) for n, p in enumerate(geometry.panels)}
        chunks = list(reader.chunks())
    return _stream(chunks, _with_camera_length(geometry, chunks))


def _with_camera_length(geometry: Geometry, chunks: list[_Chunk]) -> Geometry:
    """Return a geometry that leaves its camera length to the image files with the chunks' typical one."""
    if geometry.clen_path is None or knows_distance(geometry):
        return geometry
    offset = float(np.mean([panel.coffset_m for panel in geometry.panels]))
    return resolve_geometry(geometry, clen_m=typical_value(np.array([c.clen_m - offset for c in chunks])))


class _Reader:
    """A stream's lines, counted, turned into chunks."""

    def __init__(self, lines: Iterable[str], path: Path) -> None:
        self.number = 1
        self.line = ""
        self.path = path
        self.panels: dict[str, tuple[int, int, int]] = {}
        self._lines = iter(lines)

    def geometry_text(self) -> str:
        """Return the embedded geometry's text, or nothing when chunks begin before one."""
        for line in self._next():
            if line.startswith("----- Begin geometry file"):
                return "\n".join(self._until("----- End geometry file"))
        raise self._broken("no embedded geometry")

    def chunks(self) -> Iterator[_Chunk]:
        """Yield the chunks that follow."""
        serial = 0
        for line in self._next():
            if line.startswith("----- Begin chunk"):
                yield self._chunk(serial)
                serial += 1

    def _next(self) -> Iterator[str]:
        for line in self._lines:
            self.number += 1
            self.line = line.rstrip("\n")
            yield self.line

    def _until(self, end: str) -> Iterator[str]:
        for line in self._next():
            if line.startswith(end):
                return
            yield line
        raise self._broken(f"no line '{end}'")

    def _broken(self, what: str) -> IndexingError:
        return IndexingError(f"broken stream: {what}", where=f"{self.path}:{self.number}")

    def _chunk(self, serial: int) -> _Chunk:
        chunk = _Chunk(frame=serial)
        for line in self._until("----- End chunk"):
            try:
                self._take(line, chunk)
            except (ValueError, IndexError, KeyError) as error:
                raise self._broken(f"cannot read '{self.line.strip()[:60]}'") from error
        return chunk

    def _take(self, line: str, chunk: _Chunk) -> None:
        key, _, value = line.partition(" = ")
        if line.startswith("Image filename: "):
            chunk.image_path = line.removeprefix("Image filename: ")
        elif line.startswith("Event: "):
            match = re.search(r"//(\d+)\s*$", line)
            chunk.frame = int(match[1]) if match else chunk.frame
        elif key == "photon_energy_eV":
            chunk.energy_ev = float(value)
        elif key == "average_camera_length":
            chunk.clen_m = float(value.split()[0])
        elif key == "indexed_by":
            chunk.indexed_by = value.strip()
        elif line.startswith("Peaks from peak search"):
            chunk.peaks += [self._peak(row) for row in self._rows("End of peak list")]
        elif line.startswith("--- Begin crystal"):
            self._crystal(chunk)

    def _rows(self, end: str) -> Iterator[list[str]]:
        lines = self._until(end)
        next(lines, None)
        for line in lines:
            yield line.split()

    def _peak(self, row: list[str]) -> tuple[float, ...]:
        panel, min_fs, min_ss = self.panels[row[4]]
        fs, ss = float(row[0]) - min_fs - HALF_PIXEL, float(row[1]) - min_ss - HALF_PIXEL
        return (panel, fs, ss, 0.1 * float(row[2]), float(row[3]))

    def _crystal(self, chunk: _Chunk) -> None:
        axes: dict[str, list[float]] = {}
        shift = (float("nan"), float("nan"))
        for line in self._until("--- End crystal"):
            key, _, value = line.partition(" = ")
            if key in ("astar", "bstar", "cstar"):
                axes[key] = [0.1 * float(v) for v in value.split()[:3]]
            elif line.startswith("predict_refine/det_shift"):
                words = line.split()
                shift = (float(words[3]), float(words[6]))
            elif line.startswith("Reflections measured after indexing"):
                for row in self._rows("End of reflections"):
                    chunk.reflections.append((len(chunk.crystals), *self._reflection(row)))
        chunk.crystals.append(np.array([axes["astar"], axes["bstar"], axes["cstar"]]).T)
        chunk.shifts.append(shift)

    def _reflection(self, row: list[str]) -> tuple[float, ...]:
        panel, min_fs, min_ss = self.panels[row[9]]
        fs, ss = float(row[7]) - min_fs - HALF_PIXEL, float(row[8]) - min_ss - HALF_PIXEL
        return (*(float(v) for v in row[:7]), panel, fs, ss)


def _stream(chunks: list[_Chunk], geometry: Geometry) -> Stream:
    energies = {c.frame: c.energy_ev for c in chunks}
    return Stream(
        geometry=geometry,
        peaks=_peak_table(chunks),
        lattices=_index_table(chunks, geometry),
        reflections=_reflection_table(chunks),
        photon_energy_ev=energies,
        image_path={c.frame: c.image_path for c in chunks},
        indexed_by={c.frame: c.indexed_by for c in chunks},
    )


def _peak_table(chunks: list[_Chunk]) -> PeakTable:
    rows = np.array([(c.frame, *peak) for c in chunks for peak in c.peaks]).reshape(-1, 6)
    values: dict[str, object] = dict(
        zip(("frame", "panel", "fs", "ss", "inv_d", "intensity"), rows.T, strict=True)
    )
    absent: dict[str, object] = {
        n: np.zeros(len(rows)) for n in ("max_intensity", "background", "sigma", "snr", "n_pixels")
    }
    return make_table(PEAKS, values | absent)


def _index_table(chunks: list[_Chunk], geometry: Geometry) -> IndexTable:
    from peaknet_pipeline.geometry.maps import peak_positions_m
    from peaknet_pipeline.indexing.qvectors import scattering_vectors

    rows = []
    typical_m = float(np.mean([panel.clen_m for panel in geometry.panels]))
    for chunk in (c for c in chunks if c.crystals):
        clen_m = chunk.clen_m if np.isfinite(chunk.clen_m) else typical_m
        peaks = np.array(chunk.peaks, dtype=np.float64).reshape(-1, 5)
        positions = peak_positions_m(geometry, peaks[:, 0].astype(np.int64), peaks[:, 1], peaks[:, 2])
        positions[:, 2] += clen_m - typical_m
        q = scattering_vectors(positions, np.full(len(peaks), chunk.energy_ev))
        for number, axes in enumerate(chunk.crystals):
            shift = np.array(chunk.shifts[number])
            moved = move_spots(q, chunk.energy_ev / HC_EV_ANGSTROM, np.nan_to_num(shift) / (1e3 * clen_m))
            agreement = _agreement(moved, axes)
            rows.append([chunk.frame, number, *axes.T.ravel(), len(q), *agreement, *shift])
    table = np.array(rows, dtype=np.float64).reshape(-1, 16)
    names = [
        "frame",
        "lattice",
        *AXIS_COLUMNS,
        "n_peaks",
        "n_explained",
        "residual",
        "shift_x_mm",
        "shift_y_mm",
    ]
    return make_table(INDEX, dict(zip(names, table.T, strict=True)))


def _agreement(q: Float64Array, axes: Float64Array) -> tuple[int, float]:
    index = q @ np.linalg.inv(axes).T
    near = (np.abs(index - np.rint(index)) < EXPLAINED_INDEX_ERROR).all(axis=1)
    if not near.any():
        return 0, 0.0
    distance = np.linalg.norm(q[near] - np.rint(index[near]) @ axes.T, axis=1)
    return int(near.sum()), float(np.sqrt((distance**2).mean()))


def _reflection_table(chunks: list[_Chunk]) -> ReflectionTable:
    rows, inv_d, error = [], [], []
    for chunk in chunks:
        for lattice, *values in chunk.reflections:
            point = chunk.crystals[int(lattice)] @ np.array(values[:3])
            wave = chunk.energy_ev / HC_EV_ANGSTROM
            rows.append((chunk.frame, lattice, *values))
            inv_d.append(float(np.linalg.norm(point)))
            error.append(float(np.linalg.norm(point + np.array([0.0, 0.0, wave]))) - wave)
    table = np.array(rows, dtype=np.float64).reshape(-1, 12)
    names = [
        "frame",
        "lattice",
        "h",
        "k",
        "l",
        "intensity",
        "sigma",
        "peak",
        "background",
        "panel",
        "fs",
        "ss",
    ]
    columns: dict[str, object] = dict(zip(names, table.T, strict=True))
    return make_table(REFLECTIONS, columns | {"inv_d": np.array(inv_d), "excitation_error": np.array(error)})
