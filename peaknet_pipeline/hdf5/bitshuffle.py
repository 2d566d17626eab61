"""Decode chunks of the bitshuffle filter outside of HDF5, without Python's lock, so that threads decode side by side.

The layout (HDF5 filter 32008): size of the decoded chunk (8 bytes) and of a block (4 bytes), both big-endian;
then per block its compressed size (4 bytes, big-endian) and an LZ4 block or a Zstandard frame; the last fewer than eight
elements follow as they are. Within a block the bits are transposed: first bit 0 of every element, then bit 1, and so
on. The C code that hdf5plugin brings bounds what it writes, but trusts the compressed sizes: they are checked here first.
"""

import numba
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.libraries import bitshuffle_library
from peaknet_pipeline.types import UInt8Array

BITSHUFFLE_FILTER = 32008
STORED, LZ4, ZSTD = 0, 2, 3
"""What follows the transposition of bits: nothing, or one of two compressions."""
MAX_ELEMENT_BYTES = 64
_HEADER = 12
_DEFAULT_BLOCK = 8192
_GROUP = 8


def compression_of(values: tuple[int, ...]) -> int:
    """Return which compression the filter's parameters name."""
    return values[4] if len(values) > 4 else STORED


def decode_bitshuffle(
    stored: UInt8Array, values: tuple[int, ...], n_bytes: int, *, out: UInt8Array | None = None
) -> UInt8Array:
    """Return the decoded bytes of one chunk, (n_bytes,) uint8.

    Parameters
    ----------
    stored : (n,) uint8
        The chunk as stored.
    values : tuple of int
        The filter's parameters; the third is the size of an element, the fourth that of a block in elements (0: the
        default), the fifth the compression.
    n_bytes : int
        What the chunk must decode to; never more is allocated, whatever the chunk claims.
    out : (n_bytes,) uint8, optional
        Where to decode to, C-contiguous.

    Raises
    ------
    RunError
        The chunk is damaged.

    """
    itemsize = values[2] if len(values) > 2 else 0
    if not 0 < itemsize <= MAX_ELEMENT_BYTES or n_bytes % itemsize:
        raise RunError("a bitshuffled chunk has no possible element size", found=itemsize)
    out = np.zeros(n_bytes, dtype=np.uint8) if out is None else out
    if compression_of(values) == STORED:
        done = _decode_stored(stored, itemsize, values[3] if len(values) > 3 else 0, out)
    else:
        done = _decode_blocks(stored, itemsize, compression_of(values), out)
    if not done:
        raise RunError("a compressed chunk is damaged", expected=f"{n_bytes} bytes", found="other data")
    return out


def _decode_stored(stored: UInt8Array, itemsize: int, block: int, out: UInt8Array) -> bool:
    if stored.size != out.size or block % _GROUP:
        raise RunError("a bitshuffled chunk is damaged", expected=out.size, found=stored.size)
    library = bitshuffle_library()
    source, target, n = stored.ctypes.data, out.ctypes.data, out.size // itemsize
    return bool(library.bshuf_bitunshuffle(source, target, n, itemsize, block) == stored.size)


def _decode_blocks(stored: UInt8Array, itemsize: int, compression: int, out: UInt8Array) -> bool:
    head = stored[:_HEADER].tobytes()
    if stored.size < _HEADER or int.from_bytes(head[:8], "big") != out.size:
        raise RunError("a compressed chunk is damaged", expected=f"{out.size} bytes", found=head[:8].hex())
    block = int.from_bytes(head[8:], "big")
    if block == 0 or block % (_GROUP * itemsize) or block > out.size + _DEFAULT_BLOCK:
        raise RunError("a compressed chunk is damaged", expected="a block size", found=block)
    if not _blocks_fit(stored, block, itemsize, out.size):
        found = f"{stored.size} bytes"
        raise RunError("a compressed chunk is damaged", expected="blocks that fill it", found=found)
    library = bitshuffle_library()
    decode = library.bshuf_decompress_zstd if compression == ZSTD else library.bshuf_decompress_lz4
    source, target, n = stored.ctypes.data + _HEADER, out.ctypes.data, out.size // itemsize
    return bool(decode(source, target, n, itemsize, block // itemsize) == stored.size - _HEADER)


@numba.njit(cache=True, nogil=True)
def _blocks_fit(data: UInt8Array, block: int, itemsize: int, n_bytes: int) -> bool:
    """Whether the sizes of all blocks add up to the chunk: the C decoder trusts them."""
    group = _GROUP * itemsize
    whole = (n_bytes // group) * group
    n_blocks = (whole + block - 1) // block
    position = _HEADER
    for _ in range(n_blocks):
        if position + 4 > data.size:
            return False
        packed = 0
        for i in range(4):
            packed = packed * 256 + int(data[position + i])
        position += 4 + packed
        if position > data.size:
            return False
    return position + (n_bytes - whole) == data.size
