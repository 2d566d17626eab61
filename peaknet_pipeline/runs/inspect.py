"""Tell what a file is, and everything that is wrong with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import GeometryError, PeaknetError, RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.crystfel_text import has_two_scales, unused_keys
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.maps import geometry_bad_pixels, resolution_map
from peaknet_pipeline.geometry.usable import flag_unusable
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles, damaged
from peaknet_pipeline.runs.file_list import is_list
from peaknet_pipeline.runs.lcls import SUFFIX
from peaknet_pipeline.runs.open import assemble_run, open_run
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.shot_values import shot_doubts
from peaknet_pipeline.types import Geometry

MAX_LISTED = 40
FILTERS = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle-LZ4",
    32015: "zstd",
    32026: "blosc2",
}
"""HDF5's registered filters, by number."""


@dataclass
class Inspection:
    """What a file is: facts by name, problems that keep it from being processed, and doubts that don't."""

    path: Path
    kind: str = "unknown"
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def is_usable(self) -> bool:
        """Whether nothing keeps the file from being processed."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "facts": self.facts,
            "problems": self.problems,
            "doubts": self.doubts,
        }


def inspect_path(
    path: Path | str,
    geometry: Geometry | Path | str | None = None,
    *,
    data_path: str | None = None,
    root: Path | str | None = None,
    more_roots: Sequence[Path] = (),
) -> Inspection:
    """Describe a run or geometry file and list every problem at once; never raises for a bad file.

    Parameters are those of :func:`~peaknet_pipeline.runs.open.open_run`. Of a run the first, middle and last
    frame are read.
    """
    report = Inspection(Path(path))
    if report.path.suffix == ".geom":
        _inspect_geometry(report)
        return report
    if report.path.is_dir() or report.path.suffix == SUFFIX or is_list(report.path):
        _inspect_many(
            report, partial(open_run, path, geometry, data_path=data_path, root=root, more_roots=more_roots)
        )
        return report
    if geometry is not None and not isinstance(geometry, Geometry):
        try:
            geometry = read_geometry(geometry)
        except GeometryError as error:
            report.problems.append(str(error))
            geometry = None
    try:
        own = Path(root) if root is not None else None
        with LinkedFiles(report.path, own, more_roots=more_roots) as files:
            _inspect_run(report, files, geometry, data_path)
    except RunError as error:
        report.problems.append(str(error))
    except DAMAGE as error:
        report.problems.append(str(damaged(report.path, error)))
    return report


def _inspect_geometry(report: Inspection) -> None:
    try:
        geometry = read_geometry(report.path)
    except GeometryError as error:
        report.problems.append(str(error))
        return
    report.kind = "CrystFEL geometry"
    report.facts |= geometry_facts(geometry)
    report.doubts += geometry_doubts(geometry)


def _inspect_many(report: Inspection, opener: Callable[[], Run]) -> None:
    """Describe a run that is no single HDF5 file: its problems come one at a time."""
    kinds = {SUFFIX: "LCLS run name"}
    report.kind = "directory" if report.path.is_dir() else kinds.get(report.path.suffix, "list of files")
    try:
        with opener() as run:
            _describe(report, run)
    except (RunError, GeometryError) as error:
        report.problems.append(str(error))


def _inspect_run(
    report: Inspection, files: LinkedFiles, geometry: Geometry | None, data_path: str | None
) -> None:
    report.kind = "HDF5"
    run, problems = assemble_run(files, geometry, data_path)
    report.problems += [str(problem) for problem in problems]
    if run is None:
        listed = [f"{name} {dtype} {shape}" for name, shape, dtype in files.described()]
        report.facts["data sets"] = listed[:MAX_LISTED]
        return
    _describe(report, run)


def _describe(report: Inspection, run: Run) -> None:
    report.kind = run.info.file_format
    report.facts |= _run_facts(run)
    report.doubts += [*run.doubts, *_run_doubts(run)]
    if run.geometry is not None:
        report.doubts += geometry_doubts(run.geometry)
    for frame in sorted({0, run.n_frames // 2, run.n_frames - 1}):
        _inspect_frame(report, run, frame)


def _run_facts(run: Run) -> dict[str, Any]:
    info, energy = run.info, run.photon_energy_ev
    known = energy[np.isfinite(energy)]
    facts: dict[str, Any] = {
        "frames": info.n_frames,
        "stack (panels, ss, fs)": list(info.stack_shape),
        "dtype": info.dtype,
        "data": info.data_path,
        "mask": info.mask_path,
        "bad pixels": int(run.bad_pixels.sum()),
        "bad pixels, share": float(run.bad_pixels.mean()),
        "mask sources": {source.name: source.n_new for source in run.mask_sources},
        "photon energy, eV": [float(known.min()), float(known.max())] if known.size else None,
        "frames without resolution": int(run.without_resolution.sum()),
        "bytes": info.size_bytes,
        "checksum": info.checksum,
    }
    first = run.sources[0].datasets[0]
    facts["chunks"] = list(first.chunks) if first.chunks else None
    facts["compression"] = compression_of(first)
    return facts | (geometry_facts(run.geometry) if run.geometry is not None else {})


def compression_of(dataset: Any) -> str:
    """Return how a data set's chunks are compressed: filter names, ``none``, or ``unknown`` where h5py cannot tell."""
    if dataset.chunks is None:
        return "none"
    try:
        storage = dataset.id.get_create_plist()
        codes = [storage.get_filter(i)[0] for i in range(storage.get_nfilters())]
    except (AttributeError, *DAMAGE):
        return "unknown"
    return " + ".join(FILTERS.get(code, f"filter {code}") for code in codes) or "none"


LEAST_SIDE = 16
"""Pixels that a side of a detector's panel has at least: shorter rows are lists of spots or vectors."""


def _run_doubts(run: Run) -> list[str]:
    doubts = shot_doubts(run)
    if run.geometry is None and min(run.info.stack_shape[1:]) < LEAST_SIDE:
        rows, columns = run.info.stack_shape[1:]
        doubts.append(
            f"Frames of {rows} × {columns} pixels are no detector's: {run.info.data_path} holds a list, of spots or vectors."
        )
    if run.geometry is None:
        doubts.append("There is no geometry: peaks can be found, but neither resolution nor lattices.")
    if run.bad_pixels.mean() > 0.3:
        doubts.append(f"{run.bad_pixels.mean():.0%} of the pixels are bad: check the mask's polarity.")
    dataset = run.sources[0].datasets[0]
    chunk_frames = dataset.chunks[0] if dataset.chunks and dataset.ndim > 2 else 1
    if chunk_frames > 1:
        doubts.append(f"Chunks hold {chunk_frames} frames each: read batches of a multiple of that.")
    return doubts


def _inspect_frame(report: Inspection, run: Run, frame: int) -> None:
    try:
        values = run.read(frame, frame + 1)
    except PeaknetError as error:
        report.problems.append(str(error))
        return
    good = ~run.bad_pixels
    flagged = flag_unusable(values, run.usable)
    if flagged is not None:
        good = good & ~flagged[0]
    kept = values[0][good].astype(np.float64)
    finite = kept[np.isfinite(kept)]
    facts = report.facts.setdefault("frames looked at", {})
    if not finite.size:
        report.doubts.append(f"Frame {frame} has no good pixel with a value.")
        return
    facts[frame] = {n: float(f(finite)) for n, f in (("min", np.min), ("median", np.median), ("max", np.max))}
    if finite.size < kept.size:
        report.doubts.append(
            f"Frame {frame} has {kept.size - finite.size} good pixels without a value (NaN)."
        )
    if finite.min() == finite.max():
        report.doubts.append(f"Frame {frame} has the value {finite.min():g} everywhere.")


def geometry_facts(geometry: Geometry) -> dict[str, Any]:
    """Return what a geometry says, by name."""
    lengths = sorted({panel.clen_m for panel in geometry.panels})
    facts: dict[str, Any] = {
        "panels": len(geometry.panels),
        "pixel size, µm": sorted({round(1e6 * panel.pixel_size_m, 3) for panel in geometry.panels}),
        "camera length, m": [lengths[0], lengths[-1]] if knows_distance(geometry) else geometry.clen_path,
        "bad regions": len(geometry.bad_regions),
        "bad by geometry": float(geometry_bad_pixels(geometry).mean()),
    }
    if geometry.photon_energy_ev is not None and knows_distance(geometry):
        inv_d = resolution_map(geometry, geometry.photon_energy_ev)[~geometry_bad_pixels(geometry)]
        facts["resolution, Å"] = [float(1 / max(inv_d.max(), 1e-9)), float(1 / max(inv_d.min(), 1e-9))]
    return facts


def geometry_doubts(geometry: Geometry) -> list[str]:
    """Return what is unusual about a geometry, in words."""
    doubts = []
    if any(panel.clen_m < 0.005 for panel in geometry.panels):
        doubts.append("A panel is nearer than 5 mm to the sample: check clen, coffset and their units.")
    if any(panel.clen_m > 20 for panel in geometry.panels):
        doubts.append("A panel is more than 20 m from the sample: is clen given in mm without its unit?")
    for panel in geometry.panels:
        lengths = np.linalg.norm(panel.fs_vec), np.linalg.norm(panel.ss_vec)
        if max(abs(length - 1) for length in lengths) > 0.02:
            doubts.append(f"Panel {panel.name} has steps of {lengths[0]:.3f} and {lengths[1]:.3f} pixels.")
        if abs(np.dot(panel.fs_vec, panel.ss_vec)) > 0.02:
            doubts.append(f"The axes of panel {panel.name} are not at right angles.")
    if has_two_scales(geometry.text):
        doubts.append(
            "adu_per_eV and adu_per_photon are both given: the last one counts, as in CrystFEL. Remove one."
        )
    unused = unused_keys(geometry.text)
    if unused:
        doubts.append(f"Not used here, or misspelt: {', '.join(unused)}.")
    shared = _overlapping_windows(geometry)
    if shared:
        doubts.append(f"Panels {shared[0]} and {shared[1]} share pixels of the data set.")
    return doubts[:MAX_LISTED]


def _overlapping_windows(geometry: Geometry) -> tuple[str, str] | None:
    panels = sorted(geometry.panels, key=lambda p: (p.data_path or "", p.stack_index, p.min_ss))
    for i, one in enumerate(panels):
        for other in panels[i + 1 :]:
            same = (one.data_path, one.stack_index) == (other.data_path, other.stack_index)
            if not same or other.min_ss > one.max_ss:
                break
            if one.min_fs <= other.max_fs and other.min_fs <= one.max_fs:
                return one.name, other.name
    return None
