"""Refuse stored chunks that would decode to more than their data set declares, before HDF5 decodes them.

HDF5's filters allocate what a chunk claims, or whatever it becomes. Most compressed forms tell their decoded size in
their first bytes, which are all that is read here; the others are decoded to the declared size and no further.
"""

import bz2
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import h5py
import numba
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.bitshuffle import BITSHUFFLE_FILTER
from peaknet_pipeline.types import UInt8Array

SLACK = 64
"""Bytes that a chunk may exceed its declared size by: checksums."""
HARMLESS_BYTES = 2**28
"""What a gzip chunk of this many bytes at worst isn't looked into for."""
GZIP_RATIO = 1032
HEADER = 512
SMALL_BLOCK = 2**16
LZF_FILTER, BLOSC_FILTER, LZ4_FILTER, ZSTD_FILTER, BLOSC2_FILTER, BZIP2_FILTER = (
    32000,
    32001,
    32004,
    32015,
    32026,
    307,
)
KEEP_SIZE = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
UNKNOWN = 2**63
LARGEST_OFFSET = 2**63 - 1
"""Stands for a size that a chunk doesn't tell."""


class StoredChunk(NamedTuple):
    """Where a chunk lies in its file, its bytes there, and a bit for each filter that it was stored without."""

    offset: int
    stored: int
    skipped: int


def check_filters(dataset: Any) -> None:
    """Raise RunError unless the chunks of a data set can be told the size of: one known compression at most."""
    compressions = [number for number, *_ in _compressions(dataset, 0)]
    unknown = [number for number in compressions if number not in _TOLD]
    if unknown or len(compressions) > 1:
        raise RunError(
            f"{dataset.name} is stored with filters whose output has no bound",
            where=dataset.file.filename,
            expected="one of gzip, szip, lzf, bzip2, LZ4, Zstandard, Blosc, Blosc2 or bitshuffle",
            found=f"filters {compressions}",
            remedy="Repack the file: h5repack -f GZIP=1 IN OUT.",
        )


def check_chunks(dataset: Any, chunks: Iterable[StoredChunk] | None = None) -> None:
    """Raise RunError if a stored chunk (of all, by default) would decode to more than the data set declares."""
    check_filters(dataset)
    if not _compressions(dataset, 0):
        return
    expected = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    descriptor = os.open(dataset.file.filename, os.O_RDONLY)
    try:
        for chunk in _stored(dataset) if chunks is None else chunks:
            for compression in _compressions(dataset, chunk.skipped):
                told = _told(descriptor, chunk, compression, expected + SLACK)
                if told > expected + SLACK:
                    raise _too_large(dataset, expected, told)
    finally:
        os.close(descriptor)


def _told(
    descriptor: int, chunk: StoredChunk, compression: tuple[int, tuple[int, ...], int], limit: int
) -> int:
    """Return what a chunk decodes to, or anything beyond the limit where it is more."""
    number, values, trailing = compression
    size = chunk.stored - trailing
    return _TOLD[number](
        lambda n: read_bytes_at(descriptor, max(0, min(n, size)), chunk.offset), size, values, limit
    )


def _too_large(dataset: Any, expected: int, told: int) -> RunError:
    return RunError(
        f"a chunk of {dataset.name} is damaged: it would decode to more than was declared",
        where=dataset.file.filename,
        expected=f"{expected} bytes",
        found="no size" if told >= UNKNOWN else f"at least {told} bytes",
        remedy="Copy the file again.",
    )


def _stored(dataset: Any) -> Iterator[StoredChunk]:
    found: list[StoredChunk] = []
    dataset.id.chunk_iter(lambda i: found.append(StoredChunk(i.byte_offset or 0, i.size, i.filter_mask)))
    return (chunk for chunk in found if chunk.offset and chunk.stored)


def _compressions(dataset: Any, skipped: int) -> list[tuple[int, tuple[int, ...], int]]:
    """Return number, values and bytes that are appended later of each filter that changes a chunk's size."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    used = [(f[0], f[2]) for i, f in enumerate(filters) if not skipped >> i & 1]
    return [
        (number, values, 4 * sum(n == h5py.h5z.FILTER_FLETCHER32 for n, _ in used[i + 1 :]))
        for i, (number, values) in enumerate(used)
        if number not in KEEP_SIZE and not (number == BITSHUFFLE_FILTER and _code(values) == 0)
    ]


def _code(values: tuple[int, ...]) -> int:
    """Return which compression follows bitshuffle; 0 for none."""
    return values[4] if len(values) > 4 else 0


Read = Callable[[int], bytes]


def _first(start: int, stop: int, order: Any) -> Callable[..., int]:
    """Return what reads a decoded size from the bytes ``start`` to ``stop`` of a chunk."""
    return lambda read, size, values, limit: int.from_bytes(read(stop)[start:stop], order)


def _bitshuffle(read: Read, size: int, values: object, limit: int) -> int:
    """Return the larger of what a chunk tells as its size, and as its blocks' beyond a small chunk's usual one."""
    head = read(12)
    block = int.from_bytes(head[8:12], "big")
    return max(int.from_bytes(head[:8], "big"), block - SMALL_BLOCK)


def _zstd(read: Read, size: int, values: object, limit: int) -> int:
    """Return the content size of a Zstandard frame (RFC 8878, section 3.1.1.1)."""
    head = read(18)
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return UNKNOWN
    flags = head[4]
    single, kind = flags >> 5 & 1, flags >> 6
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[kind]
    told = int.from_bytes(head[start : start + length], "little")
    return UNKNOWN if length == 0 else told + 256 * (length == 2)


def _blosc2(read: Read, size: int, values: object, limit: int) -> int:
    """Return the larger of what a Blosc2 frame and its first chunk tell."""
    head = read(HEADER)
    if head[2:9] != b"b2frame":
        return int.from_bytes(head[4:8], "little")
    start = int.from_bytes(head[11:15], "big")
    inner = read(start + 8)[start + 4 : start + 8]
    return max(int.from_bytes(head[30:38], "big"), int.from_bytes(inner, "little"))


def _deflate(read: Read, size: int, values: object, limit: int) -> int:
    if size * GZIP_RATIO <= HARMLESS_BYTES:
        return 0
    try:
        return len(zlib.decompressobj().decompress(read(size), limit + 1))
    except zlib.error:
        return UNKNOWN


def _bzip2(read: Read, size: int, values: object, limit: int) -> int:
    try:
        return len(bz2.BZ2Decompressor().decompress(read(size), limit + 1))
    except (OSError, ValueError):
        return UNKNOWN


def _lzf(read: Read, size: int, values: object, limit: int) -> int:
    return int(_lzf_size(np.frombuffer(read(size), dtype=np.uint8)))


@numba.njit(cache=True)
def _lzf_size(data: UInt8Array) -> int:
    """Return what an LZF stream decodes to: runs of literals and references, each telling its length."""
    i, total = 0, 0
    while i < data.size:
        control = int(data[i])
        if control < 32:
            total += control + 1
            i += control + 2
        else:
            length = control >> 5
            if length == 7 and i + 1 < data.size:
                i += 1
                length += int(data[i])
            total += length + 2
            i += 2
    return total


_TOLD: Mapping[int, Callable[..., int]] = {
    h5py.h5z.FILTER_DEFLATE: _deflate,
    h5py.h5z.FILTER_SZIP: _first(0, 4, "little"),
    BZIP2_FILTER: _bzip2,
    LZF_FILTER: _lzf,
    BLOSC_FILTER: _first(4, 8, "little"),
    LZ4_FILTER: _first(0, 8, "big"),
    BITSHUFFLE_FILTER: _bitshuffle,
    ZSTD_FILTER: _zstd,
    BLOSC2_FILTER: _blosc2,
}


def read_bytes_at(descriptor: int, n_bytes: int, offset: int) -> bytes:
    """Read at most ``n_bytes`` of a file; nothing from an offset that no file reaches, as a damaged index may name."""
    return os.pread(descriptor, n_bytes, offset) if offset + n_bytes <= LARGEST_OFFSET else b""
