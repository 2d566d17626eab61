"""The tables of a stream, out of its chunks: a frame is an image file and an event, and its own camera length counts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from peaknet_pipeline.geometry.maps import peak_positions_m
from peaknet_pipeline.indexing.lattice import AXIS_COLUMNS
from peaknet_pipeline.indexing.predict import move_spots
from peaknet_pipeline.indexing.qvectors import scattering_vectors
from peaknet_pipeline.schemas import INDEX, PEAKS, REFLECTIONS, IndexTable, PeakTable, ReflectionTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float64Array, Geometry

EXPLAINED_INDEX_ERROR = 0.25
"""A peak is explained when each Miller index is within this of a whole number, as CrystFEL counts."""

PLAIN_EVENT = re.compile(r"//(\d{1,9})")


@dataclass(frozen=True)
class Stream:
    """What a stream holds: its geometry, and tables by frame number.

    The chunks of one image file whose events are ``//0``, ``//1`` … have these numbers. In all other streams (several image
    files, events with a path, no events) frames are numbered in the order of the chunks. ``photon_energy_ev`` maps frames to
    eV, ``camera_length_m`` to metres (NaN where it isn't told), ``image_path`` and ``event`` to where the image is,
    ``indexed_by`` to the indexing method; frames without peaks appear there too.
    """

    geometry: Geometry
    peaks: PeakTable
    lattices: IndexTable
    reflections: ReflectionTable
    photon_energy_ev: dict[int, float]
    camera_length_m: dict[int, float]
    image_path: dict[int, str]
    event: dict[int, str]
    indexed_by: dict[int, str]


@dataclass
class Chunk:
    """One chunk; ``geometry`` is the number of the geometry block that holds for it."""

    frame: int = -1
    geometry: int = 0
    image_path: str = ""
    event: str = ""
    energy_ev: float = float("nan")
    clen_m: float = float("nan")
    indexed_by: str = "none"
    peaks: list[tuple[float, ...]] = field(default_factory=list)
    crystals: list[Float64Array] = field(default_factory=list)
    shifts: list[tuple[float, float]] = field(default_factory=list)
    reflections: list[tuple[float, ...]] = field(default_factory=list)


def frame_numbers(chunks: Sequence[Chunk]) -> list[int]:
    """Return each chunk's frame number; see :class:`Stream`."""
    events = [PLAIN_EVENT.fullmatch(chunk.event) for chunk in chunks]
    numbers = [int(event[1]) for event in events if event is not None]
    is_one_file = len({chunk.image_path for chunk in chunks}) == 1
    return numbers if is_one_file and len(set(numbers)) == len(chunks) else list(range(len(chunks)))


def peak_table(chunks: Sequence[Chunk]) -> PeakTable:
    """Return the peaks; what a stream doesn't tell of them is 0."""
    rows = np.array([(c.frame, *peak) for c in chunks for peak in c.peaks]).reshape(-1, 6)
    values: dict[str, object] = dict(
        zip(("frame", "panel", "fs", "ss", "inv_d", "intensity"), rows.T, strict=True)
    )
    absent: dict[str, object] = {
        n: np.zeros(len(rows)) for n in ("max_intensity", "background", "sigma", "snr", "n_pixels")
    }
    return make_table(PEAKS, values | absent)


def index_table(chunks: Sequence[Chunk], geometries: Sequence[Geometry]) -> IndexTable:
    """Return the lattices, with the peaks that each explains at its chunk's own camera length."""
    rows = []
    for chunk in (c for c in chunks if c.crystals):
        q, clen_m = _peak_vectors(chunk, geometries[chunk.geometry])
        for number, axes in enumerate(chunk.crystals):
            shift = np.array(chunk.shifts[number])
            moved = move_spots(q, chunk.energy_ev / HC_EV_ANGSTROM, np.nan_to_num(shift) / (1e3 * clen_m))
            rows.append([chunk.frame, number, *axes.T.ravel(), len(q), *_agreement(moved, axes), *shift])
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


def _peak_vectors(chunk: Chunk, geometry: Geometry) -> tuple[Float64Array, float]:
    """Return a chunk's peaks as scattering vectors, (n, 3), Å⁻¹, and its own camera length, else the geometry's, metres."""
    typical_m = float(np.mean([panel.clen_m for panel in geometry.panels]))
    clen_m = chunk.clen_m if np.isfinite(chunk.clen_m) else typical_m
    peaks = np.array(chunk.peaks, dtype=np.float64).reshape(-1, 5)
    positions = peak_positions_m(geometry, peaks[:, 0].astype(np.int64), peaks[:, 1], peaks[:, 2])
    positions[:, 2] += clen_m - typical_m
    return scattering_vectors(positions, np.full(len(peaks), chunk.energy_ev)), clen_m


def _agreement(q: Float64Array, axes: Float64Array) -> tuple[int, float]:
    index = q @ np.linalg.inv(axes).T
    near = (np.abs(index - np.rint(index)) < EXPLAINED_INDEX_ERROR).all(axis=1)
    if not near.any():
        return 0, 0.0
    distance = np.linalg.norm(q[near] - np.rint(index[near]) @ axes.T, axis=1)
    return int(near.sum()), float(np.sqrt((distance**2).mean()))


def reflection_table(chunks: Sequence[Chunk]) -> ReflectionTable:
    """Return the integrated reflections of all crystals."""
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
