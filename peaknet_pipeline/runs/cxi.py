"""CXI peak lists as CrystFEL reads them, and back.

A list holds at most 2,048 peaks a frame, in the coordinates of the file's slab, the centre of the first pixel
at (0.0, 0.0): CrystFEL adds the half pixel itself. The images stay in the raw file, to which the CXI file links
by a relative path, or are copied. Beside it lies a ``.geom`` that names everything, so that ``indexamajig --peaks=cxi``
needs no more.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.hdf5.chunks import read_rows, read_whole
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.hdf5.storage import check_declared
from peaknet_pipeline.runs.cxi_images import DATA_PATH, CxiSlab, copy_images, link_images, slab_of
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.shot_values import filled_with_median
from peaknet_pipeline.runs.sources import MAX_FRAMES
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import MAX_CXI_PEAKS, BoolArray, Float64Array, Geometry

RESULT = "/entry_1/result_1"
MASK_PATH = "/entry_1/data_1/mask"
ENERGY_PATH = "/LCLS/photon_energy_eV"
CLEN_PATH = "/LCLS/detector_1/EncoderValue"
CXI_VERSION = 160
BLOCK_FRAMES = 64
MAX_LISTED_PEAKS = 65536
MAX_LISTED_FRAMES = 4096
"""Frames that an attribute lists: it holds 64 kB."""

LISTS = {
    "peakTotalIntensity": "intensity",
    "peakMaxIntensity": "max_intensity",
    "peakBackground": "background",
    "peakSigma": "sigma",
    "peakSNR": "snr",
    "peakNPixels": "n_pixels",
    "peakScore": "score",
}


@dataclass(frozen=True)
class CxiReport:
    """What was written: frames, peaks, and what the limit of 2,048 peaks a frame left out."""

    path: Path
    geometry_path: Path | None
    n_frames: int
    n_peaks: int
    n_clipped_frames: int
    n_clipped_peaks: int


def write_cxi_peaks(
    path: Path,
    peaks: PeakTable,
    run: Run,
    *,
    frames: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
    images: Literal["link", "copy"] = "link",
    bad_pixels: BoolArray | None = None,
    provenance: Mapping[str, str] | None = None,
) -> CxiReport:
    """Write a run's peaks as a CXI file with images, mask, photon energy and geometry, atomically.

    Parameters
    ----------
    path : Path
        ``.cxi`` file; the geometry gets the same name with ``.geom``.
    peaks : PeakTable
        Peaks of the run, frames counted in the run.
    run : Run
        Open run that the peaks belong to.
    frames : sequence of int, optional
        Write only these frames, ascending (data reduction); all by default.
    images : str
        "copy" makes the file independent of the raw one.
    bad_pixels : (n_panels, ss, fs) bool, optional
        Every pixel that was left out in finding the peaks, which becomes the file's mask; the run's own by default. CrystFEL
        would find and integrate on whatever is missing in it.
    provenance : mapping, optional
        Names and values kept as attributes of ``/entry_1/result_1``.

    Returns
    -------
    CxiReport
        Frames with more than 2,048 peaks keep the strongest; how many were left out is told.

    Raises
    ------
    RunError
        A frame or panel of the table is not in the run.

    """
    path = Path(path)
    chosen = np.arange(run.n_frames) if frames is None else np.asarray(frames, dtype=np.int64)
    _check_table(peaks, chosen, run)
    slab = slab_of(run)
    _check_distance(run)
    known_energy = bool(np.isfinite(run.photon_energy_ev).any())
    geometry = run.geometry and linked_geometry(
        run.geometry, slab, has_energy=known_energy, has_clen=run.clen_m is not None
    )
    wanted = peaks[peaks["frame"].isin(chosen)]
    clipped = clip_peaks(wanted)
    with new_hdf5(path) as file:
        file["cxi_version"] = CXI_VERSION
        if images == "copy":
            copy_images(file, run, slab, chosen)
        else:
            link_images(file, path, run, slab, chosen)
        _write_metadata(file, run, run.bad_pixels if bad_pixels is None else bad_pixels, slab, chosen)
        _write_lists(file, clipped, slab, chosen)
        file[RESULT].attrs.update(dict(provenance or {}))
    geometry_path = path.with_suffix(".geom") if geometry is not None else None
    if geometry is not None and geometry_path is not None:
        write_geometry(geometry, geometry_path, made_by=(provenance or {}).get("stage", ""))
    crowded = int((wanted.groupby("frame").size() > MAX_CXI_PEAKS).sum())
    return CxiReport(path, geometry_path, len(chosen), len(clipped), crowded, len(wanted) - len(clipped))


def read_cxi_peaks(path: Path, geometry: Geometry | None = None) -> PeakTable:
    """Read a CXI peak list.

    Parameters
    ----------
    path : Path
        CXI file of this or another program.
    geometry : Geometry, optional
        Turns slab coordinates into panels; without one all peaks are in panel 0. Use the ``.geom`` beside the
        file.

    Returns
    -------
    PeakTable
        Columns that other programs don't write are 0 (``inv_d`` and ``score`` NaN); frames are those of the
        file.

    Raises
    ------
    RunError
        There is no peak list, it is damaged, or a peak lies outside every panel.

    """
    with LinkedFiles(Path(path)) as files:
        try:
            lists = _read_lists(files)
        except (RunError, *DAMAGE) as error:
            raise RunError(f"no readable peak list ({error})", where=path, expected=RESULT) from error
    x, y = lists.pop("x"), lists.pop("y")
    panel, fs, ss = _to_panels(x, y, geometry, Path(path))
    return make_table(PEAKS, {"panel": panel, "fs": fs, "ss": ss, **lists})


def _check_table(peaks: PeakTable, chosen: npt.NDArray[np.int64], run: Run) -> None:
    if chosen.size and (chosen.min() < 0 or chosen.max() >= run.n_frames or (np.diff(chosen) <= 0).any()):
        raise RunError("no such frames", where=run.info.path, expected=f"ascending, 0 … {run.n_frames - 1}")
    for column, limit in (("frame", run.n_frames), ("panel", run.stack_shape[0])):
        values = peaks[column]
        if len(values) and not (values.min() >= 0 and values.max() < limit):
            found = f"{values.min()} … {values.max()}"
            what = f"{column} of a peak is not in the run"
            raise RunError(what, where=run.info.path, expected=f"< {limit}", found=found)


def clip_peaks(peaks: PeakTable) -> PeakTable:
    """Keep the strongest 2,048 peaks of each frame, in the order of the table."""
    order = (
        peaks["intensity"].astype(np.float64).groupby(peaks["frame"]).rank(method="first", ascending=False)
    )
    return peaks[order <= MAX_CXI_PEAKS].sort_values("frame", kind="stable")


def linked_geometry(geometry: Geometry, slab: CxiSlab, *, has_energy: bool, has_clen: bool) -> Geometry:
    """Return the geometry of a CXI file: what it names is in that file."""
    return dataclasses.replace(
        geometry,
        panels=slab.panels,
        bad_regions=(),
        data_path=DATA_PATH,
        dim_layout=("%", "ss", "fs"),
        mask_path=MASK_PATH,
        mask_file=None,
        mask_good_bits=0,
        mask_bad_bits=0xFF,
        more_masks=(),
        photon_energy_path=ENERGY_PATH if has_energy else None,
        photon_energy_unit="eV" if has_energy else geometry.photon_energy_unit,
        clen_path=CLEN_PATH if has_clen else None,
        clen_unit="mm",
        peak_list_path=RESULT,
    )


def _write_metadata(
    file: Any, run: Run, bad_pixels: BoolArray, slab: CxiSlab, chosen: npt.NDArray[np.int64]
) -> None:
    mask = slab.from_stack(bad_pixels.astype(np.uint8))
    file.create_dataset(MASK_PATH, data=mask, compression="gzip", shuffle=True)
    if np.isfinite(run.photon_energy_ev).any():
        _write_per_frame(file, ENERGY_PATH, run.photon_energy_ev, chosen)
    if run.clen_m is not None:
        _write_per_frame(file, CLEN_PATH, 1e3 * run.clen_m, chosen)
    file[f"{RESULT}/frame"] = chosen.astype(np.int64)


def _write_per_frame(file: Any, path: str, values: Float64Array, chosen: npt.NDArray[np.int64]) -> None:
    """Write a value per frame; frames without one get the run's median, and their rows are told in an attribute.

    Other programs compute with what they read, NaN too.
    """
    file[path] = filled_with_median(values)[chosen]
    missing = np.flatnonzero(~np.isfinite(values[chosen]))
    if missing.size:
        file[path].attrs["frames_at_median"] = missing[:MAX_LISTED_FRAMES]


def _check_distance(run: Run) -> None:
    if run.geometry is not None and not knows_distance(run.geometry):
        raise RunError(
            "no frame has a camera length, which a CXI file's geometry needs",
            where=run.info.path,
            found=run.geometry.clen_path,
            remedy="Give it in the geometry as a number (clen = … m).",
        )


def _write_lists(file: Any, peaks: PeakTable, slab: CxiSlab, chosen: npt.NDArray[np.int64]) -> None:
    row = np.searchsorted(chosen, peaks["frame"].to_numpy())
    counts, place = count_and_place(row, len(chosen))
    file[f"{RESULT}/nPeaks"] = counts.astype(np.int32)
    shape, chunks = (len(chosen), MAX_CXI_PEAKS), (min(16, max(len(chosen), 1)), MAX_CXI_PEAKS)
    for name, values in list_columns(peaks, slab).items():
        storage = {"chunks": chunks, "compression": "gzip", "shuffle": True}
        data = file.create_dataset(f"{RESULT}/{name}", shape, np.float32, **storage)
        _fill(data, row, place, values)


def count_and_place(
    row: npt.NDArray[np.integer[Any]], n_frames: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the peaks of each frame (n_frames,), and each peak's place in its frame's list; ``row`` ascends."""
    counts = np.bincount(row, minlength=n_frames)
    return counts, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)


def list_columns(peaks: PeakTable, slab: CxiSlab) -> dict[str, npt.NDArray[np.float32]]:
    """Return the values of each list, by its name in the file: coordinates are those of the slab."""
    fs0, ss0 = slab.origins[peaks["panel"].to_numpy(), :2].T
    columns = {"peakXPosRaw": peaks["fs"] + fs0, "peakYPosRaw": peaks["ss"] + ss0}
    columns |= {name: peaks[column] for name, column in LISTS.items() if column in peaks}
    return {name: np.asarray(values, dtype=np.float32) for name, values in columns.items()}


def _fill(
    data: Any, row: npt.NDArray[np.int64], place: npt.NDArray[np.int64], values: npt.NDArray[np.float32]
) -> None:
    for start in range(0, data.shape[0], BLOCK_FRAMES):
        low, high = np.searchsorted(row, (start, start + BLOCK_FRAMES))
        block = np.zeros((min(BLOCK_FRAMES, data.shape[0] - start), MAX_CXI_PEAKS), dtype=np.float32)
        block[row[low:high] - start, place[low:high]] = values[low:high]
        data[start : start + block.shape[0]] = block


def _read_lists(files: LinkedFiles) -> dict[str, npt.NDArray[Any]]:
    n_peaks = files.dataset(f"{RESULT}/nPeaks")
    if n_peaks.size > MAX_FRAMES or n_peaks.dtype.kind not in "ui":
        raise ValueError(f"nPeaks is {n_peaks.dtype} {n_peaks.shape}")
    check_declared(n_peaks, n_peaks.size)
    counts = read_whole(n_peaks).astype(np.int64)
    shape = files.dataset(f"{RESULT}/peakXPosRaw").shape
    if len(shape) == 2 and shape[1] > MAX_LISTED_PEAKS:
        raise ValueError(f"peakXPosRaw has shape {shape}")
    if counts.ndim != 1 or len(shape) != 2 or shape[0] != counts.size:
        raise ValueError(f"nPeaks has shape {counts.shape}, peakXPosRaw {shape}")
    if counts.size and not (counts.min() >= 0 and counts.max() <= shape[1]):
        raise ValueError(f"nPeaks goes from {counts.min()} to {counts.max()}, peakXPosRaw holds {shape[1]}")
    names = {"peakXPosRaw": "x", "peakYPosRaw": "y"} | LISTS
    lists = {column: _read_list(files, name, counts) for name, column in names.items()}
    lists["n_pixels"] = lists["n_pixels"].astype(np.int32)
    if files.find(f"{RESULT}/peakScore") is None:
        lists["score"] = np.full(counts.sum(), np.nan)
    return {"frame": np.repeat(np.arange(counts.size), counts), **lists}


def _read_list(files: LinkedFiles, name: str, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    if files.find(f"{RESULT}/{name}") is None:
        if name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity"):
            raise KeyError(name)
        return np.zeros(counts.sum())
    data = files.dataset(f"{RESULT}/{name}")
    parts = [np.empty(0)]
    for start in range(0, counts.size, BLOCK_FRAMES):
        if not counts[start : start + BLOCK_FRAMES].any():
            continue
        block = read_rows(data, start, start + BLOCK_FRAMES)
        parts += [block[i, :n].astype(np.float64) for i, n in enumerate(counts[start : start + BLOCK_FRAMES])]
    return np.concatenate(parts)


def _to_panels(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], geometry: Geometry | None, path: Path
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    panel = np.zeros(x.size, dtype=np.int16)
    if geometry is None:
        return panel, x, y
    panel[:] = -1
    fs, ss = x.copy(), y.copy()
    for number, p in enumerate(geometry.panels):
        inside = (x >= p.min_fs - 0.5) & (x < p.max_fs + 0.5) & (y >= p.min_ss - 0.5) & (y < p.max_ss + 0.5)
        panel[inside] = number
        fs[inside] -= p.min_fs
        ss[inside] -= p.min_ss
    if (panel < 0).any():
        first = int(np.flatnonzero(panel < 0)[0])
        found = f"{int((panel < 0).sum())} peaks, the first at fs {x[first]:.1f}, ss {y[first]:.1f}"
        remedy = "Use the geometry of the file."
        raise RunError("peaks lie outside every panel", where=path, found=found, remedy=remedy)
    return panel, fs, ss
