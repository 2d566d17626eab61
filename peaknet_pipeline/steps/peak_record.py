"""What a peak table's file records of its run beside the peaks, so that lattices are found from the table alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import RunError, TableError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.resolve import resolve_geometry
from peaknet_pipeline.hits import MIN_PEAKS
from peaknet_pipeline.records import UNREADABLE, parse_list
from peaknet_pipeline.runs.masks import read_drawn_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.sources import MAX_FRAMES
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import read_table, read_table_metadata
from peaknet_pipeline.types import BoolArray, Float64Array, Geometry

ENERGY, CLEN = "photon_energy_ev", "clen_m"
MASKS, MIN_PEAKS_OF_HIT = "masks", "min_peaks"
"""Names of the mask files beside the run's own, and of what counted as a hit."""

INVERTED = "invert_masks"
"""Says that masks which take most pixels were inverted: the run must be opened so again."""

FRAME_VALUES = (ENERGY, CLEN)
"""Names of what is recorded per frame: long lists in long runs."""


@dataclass(frozen=True)
class RecordedPeaks:
    """A peak table with what lattices need: the geometry at its run's camera length, and each frame's photon energy.

    ``photon_energy_ev`` is (n_frames,), NaN where a frame has none; ``metadata`` is what the table's file says.
    """

    peaks: PeakTable
    geometry: Geometry
    photon_energy_ev: Float64Array
    metadata: dict[str, str]

    @property
    def n_frames(self) -> int:
        """Frames of the run, with or without peaks."""
        return len(self.photon_energy_ev)

    @property
    def min_peaks(self) -> int:
        """Least peaks of a hit, as the finder was told; the default where the table doesn't say."""
        told = self.metadata.get(MIN_PEAKS_OF_HIT, "")
        return int(told) if told.isdecimal() and len(told) < 6 else MIN_PEAKS

    def bad_pixels(self, run: Run) -> BoolArray:
        """Return every pixel, (n_panels, ss, fs), that the finder left out: the run's own mask and the files given to it.

        Raises
        ------
        RunError
            A mask file is gone or has changed its shape.

        """
        files = parse_list(self.metadata.get(MASKS, "[]"), where="peak table", error=TableError)
        inverted = self.metadata.get(INVERTED) == "true"
        masks = [
            read_drawn_mask(Path(str(name)), run.geometry, invert=inverted, doubt=lambda told: None)
            for name in files
        ]
        bad: BoolArray = np.logical_or.reduce([run.bad_pixels, *masks])
        return bad


def exposure_record(run: Run) -> dict[str, str]:
    """Return the photon energy and camera length of a run's frames as the metadata of a table.

    JSON lists of one value or one per frame, null where it isn't known. The camera length, without ``coffset``, is there
    only where the geometry leaves it to the file.
    """
    record = {ENERGY: _to_json(run.photon_energy_ev)}
    return record if run.clen_m is None else record | {CLEN: _to_json(run.clen_m)}


def read_recorded_peaks(path: Path, geometry: Path) -> RecordedPeaks:
    """Read a peak table, and its run's geometry: the file given, completed by what the finder recorded.

    Raises
    ------
    TableError, GeometryError
        The table or the geometry cannot be used, or they don't fit each other.
    RunError
        No photon energy is known, or the geometry leaves the camera length to a run that the table doesn't record it of and
        that is gone.

    """
    peaks, metadata = read_table(path, PEAKS), read_table_metadata(path)
    detector = read_geometry(geometry)
    last = int(peaks["frame"].max()) + 1 if len(peaks) else 0
    n_frames = max(last, _number_of_frames(metadata, path))
    energy = _from_json(metadata, ENERGY, n_frames, path)
    clen = _from_json(metadata, CLEN, n_frames, path)
    energy = _known_energy(energy, detector, n_frames, path)
    if detector.clen_path is None:
        clen = None
    elif clen is None:
        clen = _clen_of_source(metadata, detector, path)
    detector = resolve_geometry(detector, photon_energy_ev=energy, clen_m=clen)
    _check_distance(detector, path)
    return RecordedPeaks(peaks, detector, energy, metadata)


def open_source(metadata: Mapping[str, str], geometry: Geometry, *, roots: Sequence[Path] = ()) -> Run:
    """Open the raw run that a peak table was found in.

    Raises
    ------
    RunError
        It isn't there any more.

    """
    source = metadata.get("source")
    if source is None or not Path(source).exists():
        raise RunError(
            "the raw run of these peaks is needed and not there",
            where=source or "peak table",
            remedy="Find the peaks again with `peaknet find`, or index with --engine lattice and without --stream.",
        )
    inverted = metadata.get(INVERTED) == "true"
    return open_run(source, geometry, more_roots=roots, invert_masks=inverted)


def _to_json(values: Float64Array) -> str:
    """Return the values as they are: rounded ones would give a command other lattices than an asset."""
    exact = [float(v) if np.isfinite(v) else None for v in values]
    return json.dumps(exact[:1] if len(set(exact)) == 1 else exact)


def _from_json(metadata: Mapping[str, str], name: str, n_frames: int, path: Path) -> Float64Array | None:
    """Return a recorded value per frame, (n_frames,), NaN where it isn't known; None where nothing is recorded."""
    try:
        values = np.array(json.loads(metadata.get(name, "[]")), dtype=np.float64)
    except (*UNREADABLE, TypeError) as error:
        raise TableError(f"{name} in the table's metadata is no list of numbers", where=path) from error
    if values.size == 0:
        return None
    if values.size not in (1, n_frames):
        raise TableError(
            f"{name} in the table's metadata does not fit its frames",
            where=path,
            expected=f"1 or {n_frames} values",
            found=values.size,
        )
    return np.broadcast_to(values, (n_frames,)).copy()


def _number_of_frames(metadata: Mapping[str, str], path: Path) -> int:
    """Return the recorded number of the run's frames; 0 where nothing is recorded."""
    told = metadata.get("n_frames", "0")
    if not told.isdecimal() or len(told) > 12 or int(told) > MAX_FRAMES:
        raise TableError(
            "n_frames in the table's metadata is no number of frames",
            where=path,
            expected=f"≤ {MAX_FRAMES}",
            found=told,
        )
    return int(told)


def _known_energy(
    recorded: Float64Array | None, geometry: Geometry, n_frames: int, path: Path
) -> Float64Array:
    """Return the recorded energies, else the geometry's for all frames."""
    if recorded is not None and np.isfinite(recorded).any():
        return recorded
    if geometry.photon_energy_ev is None:
        raise RunError("no photon energy", where=path, remedy="Give photon_energy in the geometry.")
    return np.full(n_frames, geometry.photon_energy_ev)


def _clen_of_source(metadata: Mapping[str, str], geometry: Geometry, path: Path) -> Float64Array:
    """Return the camera lengths, (n_frames,), metres, of a table that doesn't record them, from its run."""
    remedy = (
        "Find the peaks again with this geometry, or give one with numbers: `peaknet geometry` writes it."
    )
    if not Path(metadata.get("source", "")).is_file():
        raise RunError(
            "the camera length is not known: the geometry names a path, and neither the table nor its run has it",
            where=path, found=geometry.clen_path, remedy=remedy,
        )  # fmt: skip
    with open_source(metadata, geometry) as run:
        return np.full(run.n_frames, np.nan) if run.clen_m is None else run.clen_m


def _check_distance(geometry: Geometry, path: Path) -> None:
    if not knows_distance(geometry):
        raise RunError(
            "no frame has a camera length",
            where=path,
            found=geometry.clen_path,
            remedy="Give a geometry with the distance as a number (clen = … m).",
        )
