"""The filters of a data set's chunks, undone step by step, each into a number of bytes that is known beforehand.

HDF5 itself never decodes a chunk here: its filters trust the lengths that a chunk tells. What is not known is refused.
"""

import math
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.bitshuffle import (
    BITSHUFFLE_FILTER,
    LZ4,
    STORED,
    ZSTD,
    compression_of,
    decode_bitshuffle,
)
from peaknet_pipeline.hdf5.decoders import DECODERS, Values
from peaknet_pipeline.types import UInt8Array

CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Filter:
    """One filter: its number in HDF5, and its parameters."""

    number: int
    values: Values

    @property
    def keeps_size(self) -> bool:
        """Whether it only orders bytes anew."""
        transposed = self.number == BITSHUFFLE_FILTER and compression_of(self.values) == STORED
        return self.number == h5py.h5z.FILTER_SHUFFLE or transposed

    @property
    def compresses(self) -> bool:
        """Whether what it makes has a size of its own."""
        return not self.keeps_size and self.number != h5py.h5z.FILTER_FLETCHER32

    @property
    def is_known(self) -> bool:
        """Whether it can be undone within bounds."""
        if self.number == BITSHUFFLE_FILTER:
            return compression_of(self.values) in (STORED, LZ4, ZSTD)
        return not self.compresses or self.number in DECODERS


@dataclass(frozen=True)
class Pipeline:
    """The filters of a data set in the order of writing, and the bytes of a decoded chunk."""

    filters: tuple[Filter, ...]
    n_bytes: int

    def decode(self, stored: UInt8Array, skipped: int, out: UInt8Array | None = None) -> UInt8Array:
        """Return a chunk's decoded bytes, (n_bytes,) uint8, in ``out`` where that is given and saves a copy.

        ``skipped`` has a bit for each filter, first to last, that this chunk was stored without.

        Raises
        ------
        RunError
            The chunk is damaged.

        """
        used = [f for i, f in enumerate(self.filters) if not skipped >> i & 1]
        data = stored
        for place in reversed(range(len(used))):
            whole = self._size_before(used[:place], data.size)
            data = _undo(used[place], data, whole, out if place == 0 else None)
        if data.size != self.n_bytes:
            found = f"{data.size} bytes"
            raise RunError("a chunk is damaged", expected=f"{self.n_bytes} bytes", found=found)
        return data

    def _size_before(self, earlier: list[Filter], size: int) -> int:
        """Return the bytes that a filter was given, told by those before it; behind a compression, those that there are."""
        if any(f.compresses for f in earlier):
            return size
        checksums = len([f for f in earlier if f.number == h5py.h5z.FILTER_FLETCHER32])
        return self.n_bytes + CHECKSUM_BYTES * checksums


def read_pipeline(dataset: Any) -> Pipeline:
    """Return how the chunks of a data set are stored.

    Raises
    ------
    RunError
        A filter is not known, or several compress: no bound can be told for what comes between.

    """
    properties = dataset.id.get_create_plist()
    entries = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    filters = tuple(Filter(int(number), tuple(int(v) for v in values)) for number, _, values, _ in entries)
    if not all(f.is_known for f in filters) or sum(f.compresses for f in filters) > 1:
        raise RunError(
            f"{dataset.name} is stored with filters whose output has no bound",
            where=dataset.file.filename,
            expected="one of gzip, szip, lzf, bzip2, LZ4, Zstandard, Blosc, Blosc2 or bitshuffle",
            found=f"filters {[f.number for f in filters]}",
            remedy="Repack the file: h5repack -f GZIP=1 IN OUT.",
        )
    return Pipeline(filters, math.prod(dataset.chunks) * int(dataset.dtype.itemsize))


def _undo(step: Filter, data: UInt8Array, n_bytes: int, out: UInt8Array | None) -> UInt8Array:
    if step.number == h5py.h5z.FILTER_FLETCHER32:
        return check_fletcher32(data)
    if step.number == h5py.h5z.FILTER_SHUFFLE:
        return _unshuffle(data, step.values[0] if step.values else 1)
    if step.number == BITSHUFFLE_FILTER:
        fits = out is not None and out.size == n_bytes
        return decode_bitshuffle(data, step.values, n_bytes, out=out if fits else None)
    return DECODERS[step.number](data, step.values, n_bytes)


def _unshuffle(data: UInt8Array, itemsize: int) -> UInt8Array:
    """Put the bytes of each element together again; what is left over of the last element follows as it is."""
    if not 1 < itemsize <= data.size:
        return data
    n = data.size // itemsize
    whole = np.ascontiguousarray(data[: n * itemsize].reshape(itemsize, n).T).ravel()
    return whole if whole.size == data.size else np.concatenate([whole, data[n * itemsize :]])


def check_fletcher32(data: UInt8Array) -> UInt8Array:
    """Return the bytes before their checksum.

    Raises
    ------
    RunError
        They do not have this checksum (Fletcher's, over 16-bit words, as HDF5 computes it).

    """
    content, told = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:].tobytes()
    found = fletcher32(content)
    swapped = (found & 0x00FF00FF) << 8 | (found >> 8) & 0x00FF00FF  # HDF5 1.6.2 wrote it so
    if int.from_bytes(told, "little") not in (found, swapped) or len(told) < CHECKSUM_BYTES:
        raise RunError("a chunk is damaged", expected=f"checksum {found:08x}", found=told.hex())
    return content


def fletcher32(data: UInt8Array) -> int:
    """Return the checksum: the words' sum, and the sum of their running sums, both modulo 65,535."""
    padded = data if data.size % 2 == 0 else np.append(data, np.uint8(0))
    words = padded.view(">u2").astype(np.uint64)
    low, high = 0, 0
    for start in range(0, words.size, 2**20):  # so that no sum exceeds 64 bits
        part = words[start : start + 2**20]
        weights = np.arange(part.size, 0, -1, dtype=np.uint64)
        high += low * part.size + int((part * weights).sum())
        low += int(part.sum())
    return _folded(high) << 16 | _folded(low)


def _folded(value: int) -> int:
    """Return the remainder as adding the carry leaves it: 65,535 instead of 0, except for 0 itself."""
    return (value - 1) % 65535 + 1 if value else 0
