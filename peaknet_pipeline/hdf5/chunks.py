"""Read chunked data sets with several threads: bytes from the file, decoded outside of HDF5 and the GIL.

HDF5 itself reads one chunk at a time, whatever the number of threads, and its gzip filter inflates a chunk to
whatever it becomes; here nothing beyond the declared size is allocated. What this module doesn't know (other filters,
virtual or contiguous data sets, unwritten chunks) is left to HDF5.
"""

import itertools
import math
import os
import zlib
from concurrent.futures import Executor, wait
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.bitshuffle import BITSHUFFLE_FILTER, LZ4_CODE, decode_bitshuffle_lz4
from peaknet_pipeline.hdf5.chunk_bounds import StoredChunk, check_chunks, read_bytes_at
from peaknet_pipeline.types import FrameArray, UInt8Array

Selection = tuple[slice, ...]


@dataclass(frozen=True)
class ChunkCodec:
    """How chunks are stored: ``none``, ``bitshuffle-lz4``, ``shuffle``, ``deflate`` or ``shuffle-deflate``."""

    name: str
    itemsize: int
    n_bytes: int

    def decode(self, stored: bytes, out: UInt8Array | None = None) -> UInt8Array:
        """Return a chunk's decoded bytes, (n_bytes,) uint8, in ``out`` where that is given and saves a copy.

        Raises
        ------
        RunError
            The chunk is damaged.

        """
        if self.name == "bitshuffle-lz4":
            return decode_bitshuffle_lz4(stored, self.itemsize, self.n_bytes, out=out)
        inflated = _inflate(stored, self.n_bytes) if self.name.endswith("deflate") else stored
        data = np.frombuffer(inflated, dtype=np.uint8)
        if data.size != self.n_bytes:
            raise RunError("a chunk is damaged", expected=f"{self.n_bytes} bytes", found=f"{data.size} bytes")
        if self.name.startswith("shuffle"):
            return np.ascontiguousarray(data.reshape(self.itemsize, -1).T).ravel()
        return data


@dataclass(frozen=True)
class _Piece:
    """A chunk and the part of it that goes into the output."""

    offset: int
    stored: int
    is_stored: bool
    skipped: int
    box: Selection
    source: Selection
    target: Selection


def read_chunks(dataset: Any, selection: Selection, pool: Executor | None) -> FrameArray:
    """Read a box of a data set with the threads of ``pool``, or this one; equal to ``dataset[selection]``.

    Raises
    ------
    RunError
        A chunk is damaged.

    """
    usual, chunk_shape = chunk_codec(dataset), dataset.chunks
    if usual is None:
        _check(dataset, selection)
        return np.asarray(dataset[selection])
    out = np.empty(tuple(s.stop - s.start for s in selection), dtype=dataset.dtype)
    jobs = []
    descriptor = os.open(dataset.file.filename, os.O_RDONLY)
    try:
        for piece in _pieces(dataset, selection):
            codec = usual if piece.is_stored and not piece.skipped else None
            if piece.is_stored and piece.skipped:
                codec = chunk_codec(dataset, piece.skipped)
            if codec is None:
                check_chunks(dataset, _stored([piece]))
                out[piece.target] = dataset[piece.box]
            elif pool is None:
                _read_piece(descriptor, piece, codec, chunk_shape, out)
            else:
                jobs.append(pool.submit(_read_piece, descriptor, piece, codec, chunk_shape, out))
        wait(jobs)
    finally:
        os.close(descriptor)
    for job in jobs:
        job.result()
    return out


def read_whole(dataset: Any) -> FrameArray:
    """Read all of a data set; equal to ``dataset[()]``.

    Raises
    ------
    RunError
        A chunk is damaged, or would decode to more than was declared.

    """
    selection = tuple(slice(0, n) for n in dataset.shape or ())
    if selection and dataset.dtype.kind in "uif":
        return read_chunks(dataset, selection, None)
    _check(dataset, selection)
    return np.asarray(dataset[()])


def read_rows(dataset: Any, start: int, stop: int) -> FrameArray:
    """Read some rows of a data set; equal to ``dataset[start:stop]``."""
    n = dataset.shape[0]
    rest = tuple(slice(0, n) for n in dataset.shape[1:])
    return read_chunks(dataset, (slice(min(start, n), min(stop, n)), *rest), None)


def _check(dataset: Any, selection: Selection) -> None:
    """Refuse chunks that HDF5 would decode to more than was declared; a virtual data set's were checked when it was opened."""
    if dataset.chunks is not None and not dataset.is_virtual and dataset.size:
        check_chunks(dataset, _stored(_pieces(dataset, selection)))


def _stored(pieces: list[_Piece]) -> list[StoredChunk]:
    return [StoredChunk(p.offset, p.stored, p.skipped) for p in pieces if p.is_stored]


def chunk_codec(dataset: Any, skipped: int = 0) -> ChunkCodec | None:
    """Return how a data set's chunks are stored, None where that is left to HDF5.

    ``skipped`` has a bit for each filter, first to last, that a chunk was stored without.
    """
    if dataset.chunks is None or dataset.is_virtual or dataset.file.userblock_size or dataset.size == 0:
        return None
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    filters = [entry for i, entry in enumerate(filters) if not skipped >> i & 1]
    numbers = tuple(entry[0] for entry in filters)
    names = {(): "none", (h5py.h5z.FILTER_DEFLATE,): "deflate", (h5py.h5z.FILTER_SHUFFLE,): "shuffle"}
    names[(h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE)] = "shuffle-deflate"
    name = names.get(numbers)
    if numbers == (BITSHUFFLE_FILTER,) and len(filters[0][2]) > 4 and filters[0][2][4] == LZ4_CODE:
        name = "bitshuffle-lz4"
    itemsize = dataset.dtype.itemsize
    return ChunkCodec(name, itemsize, math.prod(dataset.chunks) * itemsize) if name is not None else None


def _pieces(dataset: Any, selection: Selection) -> list[_Piece]:
    pieces = []
    shape = dataset.chunks
    grids = [range(s.start // c * c, s.stop, c) for s, c in zip(selection, shape, strict=True)]
    for origin in itertools.product(*grids):
        info = dataset.id.get_chunk_info_by_coord(origin)
        bounds = list(zip(origin, shape, selection, strict=True))
        pieces.append(
            _Piece(
                offset=info.byte_offset or 0,
                stored=info.size,
                is_stored=bool(info.byte_offset and info.size),
                skipped=info.filter_mask,
                box=tuple(slice(max(s.start, o), min(s.stop, o + c)) for o, c, s in bounds),
                source=tuple(slice(max(s.start - o, 0), min(s.stop - o, c)) for o, c, s in bounds),
                target=tuple(slice(max(o - s.start, 0), min(o + c, s.stop) - s.start) for o, c, s in bounds),
            )
        )
    return pieces


def _read_piece(
    descriptor: int, piece: _Piece, codec: ChunkCodec, chunk_shape: tuple[int, ...], out: FrameArray
) -> None:
    if piece.stored > 2 * codec.n_bytes + 2**16:
        raise RunError(
            "a chunk is damaged", expected=f"about {codec.n_bytes} bytes", found=f"{piece.stored} bytes"
        )
    stored = read_bytes_at(descriptor, piece.stored, piece.offset)
    if len(stored) != piece.stored:
        raise RunError(
            "the file ends in a chunk", expected=f"{piece.stored} bytes", found=f"{len(stored)} bytes"
        )
    target = out[piece.target]
    fits = target.nbytes == codec.n_bytes and target.flags.c_contiguous
    flat = target.reshape(-1).view(np.uint8) if fits else None
    decoded = codec.decode(stored, flat)
    if flat is None or decoded is not flat:
        target[...] = decoded.view(out.dtype).reshape(chunk_shape)[piece.source]


def _inflate(stored: bytes, n_bytes: int) -> bytes:
    """Inflate to at most one byte more than expected, whatever the chunk would become."""
    try:
        return zlib.decompressobj().decompress(stored, n_bytes + 1)
    except zlib.error as error:
        raise RunError(f"a chunk is damaged ({error})") from error
