"""Runs of European XFEL, read through ``extra_data`` (optional: install it beside this package).

A run directory becomes frames of all modules, (frame, module, ss, fs), train after train; only the trains of the frames
asked for are read. Use calibrated ("proc") runs: their masked pixels become NaN.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import geometry_bad_pixels
from peaknet_pipeline.runs.checksum import checksum_files
from peaknet_pipeline.runs.masks import combine_masks
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.slabs import map_panels, map_plain
from peaknet_pipeline.runs.sources import FrameSource
from peaknet_pipeline.types import FrameArray, Geometry, IntArray, RunInfo

FORMAT = "euxfel"


@dataclass(frozen=True)
class EuxfelFiles:
    """What stays open behind a EuXFEL run."""

    path: Path
    collection: Any

    def close(self) -> None:
        """Close every file of the run that ``extra_data`` holds open."""
        for file in self.collection.files:
            file.close()


class EuxfelFrames:
    """The frames of a multi-module detector, sliced like a data set (frame, module, ss, fs).

    Modules without data in a train are NaN (floats) or 0.
    """

    chunks = None
    is_virtual = False

    def __init__(self, detector: Any) -> None:
        key = detector._main_data_key
        masked = detector._mask_data_key in detector
        self._data = detector.masked_data() if masked else detector[key]
        self._cells = int(detector._frames_per_entry)
        self._train_of_frame: IntArray = np.searchsorted(detector.train_ids, detector.train_ids_perframe)
        if self._cells > 1:
            self._train_of_frame = np.repeat(np.arange(len(detector.train_ids)), self._cells)
        self.name = f"{detector.detector_name} {key}"
        self.dtype = np.dtype(self._data.dtype)
        height, width = detector.module_shape
        self.shape = (len(self._train_of_frame), detector.n_modules, height, width)
        self.ndim = len(self.shape)

    def __getitem__(self, selection: tuple[slice, ...]) -> FrameArray:
        """Read the trains that hold the frames, and cut them out."""
        from extra_data import by_index

        frames, *window = selection
        first, last = int(self._train_of_frame[frames.start]), int(self._train_of_frame[frames.stop - 1])
        data = self._data.select_trains(by_index[first : last + 1]).ndarray(module_gaps=True)
        stack = data.reshape(data.shape[0], -1, *data.shape[-2:])
        offset = frames.start - int(np.searchsorted(self._train_of_frame, first))
        cut: FrameArray = stack[:, offset : offset + frames.stop - frames.start].swapaxes(0, 1)
        return np.ascontiguousarray(cut[(slice(None), *window)])


def open_euxfel_run(
    path: Path | str, geometry: Geometry | Path | str | None = None, *, detector: str | None = None
) -> Run:
    """Open a EuXFEL run directory.

    Parameters
    ----------
    path : Path
        Run directory with one HDF5 file per module (``proc/r0042``).
    geometry : Geometry or path, optional
        CrystFEL geometry with ``dim1`` = module; without one each module is a panel.
    detector : str, optional
        Detector name (``SPB_DET_AGIPD1M-1``) where a run has several.

    Raises
    ------
    RunError
        ``extra_data`` is not installed, the directory holds no (or several) multi-module detectors or no frames, the
        data are raw AGIPD or LPD, or the geometry doesn't fit.

    """
    path = Path(path)
    if geometry is not None and not isinstance(geometry, Geometry):
        geometry = read_geometry(geometry)
    files, found = _find_detector(path, detector)
    try:
        frames = EuxfelFrames(found)
        _check(frames, found, path)
        slab_map = map_plain(frames.shape) if geometry is None else map_panels(frames.shape, geometry)
    except RunError as error:
        files.close()
        where = error.where or path
        raise RunError(
            error.what, where=where, expected=error.expected, found=error.found, remedy=error.remedy
        ) from error
    source = FrameSource((frames,), slab_map, (0,), frames.shape[0])
    return _run(files, source, geometry, frames)


def _find_detector(path: Path, name: str | None) -> tuple[EuxfelFiles, Any]:
    try:
        import extra_data
        from extra_data.components import identify_multimod_detectors
    except ImportError as error:
        remedy = "Install it: pip install 'peaknet-pipeline[euxfel]'."
        raise RunError("EuXFEL runs need extra_data", where=path, remedy=remedy) from error
    try:
        collection = extra_data.RunDirectory(str(path))
    except Exception as error:  # extra_data raises bare exceptions, too
        raise RunError(f"not a EuXFEL run ({error})", where=path) from error
    files = EuxfelFiles(path, collection)
    known = {found: cls for found, cls in identify_multimod_detectors(collection) if name in (None, found)}
    if len(known) != 1:
        files.close()
        names = sorted(known) or "none"
        remedy = (
            "Name one with detector=…" if known else "Give the directory of a run with AGIPD, LPD, … data."
        )
        raise RunError("no single multi-module detector", where=path, found=names, remedy=remedy)
    ((detector_name, detector_class),) = known.items()
    try:
        return files, detector_class(collection, detector_name=detector_name)
    except Exception as error:
        files.close()
        raise RunError(f"the detector's data cannot be used ({error})", where=path) from error


def _check(frames: EuxfelFrames, detector: Any, path: Path) -> None:
    if frames.shape[0] == 0:
        raise RunError("the run has no frames", where=path)
    entry = detector[detector._main_data_key].buffer_shape()
    if len(entry) > 4 and frames._cells == 1 and entry[-3] != 1:
        remedy = "Open the calibrated (proc) run."
        raise RunError("the run is raw", where=path, found=f"{detector.detector_name} {entry}", remedy=remedy)


def _run(files: EuxfelFiles, source: FrameSource, geometry: Geometry | None, frames: EuxfelFrames) -> Run:
    paths = sorted(Path(file.filename) for file in files.collection.files)
    energy = geometry.photon_energy_ev if geometry is not None else None
    masks = {} if geometry is None else {"geometry": geometry_bad_pixels(geometry)}
    no_mask = np.zeros(source.slab_map.stack_shape, dtype=np.bool_), ()
    bad_pixels, mask_sources = combine_masks(masks) if masks else no_mask
    info = RunInfo(
        path=files.path,
        data_path=frames.name,
        file_format=FORMAT,
        n_frames=source.n_frames,
        stack_shape=source.slab_map.stack_shape,
        dtype=str(frames.dtype),
        photon_energy_ev=np.full(source.n_frames, np.nan if energy is None else energy),
        geometry_path=geometry.source if geometry is not None else None,
        mask_path=None,
        checksum=checksum_files(paths),
        size_bytes=sum(path.stat().st_size for path in paths),
        files=tuple(paths),
    )
    return Run(
        files,
        (source,),
        info=info,
        geometry=geometry,
        bad_pixels=bad_pixels,
        mask_sources=mask_sources,
        clen_m=None,
    )
