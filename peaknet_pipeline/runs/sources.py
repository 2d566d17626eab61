"""Find the frames in a file and read them by range."""

import itertools
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
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.hdf5.storage import address, check_declared
from peaknet_pipeline.runs.slabs import SlabMap, map_panels, map_plain
from peaknet_pipeline.types import FrameArray, Geometry

MAX_FRAME_BYTES = 2**29
MAX_FRAMES = 20_000_000
MAX_LINKED_DATA = 100_000
CONVENTIONAL_DATA = (
    "/entry_1/data_1/data",
    "/entry_1/instrument_1/detector_1/data",
    "/entry/data/data",
    "/data/data",
)
LINKED_DATA = "data_000001"


@dataclass(frozen=True)
class FrameSource:
    """Frames that lie in one data set after another, and how its slabs become (part of) a stack."""

    datasets: tuple[Any, ...]
    slab_map: SlabMap
    starts: tuple[int, ...]
    n_frames: int

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
    for path in CONVENTIONAL_DATA:
        found = files.find(path)
        if found is not None and _looks_like_frames(found):
            return path
    if files.find(f"/entry/data/{LINKED_DATA}") is not None:
        return f"/entry/data/{LINKED_DATA}"
    everything = files.described()
    stacks = [
        (len(shape) >= 3, math.prod(shape), path)
        for path, shape, dtype in everything
        if _is_frames(shape, dtype)
    ]
    if not stacks:
        names = ", ".join(f"{path} {shape}" for path, shape, _ in everything[:8]) or "no data sets"
        raise RunError(
            "no data set holds frames",
            where=files.path,
            found=names,
            remedy="Name it with the geometry's data.",
        )
    return max(stacks)[2]


def open_source(files: LinkedFiles, path: str, geometry: Geometry | None) -> FrameSource:
    """Open the data set at ``path``, and its successors where a master file numbers them.

    Raises
    ------
    RunError
        The data set is missing, not numeric, empty, absurdly large, or does not fit the geometry.

    """
    datasets = numbered_datasets(files, path)
    for dataset in datasets:
        check_frames(dataset, files.path)
    shape = datasets[0].shape
    slab_map = map_plain(shape) if geometry is None else map_panels(shape, geometry)
    return _source(datasets, slab_map, files.path)


def open_panel_sources(files: LinkedFiles, geometry: Geometry) -> tuple[FrameSource, ...]:
    """Open one source per data set of a geometry whose panels have data sets of their own."""
    paths = list(dict.fromkeys(panel.data_path for panel in geometry.panels))
    sources = []
    for path in paths:
        dataset = files.dataset(path or "")
        check_frames(dataset, files.path)
        numbers = tuple(i for i, panel in enumerate(geometry.panels) if panel.data_path == path)
        sources.append(_source((dataset,), map_panels(dataset.shape, geometry, numbers), files.path))
    return tuple(sources)


def check_frames(dataset: Any, where: Path, *, may_be_empty: bool = False) -> None:
    """Raise RunError unless a data set can hold frames: numeric, not empty (so far), of bounded size."""
    name, shape, kind = dataset.name, dataset.shape, dataset.dtype
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
    if dataset.chunks and not dataset.is_virtual and dataset.id.get_storage_size() == 0:
        raise RunError(f"{name} was never written", where=where, found=f"shape {shape} without stored data")
    check_declared(dataset, dataset.size // n_pixels)


def numbered_datasets(files: LinkedFiles, path: str) -> tuple[Any, ...]:
    """Return the data set at a path, and those that follow it.

    In a path such as ``/%/data`` the placeholder stands for every group there is, in order of name; ``data_000001`` is
    followed by its numbered successors in a master file.

    Raises
    ------
    RunError
        There is none, or absurdly many.

    """
    if "%" in path:
        return tuple(files.dataset(name) for name in expand_placeholders(files, path))
    if not path.endswith(LINKED_DATA):
        return (files.dataset(path),)
    parent = path.removesuffix(LINKED_DATA)
    group = files.find(parent)
    if not isinstance(group, h5py.Group):
        raise RunError("no such group of data sets", where=files.path, found=parent)
    names = sorted(name for name in group if name.startswith("data_") and name[5:].isdigit())
    if len(names) > MAX_LINKED_DATA:
        raise RunError("absurdly many linked data sets", where=files.path, found=len(names))
    return tuple(files.dataset(parent + name) for name in names)


def expand_placeholders(files: LinkedFiles, pattern: str) -> list[str]:
    """Return the paths of all data sets that a path with placeholders (%) stands for, in order of name.

    Raises
    ------
    RunError
        There is none, or absurdly many.

    """
    names = [""]
    known: dict[tuple[int, int], list[str]] = {}
    for part in pattern.strip("/").split("/"):
        known.clear()
        every = (f"{name}/{member}" for name in names for member in _matching(files, name, part, known))
        names = list(itertools.islice(every, MAX_LINKED_DATA + 1))
        if len(names) > MAX_LINKED_DATA:
            raise RunError(
                "absurdly many data sets", where=files.path, expected=f"≤ {MAX_LINKED_DATA}", found=pattern
            )
    found = [name for name in names if files.find(name) is not None]
    if not found:
        raise RunError("no data set matches", where=files.path, expected=pattern)
    return found


def _matching(
    files: LinkedFiles, parent: str, part: str, known: dict[tuple[int, int], list[str]]
) -> list[str]:
    """Return the members of a group that fit; a group that was met before, by another link, is not looked through again."""
    if "%" not in part:
        return [part]
    group = files.find(parent or "/")
    if not isinstance(group, h5py.Group):
        return []
    if address(group) not in known:
        before, _, after = part.partition("%")
        names = (name for name, _ in files.members(group))
        known[address(group)] = sorted(n for n in names if n.startswith(before) and n.endswith(after))
    return known[address(group)]


def _source(datasets: tuple[Any, ...], slab_map: SlabMap, where: Path) -> FrameSource:
    shapes = {_frame_shape(d, slab_map) for d in datasets}
    if len(shapes) > 1:
        raise RunError("linked data sets differ in their frames", where=where, found=sorted(shapes))
    counts = [_n_frames(d, slab_map) for d in datasets]
    starts = tuple(int(n) for n in np.cumsum([0, *counts[:-1]]))
    return FrameSource(datasets, slab_map, starts, sum(counts))


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
