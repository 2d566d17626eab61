"""Find the frames in a file and read them by range."""

import math
from bisect import bisect_right
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.chunks import read_chunks
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFileMissingError, LinkedFiles
from peaknet_pipeline.hdf5.storage import check_declared
from peaknet_pipeline.runs.nexus_layout import find_entries
from peaknet_pipeline.runs.series import (
    Event,
    FrameOrder,
    Series,
    missing_frames,
    numbered_paths,
    open_series,
    substitute,
    was_written,
)
from peaknet_pipeline.runs.slabs import SlabMap, map_panels, map_plain
from peaknet_pipeline.types import FrameArray, Geometry

MAX_FRAME_BYTES = 2**29
MAX_FRAMES = 20_000_000
CONVENTIONAL_DATA = (
    "/entry_1/data_1/data",
    "/entry_1/instrument_1/detector_1/data",
    "/entry/data/data",
    "/data/data",
)


@dataclass(frozen=True)
class FrameSource:
    """Frames that lie in one data set after another, and how its slabs become (part of) a stack."""

    datasets: tuple[Any, ...]
    slab_map: SlabMap
    starts: tuple[int, ...]
    n_frames: int
    events: tuple[Event, ...] = ()
    """What stands for the placeholders of the data's path, for each data set."""
    is_cut: bool = False
    """Frames at the end are missing: data sets, or chunks."""

    @property
    def order(self) -> FrameOrder:
        """How the frames are counted."""
        counts = tuple(np.diff([*self.starts, self.n_frames]).tolist())
        return FrameOrder(counts, self.events or ((),) * len(counts), self.is_cut)

    def read(self, start: int, stop: int, pool: Executor | None = None) -> FrameArray:
        """Return the frames ``start`` to ``stop``, (n, n_panels, ss, fs), native byte order."""
        parts, first = [], bisect_right(self.starts, start) - 1
        for offset, dataset in zip(self.starts[first:], self.datasets[first:], strict=True):
            if offset >= stop:
                break
            n = _n_frames(dataset, self.slab_map)
            parts.append(self._read_one(dataset, max(start - offset, 0), min(stop - offset, n), pool))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read_one(self, dataset: Any, start: int, stop: int, pool: Executor | None) -> FrameArray:
        selection = self.slab_map.selection(start, stop)
        slab = read_chunks(dataset, selection, pool)
        if not slab.dtype.isnative:
            slab = slab.astype(slab.dtype.newbyteorder("="))
        return self.slab_map.to_stack(slab)


def find_data_path(files: LinkedFiles) -> str:
    """Return the path of the frames' data set: a conventional place, or the largest numeric stack.

    Raises
    ------
    RunError
        No data set looks like frames; the message lists what there is.

    """
    broken: LinkedFileMissingError | None = None
    for path in CONVENTIONAL_DATA:
        try:
            found = files.find(path)
        except (
            LinkedFileMissingError
        ) as error:  # a virtual data set of a stopped run: its numbered sources may do
            broken = broken or error
            continue
        if found is not None and _looks_like_frames(found):
            return path
    for entry in find_entries(files):
        linked = _linked_data(files, f"{entry}/data")
        if linked is not None:
            return linked
    if broken is not None:
        raise broken
    return _largest_stack(files)


def _linked_data(files: LinkedFiles, parent: str) -> str | None:
    """Return the first of the frames' data sets in a NeXus data group; where all links are broken, the first link."""
    group = files.find(parent)
    if not isinstance(group, h5py.Group):
        return None
    frames = [
        (math.prod(dataset.shape), name)
        for name, dataset in files.members(group)
        if _looks_like_frames(dataset)
    ]
    if frames:
        return f"{parent}/{max(frames, key=lambda one: one[0])[1]}"
    names = files.names(group)
    links = [name for name in names if isinstance(files.link(group, name), h5py.ExternalLink)]
    return f"{parent}/{links[0]}" if links else None


def _largest_stack(files: LinkedFiles) -> str:
    everything = files.described()
    stacks = {path: (shape, dtype) for path, shape, dtype in everything if _is_frames(shape, dtype)}
    if not stacks:
        names = ", ".join(f"{path} {shape}" for path, shape, _ in everything[:8]) or "no data sets"
        raise RunError(
            "no data set holds frames",
            where=files.path,
            found=names,
            remedy="Name it with the geometry's data.",
        )
    chosen = max(stacks, key=lambda path: (len(stacks[path][0]) >= 3, math.prod(stacks[path][0]), path))
    read = numbered_paths(files, chosen, named=False)
    others = [path for path in stacks if stacks[path] == stacks[chosen] and path not in read]
    if others:
        files.doubt(
            f"{len(others)} more data sets of the same shape are not read, such as {others[0]}: name the frames with the "
            "geometry's data, where % stands for every group, if they belong to the run."
        )
    return chosen


def open_source(
    files: LinkedFiles, path: str, geometry: Geometry | None, *, named: bool = True
) -> FrameSource:
    """Open the data set at ``path``, and its successors where a master file numbers them or a placeholder names them.

    Raises
    ------
    RunError
        The data set is missing, not numeric, empty, absurdly large, or does not fit the geometry.

    """
    series = open_series(files, path, named=named)
    _check_series(files, series)
    shape = series.datasets[0].shape
    slab_map = map_plain(shape) if geometry is None else map_panels(shape, geometry)
    return _source(files, series, slab_map)


def open_panel_sources(files: LinkedFiles, geometry: Geometry) -> tuple[FrameSource, ...]:
    """Open one source for each path of a geometry whose panels have data sets of their own.

    Where the paths have placeholders, the first path's events are those of all.
    """
    paths = [path or "" for path in dict.fromkeys(panel.data_path for panel in geometry.panels)]
    first = open_series(files, paths[0])
    sources = []
    for path in paths:
        series = first if path == paths[0] else _open_events(files, path, first.events)
        _check_series(files, series)
        numbers = tuple(i for i, panel in enumerate(geometry.panels) if (panel.data_path or "") == path)
        slab_map = map_panels(series.datasets[0].shape, geometry, numbers)
        sources.append(_source(files, series, slab_map))
    return tuple(sources)


def _open_events(files: LinkedFiles, path: str, events: tuple[Event, ...]) -> Series:
    if path.count("%") != len(events[0]):
        raise RunError(
            "panels differ in their placeholders",
            where=files.path,
            expected=f"{len(events[0])} of % in every panel's data",
            found=path,
        )
    paths = tuple(substitute(path, event) for event in events)
    return Series(tuple(files.dataset(one) for one in paths), paths, events)


def _check_series(files: LinkedFiles, series: Series) -> None:
    for path, dataset in zip(series.paths, series.datasets, strict=True):
        check_frames(dataset, path, files.path)


def check_frames(dataset: Any, name: str, where: Path, *, may_be_empty: bool = False) -> None:
    """Raise RunError unless a data set, found at a path, can hold frames: numeric, not empty (so far), of bounded size."""
    shape, kind = dataset.shape, dataset.dtype
    if kind.kind not in "uif" or kind.itemsize > 8:
        raise RunError(f"{name} is not numeric", where=where, expected="integers or floats", found=kind)
    if shape is None or len(shape) < 2:
        raise RunError(
            f"{name} is no stack of frames", where=where, expected="2 to 4 dimensions", found=shape
        )
    if 0 in (shape[1:] if may_be_empty else shape):
        raise RunError(
            f"{name} has no frames", where=where, found=f"shape {shape}", remedy="Record the run again."
        )
    n_pixels = math.prod(shape[-3:] if len(shape) > 3 else shape[-2:])
    frame_bytes = n_pixels * kind.itemsize
    if frame_bytes > MAX_FRAME_BYTES or max(shape) > MAX_FRAMES:
        found = f"shape {shape}, chunks {dataset.chunks}"
        limit = f"≤ {MAX_FRAME_BYTES} bytes a frame"
        raise RunError(f"{name} is absurdly large", where=where, expected=limit, found=found)
    if may_be_empty:
        return
    if not was_written(dataset):
        raise RunError(f"{name} was never written", where=where, found=f"shape {shape} without stored data")
    check_declared(dataset, dataset.size // n_pixels)


def _source(files: LinkedFiles, series: Series, slab_map: SlabMap) -> FrameSource:
    kinds = {(d.ndim, _frame_shape(d, slab_map), d.dtype) for d in series.datasets}
    if len(kinds) > 1:
        found = sorted(f"{shape} {dtype}" for _, shape, dtype in kinds)
        raise RunError("linked data sets differ in their frames", where=files.path, found=found)
    counts = [_n_frames(d, slab_map) for d in series.datasets]
    missing = [missing_frames(d, slab_map.frame_axis) for d in series.datasets]
    starts = tuple(int(n) for n in np.cumsum([0, *counts[:-1]]))
    at_end = counts[-1] - 1 - max(np.setdiff1d(np.arange(counts[-1]), missing[-1]), default=-1)
    lost = sum(map(len, missing)) - at_end
    if lost:
        files.doubt(
            f"{lost} frames before the last were never written: they hold the fill value of the data set."
        )
    if at_end:
        files.doubt(
            f"The last {at_end} of {sum(counts)} frames were never written: the run ends before them."
        )
    is_cut = series.is_cut or at_end > 0
    return FrameSource(series.datasets, slab_map, starts, sum(counts) - int(at_end), series.events, is_cut)


def _n_frames(dataset: Any, slab_map: SlabMap) -> int:
    return 1 if slab_map.frame_axis is None else int(dataset.shape[slab_map.frame_axis])


def _frame_shape(dataset: Any, slab_map: SlabMap) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(dataset.shape) if i != slab_map.frame_axis)


def _looks_like_frames(found: Any) -> bool:
    try:
        return _is_frames(found.shape or (), str(found.dtype))
    except (AttributeError, *DAMAGE):
        return False


def _is_frames(shape: tuple[int, ...], dtype: str) -> bool:
    numeric = dtype.lstrip("<>|=").startswith(("uint", "int", "float", "u", "i", "f"))
    return numeric and 2 <= len(shape) <= 4 and min(shape[-2:]) > 1
