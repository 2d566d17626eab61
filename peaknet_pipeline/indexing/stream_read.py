"""Read CrystFEL ``.stream`` files, format 2.1 to 2.3, as ``indexamajig`` and :mod:`stream_file` write them.

Columns of older formats: peaks had no panel, reflections neither (2.2), and a phase and a count in place of peak and
background (2.1); positions were always those of the data set, which name the panel too.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import GeometryError, IndexingError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.resolve import resolve_geometry, typical_value
from peaknet_pipeline.indexing.stream_file import HALF_PIXEL
from peaknet_pipeline.indexing.stream_tables import (
    Chunk,
    Stream,
    frame_numbers,
    index_table,
    peak_table,
    reflection_table,
)
from peaknet_pipeline.text_files import open_text
from peaknet_pipeline.types import Geometry

VERSIONS = ("2.1", "2.2", "2.3")
FIRST_LINE = re.compile(r"CrystFEL stream format (\d+\.\d+)\s*$")
MAX_INDEX = 10_000
REFLECTION_COLUMNS = {"2.1": 9, "2.2": 9, "2.3": 10}


def read_stream(path: Path | str, *, geometry: Geometry | None = None) -> Stream:
    """Read a stream, or several that were joined into one file.

    Parameters
    ----------
    geometry : Geometry, optional
        Used instead of the embedded one; needed where there is none.

    Raises
    ------
    IndexingError
        The file is missing, no stream, of another version, has no geometry, joins streams of different detectors, or breaks
        off within a chunk; with the line where it does.
    GeometryError
        An embedded geometry cannot be used.

    """
    path = Path(path)
    if not path.is_file():
        raise IndexingError("no such stream", where=path)
    with open_text(path) as lines:
        reader = _Reader(lines, path, geometry)
        chunks = list(reader.chunks())
    if not reader.geometries:
        raise reader.no_geometry()
    geometries = [_with_camera_length(one, chunks, n) for n, one in enumerate(reader.geometries)]
    return _stream(chunks, geometries)


def _stream(chunks: list[Chunk], geometries: list[Geometry]) -> Stream:
    chunks = [replace(c, frame=n) for c, n in zip(chunks, frame_numbers(chunks), strict=True)]
    for chunk in chunks:
        if not np.isfinite(chunk.energy_ev):
            chunk.energy_ev = geometries[chunk.geometry].photon_energy_ev or chunk.energy_ev
    return Stream(
        geometry=geometries[0],
        peaks=peak_table(chunks),
        lattices=index_table(chunks, geometries),
        reflections=reflection_table(chunks),
        photon_energy_ev={c.frame: c.energy_ev for c in chunks},
        camera_length_m={c.frame: c.clen_m for c in chunks},
        image_path={c.frame: c.image_path for c in chunks},
        event={c.frame: c.event for c in chunks},
        indexed_by={c.frame: c.indexed_by for c in chunks},
    )


def _with_camera_length(geometry: Geometry, chunks: list[Chunk], number: int) -> Geometry:
    """Return a geometry that leaves its camera length to the image files with the typical one of its chunks."""
    if geometry.clen_path is None or knows_distance(geometry):
        return geometry
    offset = float(np.mean([panel.coffset_m for panel in geometry.panels]))
    own = np.array([c.clen_m - offset for c in chunks if c.geometry == number])
    return resolve_geometry(geometry, clen_m=typical_value(own))


class _Reader:
    """A stream's lines, counted, turned into chunks; ``geometries`` are those met so far."""

    def __init__(self, lines: Iterable[str], path: Path, geometry: Geometry | None) -> None:
        self.number = 0
        self.line = ""
        self.path = path
        self.geometries: list[Geometry] = [] if geometry is None else [geometry]
        self._is_given = geometry is not None
        self._texts: list[str] = []
        self._present = 0
        self._version = ""
        self._by_name: dict[str, int] = {}
        self._lines = iter(lines)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks of all streams in the file."""
        for line in self._next():
            if self.number == 1 or line.startswith("CrystFEL stream format"):
                self._take_version(line)
            elif line.startswith("----- Begin geometry file"):
                self._take_geometry("\n".join(self._until("----- End geometry file")))
            elif line.startswith("----- Begin chunk"):
                yield self._chunk()

    def no_geometry(self) -> IndexingError:
        """Return the error of a stream that holds no geometry."""
        remedy = "Give the geometry that it was made with."
        return IndexingError("no embedded geometry", where=f"{self.path}:{self.number}", remedy=remedy)

    def _take_version(self, line: str) -> None:
        if not line.startswith("CrystFEL stream format"):
            found = line[:40].strip() or "nothing"
            raise IndexingError("not a CrystFEL stream", where=self.path, found=found)
        match = FIRST_LINE.match(line)
        self._version = match[1] if match else line
        if self._version not in VERSIONS:
            raise IndexingError(
                "a stream of another version",
                where=f"{self.path}:{self.number}",
                expected=f"format {', '.join(VERSIONS)}",
                found=self._version[:40],
            )

    def _take_geometry(self, text: str) -> None:
        """Make an embedded geometry the one of the chunks that follow; joined streams must be of one detector."""
        if self._is_given:
            return
        if text not in self._texts:
            where = f"{self.path}:{self.number}"
            geometry = self._parse(text, where)
            if self.geometries and _layout(geometry) != _layout(self.geometries[0]):
                raise IndexingError(
                    "the streams in this file are of different detectors",
                    where=where,
                    expected=f"the panels of the first geometry: {_names(self.geometries[0])}",
                    found=_names(geometry),
                    remedy="Read them one by one.",
                )
            self._texts.append(text)
            self.geometries.append(geometry)
        self._present = self._texts.index(text)

    def _parse(self, text: str, where: str) -> Geometry:
        try:
            return parse_geometry(text, source=self.path)
        except GeometryError as error:
            what = f"the embedded geometry cannot be used: {error.what}"
            raise GeometryError(what, where=where, remedy=error.remedy) from error

    def _next(self) -> Iterator[str]:
        for line in self._lines:
            self.number += 1
            self.line = line.rstrip("\r\n")
            yield self.line
        if self.number == 0:
            self._take_version("")

    def _until(self, end: str) -> Iterator[str]:
        for line in self._next():
            if line.startswith(end):
                return
            yield line
        raise self._broken(f"no line '{end}'")

    def _broken(self, what: str) -> IndexingError:
        return IndexingError(f"broken stream: {what}", where=f"{self.path}:{self.number}")

    def _chunk(self) -> Chunk:
        if not self.geometries:
            raise self.no_geometry()
        chunk = Chunk(geometry=self._present)
        for line in self._until("----- End chunk"):
            try:
                self._take(line, chunk)
            except (ValueError, IndexError, KeyError, OverflowError) as error:
                raise self._broken(f"cannot read '{self.line.strip()[:60]}'") from error
        return chunk

    def _take(self, line: str, chunk: Chunk) -> None:
        key, _, value = line.partition(" = ")
        if line.startswith("Image filename: "):
            chunk.image_path = line.removeprefix("Image filename: ")
        elif line.startswith("Event: "):
            chunk.event = line.removeprefix("Event: ").strip()
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
        panel, fs, ss = self._place(row[0], row[1], row[4] if self._version == "2.3" else None)
        return (panel, fs, ss, 0.1 * float(row[2]), float(row[3]))

    def _place(self, fs_text: str, ss_text: str, name: str | None) -> tuple[int, float, float]:
        """Return panel, fs and ss within it of a position in the data set; ``name`` is the panel's, where the format has it."""
        fs, ss = float(fs_text) - HALF_PIXEL, float(ss_text) - HALF_PIXEL
        panels = self.geometries[self._present].panels
        number = self._panel_at(fs, ss) if name is None else self._numbers()[name]
        return number, fs - panels[number].min_fs, ss - panels[number].min_ss

    def _panel_at(self, fs: float, ss: float) -> int:
        for number, p in enumerate(self.geometries[self._present].panels):
            if p.min_fs - 0.5 <= fs < p.max_fs + 0.5 and p.min_ss - 0.5 <= ss < p.max_ss + 0.5:
                return number
        raise KeyError("a position outside every panel")

    def _numbers(self) -> dict[str, int]:
        """Return the panels' numbers by name, the same in all geometries of the file."""
        if not self._by_name:
            self._by_name = {panel.name: number for number, panel in enumerate(self.geometries[0].panels)}
        return self._by_name

    def _crystal(self, chunk: Chunk) -> None:
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
        matrix = np.array([axes["astar"], axes["bstar"], axes["cstar"]]).T
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            raise ValueError("the reciprocal axes span no cell")
        chunk.crystals.append(matrix)
        chunk.shifts.append(shift)

    def _reflection(self, row: list[str]) -> tuple[float, ...]:
        """Return h, k, l, intensity, sigma, peak, background, panel, fs, ss."""
        if len(row) != REFLECTION_COLUMNS[self._version]:
            raise ValueError(f"{len(row)} columns")
        name = row[9] if self._version == "2.3" else None
        place = self._place(row[7], row[8], name)
        hkl = tuple(int(word) for word in row[:3])
        if not (max(map(abs, hkl)) <= MAX_INDEX and np.isfinite(place).all()):
            raise ValueError("an index or a position out of all range")
        if self._version == "2.1":  # h k l I phase sigma counts
            return (*hkl, float(row[3]), float(row[5]), 0.0, 0.0, *place)
        return (*hkl, *map(float, row[3:7]), *place)


def _layout(geometry: Geometry) -> list[tuple[str | int, ...]]:
    return [(p.name, p.min_fs, p.max_fs, p.min_ss, p.max_ss) for p in geometry.panels]


def _names(geometry: Geometry) -> str:
    names = [p.name for p in geometry.panels]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
