"""Read data sets with several threads: bytes from the file, decoded outside of HDF5 and of Python's lock.

HDF5 itself reads one chunk at a time, whatever the number of threads, and its filters trust what a chunk tells of itself.
Here chunks are read by their bytes and decoded within bounds (:mod:`~peaknet_pipeline.hdf5.filters`), also where a virtual data
set leads to them. HDF5 reads only what no filter has changed.
"""

import contextlib
import functools
import io
import itertools
import math
import os
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.filters import Pipeline, read_pipeline
from peaknet_pipeline.hdf5.virtual import VirtualDataset
from peaknet_pipeline.types import FrameArray, UInt8Array

LARGEST_OFFSET = 2**63 - 1
MAX_WHOLE_BYTES = 2**30
MAX_VIRTUAL_READS = 20_000
MAX_OVERLAP = 64
"""How many times the elements asked for may be read where parts of virtual data sets lie over each other."""

Selection = tuple[slice, ...]


def read_chunks(dataset: Any, selection: Selection, pool: Executor | None) -> FrameArray:
    """Read a box of a data set with the threads of ``pool``, or this one; equal to ``dataset[selection]``.

    Raises
    ------
    RunError
        A chunk is damaged, or virtual data sets lie over each other without end.

    """
    out = np.empty(tuple(s.stop - s.start for s in selection), dtype=dataset.dtype)
    if out.size:
        with _Reading(pool, out.size) as reading:
            reading.fill(dataset, selection, out)
    return out


def read_whole(dataset: Any) -> FrameArray:
    """Read all of a small data set; equal to ``dataset[()]``.

    Raises
    ------
    RunError
        A chunk is damaged, would decode to more than was declared, or the data set is absurdly large.

    """
    declared = (dataset.size or 0) * dataset.dtype.itemsize
    if declared > MAX_WHOLE_BYTES:
        where, found = dataset.file.filename, f"{declared} bytes, shape {dataset.shape}"
        raise RunError(f"{dataset.name} is absurdly large", where=where, found=found)
    selection = tuple(slice(0, n) for n in dataset.shape or ())
    return read_chunks(dataset, selection, None) if selection else np.asarray(dataset[()])


def read_rows(dataset: Any, start: int, stop: int) -> FrameArray:
    """Read some rows of a data set; equal to ``dataset[start:stop]``."""
    n = dataset.shape[0]
    rest = tuple(slice(0, n) for n in dataset.shape[1:])
    return read_chunks(dataset, (slice(min(start, n), min(stop, n)), *rest), None)


@dataclass(frozen=True)
class _Piece:
    """A chunk and the part of it that goes into the output."""

    offset: int
    stored: int
    skipped: int
    source: Selection
    target: Selection


class _Reading(contextlib.ExitStack):
    """One call of :func:`read_chunks`: what it has open, what its threads still do, and how much it may do."""

    def __init__(self, pool: Executor | None, n_elements: int) -> None:
        super().__init__()
        self._pool = pool
        self._jobs: list[Future[None]] = []
        self._descriptors: dict[str, int] = {}
        self._reads_left, self._elements_left = MAX_VIRTUAL_READS, MAX_OVERLAP * n_elements

    def __exit__(self, *error: Any) -> None:
        """Wait for the threads, close the files, and raise what a thread met."""
        wait(self._jobs)
        super().__exit__(*error)
        if error[0] is None:
            self._finish()

    def _finish(self) -> None:
        wait(self._jobs)
        done, self._jobs = self._jobs, []
        for job in done:
            job.result()

    def fill(self, dataset: Any, selection: Selection, out: FrameArray) -> None:
        """Read a box of a data set into ``out``, of the box's shape."""
        if isinstance(dataset, VirtualDataset):
            self._fill_virtual(dataset, selection, out)
        elif getattr(dataset, "chunks", None) is None and not dataset.is_virtual:
            out[...] = dataset[selection]
        elif dataset.is_virtual:
            raise RunError("a virtual data set was not checked", where=dataset.file.filename)
        else:
            self._fill_chunked(dataset, selection, out)

    def _fill_virtual(self, dataset: VirtualDataset, selection: Selection, out: FrameArray) -> None:
        out[...] = dataset.fillvalue
        for part in dataset.parts_within(selection):
            self._reads_left -= 1
            self._elements_left -= part.n_elements
            if min(self._reads_left, self._elements_left) < 0:
                what = f"the parts of {dataset.name} lie over each other without end"
                raise RunError(what, where=dataset.file.filename)
            if dataset.may_overlap:
                self._finish()
            target = out[part.target].reshape(part.shape)  # a view: only dimensions of 1 come or go
            if target.dtype == part.source.dtype:
                self.fill(part.source, part.box, target)
            else:
                read = np.empty(part.shape, dtype=part.source.dtype)
                self.fill(part.source, part.box, read)
                self._finish()
                target[...] = _converted(read, out.dtype)

    def _fill_chunked(self, dataset: Any, selection: Selection, out: FrameArray) -> None:
        pipeline, kind = read_pipeline(dataset), _StoredType(dataset)
        if kind.is_reference:
            if pipeline.filters:
                raise RunError(
                    f"{dataset.name} is compressed, and of a type that cannot be read so ({dataset.dtype})",
                    where=dataset.file.filename,
                    remedy="Repack the file without filters: h5repack -f NONE IN OUT.",
                )
            out[...] = dataset[selection]
            return
        pieces = _pieces(dataset, selection)
        if sum(math.prod(out[piece.target].shape) for piece in pieces) < out.size:
            out[...] = dataset.fillvalue
        for piece in pieces:
            self._start(dataset, piece, pipeline, kind, out)

    def _start(
        self, dataset: Any, piece: _Piece, pipeline: Pipeline, kind: "_StoredType", out: FrameArray
    ) -> None:
        if piece.stored > 2 * pipeline.n_bytes + 2**16:
            expected, found = f"about {pipeline.n_bytes} bytes", f"{piece.stored} bytes"
            raise RunError("a chunk is damaged", expected=expected, found=found)
        descriptor = self._descriptor(dataset.file.filename)
        if self._pool is None:
            _decode_piece(descriptor, piece, pipeline, kind, out)
        else:
            self._jobs.append(self._pool.submit(_decode_piece, descriptor, piece, pipeline, kind, out))

    def _descriptor(self, name: str) -> int:
        if name not in self._descriptors:
            self._descriptors[name] = os.open(name, os.O_RDONLY)
            self.callback(os.close, self._descriptors[name])
        return self._descriptors[name]


class _StoredType:
    """How the elements of a data set are stored: as numpy has them, or to be converted."""

    def __init__(self, dataset: Any) -> None:
        self.dtype, self.chunk_shape = dataset.dtype, dataset.chunks
        self.is_reference = bool(self.dtype.hasobject)
        self._stored = self._wanted = None
        if self.dtype.kind in "uifc" and not self.is_reference:
            stored, wanted = dataset.id.get_type(), h5py.h5t.py_create(self.dtype)
            if not stored.equal(wanted) and stored.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
                self._stored, self._wanted = stored, wanted

    def values(self, decoded: UInt8Array) -> FrameArray:
        """Return the elements of a decoded chunk."""
        if self._stored is not None:
            decoded = decoded.copy()
            h5py.h5t.convert(self._stored, self._wanted, decoded.size // self.dtype.itemsize, decoded)
        values: FrameArray = decoded != 0 if self.dtype.kind == "b" else decoded.view(self.dtype)
        return values.reshape(self.chunk_shape)

    @property
    def is_plain(self) -> bool:
        """Whether decoded bytes are the elements."""
        return self._stored is None and self.dtype.kind != "b"


def _pieces(dataset: Any, selection: Selection) -> list[_Piece]:
    """Return the stored chunks of a box, looked up in the box or among all that are stored, whichever is less."""
    shape = dataset.chunks
    grids = [range(s.start // c * c, s.stop, c) for s, c in zip(selection, shape, strict=True)]
    n_grid = math.prod(len(grid) for grid in grids)
    if n_grid > 64 and n_grid > 2 * dataset.id.get_num_chunks():
        found: list[Any] = []
        dataset.id.chunk_iter(found.append)
        within = [
            info for info in found if all(o in g for o, g in zip(info.chunk_offset, grids, strict=True))
        ]
    else:
        within = [dataset.id.get_chunk_info_by_coord(origin) for origin in itertools.product(*grids)]
    base = dataset.file.userblock_size if _offsets_skip_userblock() else 0
    return [_piece(info, base, shape, selection) for info in within if info.byte_offset and info.size]


@functools.cache
def _offsets_skip_userblock() -> bool:
    """Whether this version of HDF5 counts offsets from the end of the userblock; found with a chunk whose place is known.

    (Its function that reads a chunk's bytes is no way around: it writes beyond its buffer where the chunk's size is damaged.)
    """
    content, chunk = io.BytesIO(), b"eight by"
    with h5py.File(content, "w", userblock_size=512) as file:
        data = file.create_dataset("x", (1,), "S8", chunks=(1,))
        data[0] = chunk
        file.flush()
        told = int(data.id.get_chunk_info(0).byte_offset)
    return content.getvalue()[told : told + len(chunk)] != chunk


def _piece(info: Any, base: int, shape: tuple[int, ...], selection: Selection) -> _Piece:
    bounds = list(zip(info.chunk_offset, shape, selection, strict=True))
    return _Piece(
        offset=info.byte_offset + base,
        stored=info.size,
        skipped=info.filter_mask,
        source=tuple(slice(max(s.start - o, 0), min(s.stop - o, c)) for o, c, s in bounds),
        target=tuple(slice(max(o - s.start, 0), min(o + c, s.stop) - s.start) for o, c, s in bounds),
    )


def _decode_piece(
    descriptor: int, piece: _Piece, pipeline: Pipeline, kind: _StoredType, out: FrameArray
) -> None:
    """Read one chunk and decode it into its part of ``out``."""
    stored = np.frombuffer(read_bytes_at(descriptor, piece.stored, piece.offset), dtype=np.uint8)
    if stored.size != piece.stored:
        expected, found = f"{piece.stored} bytes", f"{stored.size} bytes"
        raise RunError("the file ends in a chunk", expected=expected, found=found)
    target = out[piece.target]
    fits = kind.is_plain and target.nbytes == pipeline.n_bytes and target.flags.c_contiguous
    flat = target.reshape(-1).view(np.uint8) if fits else None
    decoded = pipeline.decode(stored, piece.skipped, flat)
    if flat is None or decoded is not flat:
        target[...] = kind.values(decoded)[piece.source]


def _converted(values: FrameArray, dtype: np.dtype[Any]) -> FrameArray:
    """Return values in another type, as HDF5 converts them: too large ones become the largest that there is."""
    if dtype.kind in "ui" and not np.can_cast(values.dtype, dtype, "safe"):
        limits = np.iinfo(dtype)
        values = np.clip(np.nan_to_num(values, nan=0.0), limits.min, limits.max)
    return values.astype(dtype)


def read_bytes_at(descriptor: int, n_bytes: int, offset: int) -> bytes:
    """Read at most ``n_bytes`` of a file; nothing from an offset that no file reaches, as a damaged index may name."""
    return os.pread(descriptor, n_bytes, offset) if offset + n_bytes <= LARGEST_OFFSET else b""
