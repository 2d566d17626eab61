"""How data sets are stored: checked once each, before anything of them is read.

Work and memory are bounded by what is stored. A file of some kilobytes may declare millions of frames, chunks of gigabytes,
or virtual data sets that lead to each other along 2ⁿ ways.
"""

import math
from pathlib import Path
from typing import Any, Protocol

import h5py

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.filters import read_pipeline
from peaknet_pipeline.hdf5.virtual import VirtualDataset, VirtualPart, virtual_part

MAX_CHUNK_BYTES = 2**28
MAX_VIRTUAL_DEPTH = 16
MAX_UNSTORED_ROWS, MAX_ROWS_PER_STORED = 100_000, 100
"""How many rows a data set may declare whatever it stores, and for each that it stores."""
FILTER_MESSAGE = 0x0B
"""HDF5's object header message that names filters."""


class Door(Protocol):
    """What leads from one file to another: see :class:`~peaknet_pipeline.hdf5.files.LinkedFiles`."""

    def inside(self, linking: Path, name: str) -> Path:
        """Return the path of a file that another one names; RunError if it is outside of the allowed folder."""

    def source(self, dataset: Any, file_name: str, path: str) -> Any:
        """Return the object behind a virtual data set, unchecked; None where there is none."""


class StorageCheck:
    """Checks each data set once, and finds the sources of virtual ones."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._parts: dict[tuple[int, int], tuple[VirtualPart, ...] | None] = {}

    def check(self, found: Any, depth: int = 0) -> Any:
        """Return a data set that may be read: itself, or with the parts that it is made of where it is virtual.

        Raises
        ------
        RunError
            Its chunks are absurdly large or compressed without bound, or its values would come from outside of the allowed
            folder, at whatever remove, or from itself.

        """
        if not isinstance(found, h5py.Dataset):
            return found
        if found.is_virtual:
            return VirtualDataset(found, self._parts_of(found, depth))
        where = address(found)
        if where not in self._parts:
            _check_chunks(found)
            self._check_external(found)
            self._parts[where] = ()
        return found

    def _parts_of(self, dataset: Any, depth: int) -> tuple[VirtualPart, ...]:
        here, where = Path(dataset.file.filename), address(dataset)
        if where in self._parts:
            known = self._parts[where]
            if known is None:
                raise RunError("virtual data sets go in a circle", where=here, found=dataset.name)
            return known
        if depth >= MAX_VIRTUAL_DEPTH:
            raise RunError("virtual data sets lie too deep", where=here, expected=f"≤ {MAX_VIRTUAL_DEPTH}")
        self._parts[where] = None
        try:
            parts = self._read_parts(dataset, depth)
        except BaseException:
            del self._parts[where]
            raise
        self._parts[where] = parts
        return parts

    def _read_parts(self, dataset: Any, depth: int) -> tuple[VirtualPart, ...]:
        sources: dict[tuple[str, str], Any] = {}
        parts = []
        for mapping in dataset.virtual_sources():
            place = mapping.file_name, mapping.dset_name
            if place not in sources:
                sources[place] = self._source(dataset, *place, depth)
            if sources[place] is not None:
                parts.append(virtual_part(dataset, mapping, sources[place]))
        return tuple(parts)

    def _source(self, dataset: Any, file_name: str, path: str, depth: int) -> Any:
        if "%" in file_name + path:
            where, found = dataset.file.filename, f"{file_name}:{path}"
            raise RunError("a virtual source is a pattern", where=where, found=found)
        found = self.check(self._door.source(dataset, file_name, path), depth + 1)
        return found if isinstance(found, h5py.Dataset) else None

    def _check_external(self, dataset: Any) -> None:
        for name, *_ in dataset.external or ():
            here = Path(dataset.file.filename)
            self._door.inside(here, name)
            if not Path(name).is_absolute():  # HDF5 looks for it in the working directory, wherever that is
                raise RunError(
                    f"{dataset.name} has external storage with a relative name",
                    where=here,
                    expected="an absolute path below the allowed folder",
                    found=name,
                )


def check_group(group: Any) -> None:
    """Raise RunError if the names in a group are compressed: HDF5 would decode them with its own filters."""
    if h5py.h5o.get_info(group.id).hdr.mesg.present >> FILTER_MESSAGE & 1:
        raise RunError(
            f"the group {group.name} is stored with filters",
            where=group.file.filename,
            remedy="Copy its members to a plain group.",
        )


def address(node: Any) -> tuple[int, int]:
    """Return what tells an object from every other that is open, by whatever path it was reached."""
    info = h5py.h5o.get_info(node.id)
    return int(info.fileno), int(info.addr)


def stored_elements(dataset: Any, seen: set[tuple[int, int]] | None = None) -> int:
    """Return how many elements of a data set are stored in files; of a virtual one, in its sources, once each."""
    seen = set() if seen is None else seen
    if getattr(dataset, "id", None) is None:  # no data set of an HDF5 file: it is what it says
        return int(getattr(dataset, "n_stored", math.prod(dataset.shape)))
    if address(dataset) in seen:
        return 0
    seen.add(address(dataset))
    if isinstance(dataset, VirtualDataset):
        return sum(stored_elements(part.source, seen) for part in dataset.parts)
    if dataset.chunks is not None:
        return int(dataset.id.get_num_chunks() * math.prod(dataset.chunks))
    return int(dataset.id.get_storage_size() // max(dataset.dtype.itemsize, 1))


def check_declared(dataset: Any, n_rows: int) -> None:
    """Raise RunError if a data set of ``n_rows`` rows, or frames, stores hardly any of them: a row costs work and memory."""
    if n_rows <= MAX_UNSTORED_ROWS:
        return
    stored = -(-stored_elements(dataset) * n_rows // max(dataset.size, 1))
    if n_rows > MAX_ROWS_PER_STORED * stored:
        raise RunError(
            f"{dataset.name} declares far more than it stores",
            where=getattr(dataset, "folder", None) or dataset.file.filename,
            expected=f"≤ {max(MAX_UNSTORED_ROWS, MAX_ROWS_PER_STORED * stored)} rows or frames",
            found=f"{n_rows}, of which about {stored} are stored",
            remedy="Copy the part that was recorded to a new file.",
        )


def _check_chunks(dataset: Any) -> None:
    if dataset.chunks is None:
        return
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if chunk_bytes > MAX_CHUNK_BYTES:
        raise RunError(
            f"{dataset.name} has absurdly large chunks",
            where=dataset.file.filename,
            expected=f"≤ {MAX_CHUNK_BYTES} bytes",
            found=f"{chunk_bytes} bytes",
        )
    read_pipeline(dataset)
