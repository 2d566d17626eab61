"""The images of a CXI file: a link to the raw data set, a virtual data set that stacks panels along ss, or a copy.

CrystFEL cannot assign peaks to panels that share an fs/ss range (a module dimension, data sets of their own);
for those the virtual data set is the slab.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.hdf5.compression import frame_compression
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.slabs import SlabMap
from peaknet_pipeline.runs.sources import FrameSource
from peaknet_pipeline.types import Geometry, IntArray, Panel

DATA_PATH = "/entry_1/data_1/data"


@dataclass(frozen=True)
class CxiSlab:
    """The slab that a CXI file shows.

    Attributes
    ----------
    shape : (ss, fs)
    origins : (n_panels, 4) int64
        First fs, first ss, width and height of each panel in the slab.
    panels : tuple of Panel
        The geometry's panels, moved to this slab; empty without a geometry.
    is_raw : bool
        The raw data set is this very slab.

    """

    shape: tuple[int, int]
    origins: IntArray
    panels: tuple[Panel, ...]
    is_raw: bool

    def from_stack(self, stack: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Lay a stack (n_panels, ss, fs) out as the slab; 0 where no panel is."""
        slab = np.zeros(self.shape, dtype=stack.dtype)
        for number, (fs, ss, width, height) in enumerate(self.origins):
            slab[ss : ss + height, fs : fs + width] = stack[number, :height, :width]
        return slab


def slab_of(run: Run) -> CxiSlab:
    """Return the slab in which a run's peaks are written."""
    dataset = run.sources[0].datasets[0]
    slab_map = run.sources[0].slab_map
    is_raw = len(run.sources) == 1 and dataset.ndim == 3 and slab_map.frame_axis == 0
    if run.geometry is None:
        n_panels, height, width = run.stack_shape
        origins = np.array([[0, k * height, width, height] for k in range(n_panels)], dtype=np.int64)
        return CxiSlab((n_panels * height, width), origins, (), is_raw)
    if is_raw and not any(panel.stack_index for panel in run.geometry.panels):
        origins = np.array([_window(panel) for panel in run.geometry.panels], dtype=np.int64)
        return CxiSlab(dataset.shape[1:], origins, run.geometry.panels, is_raw)
    return _restacked(run.geometry.panels)


def slab_of_geometry(geometry: Geometry) -> CxiSlab:
    """Return the slab for frames that come from no file."""
    if any(panel.stack_index or panel.data_path for panel in geometry.panels):
        return _restacked(geometry.panels)
    origins = np.array([_window(panel) for panel in geometry.panels], dtype=np.int64)
    height, width = (int((origins[:, i] + origins[:, j]).max()) for i, j in ((1, 3), (0, 2)))
    return CxiSlab((height, width), origins, geometry.panels, False)


def create_images(file: Any, slab: CxiSlab, dtype: npt.DTypeLike) -> Any:
    """Return a new data set of images, (0, ss, fs) and growing, one compressed chunk a frame."""
    return file.create_dataset(
        DATA_PATH,
        (0, *slab.shape),
        dtype,
        maxshape=(None, *slab.shape),
        chunks=(1, *slab.shape),
        **frame_compression(),
    )


def copy_images(file: Any, run: Run, slab: CxiSlab, frames: npt.NDArray[np.int64]) -> None:
    """Copy frames of a run into an open file, which then needs the raw run no more."""
    images = create_images(file, slab, run.dtype)
    images.resize(len(frames), axis=0)
    for row, frame in enumerate(frames.tolist()):
        images[row] = slab.from_stack(run.read(frame, frame + 1)[0])
        file.check_written()


def link_images(file: Any, path: Path, run: Run, slab: CxiSlab, frames: npt.NDArray[np.int64]) -> None:
    """Make a run's images reachable at ``/entry_1/data_1/data`` of an open file, ``path`` in the end."""
    placed = run.placed_sources
    if not placed:
        copy_images(file, run, slab, frames)
        return
    datasets = [dataset for _, source in placed for dataset in source.datasets]
    dataset = datasets[0]
    if slab.is_raw and len(datasets) == 1 and len(frames) == run.n_frames == dataset.shape[0]:
        file[DATA_PATH] = h5py.ExternalLink(_relative(dataset, path), dataset.name)
        return
    layout = h5py.VirtualLayout((len(frames), *slab.shape), dtype=datasets[0].dtype)
    for first, one in placed:
        for offset, dataset in zip(one.starts, one.datasets, strict=True):
            _map_dataset(layout, one, dataset, first + offset, _relative(dataset, path), slab, frames)
    file.create_virtual_dataset(DATA_PATH, layout, fillvalue=0)


def _window(panel: Panel) -> list[int]:
    return [panel.min_fs, panel.min_ss, panel.max_fs - panel.min_fs + 1, panel.max_ss - panel.min_ss + 1]


def _restacked(panels: tuple[Panel, ...]) -> CxiSlab:
    moved, start = [], 0
    for panel in panels:
        _, _, width, height = _window(panel)
        moved.append(
            dataclasses.replace(
                panel,
                min_fs=0,
                max_fs=width - 1,
                min_ss=start,
                max_ss=start + height - 1,
                stack_index=(),
                data_path=None,
            )
        )
        start += height
    origins = np.array([_window(panel) for panel in moved], dtype=np.int64)
    return CxiSlab((start, int(origins[:, 2].max())), origins, tuple(moved), False)


def _relative(dataset: Any, path: Path) -> str:
    return os.path.relpath(Path(dataset.file.filename).resolve(), path.resolve().parent)


def _map_dataset(
    layout: Any,
    source: FrameSource,
    dataset: Any,
    offset: int,
    name: str,
    slab: CxiSlab,
    frames: npt.NDArray[np.int64],
) -> None:
    virtual = h5py.VirtualSource(name, dataset.name, dataset.shape, dtype=dataset.dtype)
    n = 1 if source.slab_map.frame_axis is None else dataset.shape[source.slab_map.frame_axis]
    for first, last, row in _runs_of(frames, offset, offset + n):
        for number, window in _panel_windows(source.slab_map):
            fs, ss, width, height = slab.origins[number]
            selection = _with_frames(window, source.slab_map, slice(first - offset, last - offset))
            layout[row : row + last - first, ss : ss + height, fs : fs + width] = virtual[selection]


def _runs_of(frames: npt.NDArray[np.int64], start: int, stop: int) -> list[tuple[int, int, int]]:
    """Return (first, last + 1, row) of the stretches of consecutive frames between ``start`` and ``stop``."""
    rows = np.flatnonzero((frames >= start) & (frames < stop))
    breaks = np.flatnonzero(np.diff(frames[rows]) != 1) + 1
    return [
        (int(frames[part[0]]), int(frames[part[-1]]) + 1, int(part[0]))
        for part in np.split(rows, breaks)
        if part.size
    ]


def _panel_windows(slab_map: SlabMap) -> list[tuple[int, tuple[slice, ...]]]:
    """Return each panel's place in the data set, frames left out."""
    box = [w.start for w in slab_map.window]
    return [
        (number, tuple(slice(s.start + b, s.stop + b) for s, b in zip(cut, box, strict=True)))
        for number, cut in slab_map.cuts
    ]


def _with_frames(window: tuple[slice, ...], slab_map: SlabMap, frames: slice) -> tuple[slice | int, ...]:
    """Insert the frame range; a fixed index becomes an integer, so that frames, ss and fs remain."""
    plain = [w.start if i in slab_map.fixed else w for i, w in enumerate(window)]
    axis = slab_map.frame_axis
    return tuple(plain) if axis is None else (*plain[:axis], frames, *plain[axis:])
