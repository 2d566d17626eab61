"""Decode bitshuffle-LZ4 chunks outside of HDF5, without Python's lock, so that threads decode side by side.

The layout (HDF5 filter 32008): size of the decoded chunk (8 bytes) and of a block (4 bytes), both big-endian;
then per block its compressed size (4 bytes, big-endian) and an LZ4 block; the last fewer than eight elements
follow as they are. Within a block the bits are transposed: first bit 0 of every element, then bit 1, and so
on. Every read and write is checked against its buffer: damaged chunks end in an error, not in other memory.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import hdf5plugin
import numba
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.types import UInt8Array

BITSHUFFLE_FILTER = 32008
LZ4_CODE = 2
_HEADER = 12
_DEFAULT_BLOCK = 8192
_GROUP = 8


def decode_bitshuffle_lz4(
    chunk: bytes, itemsize: int, n_bytes: int, *, out: UInt8Array | None = None, compiled: bool = True
) -> UInt8Array:
    """Return the decoded bytes of one bitshuffle-LZ4 chunk, (n_bytes,) uint8.

    Parameters
    ----------
    chunk : bytes
        As stored.
    itemsize : int
        Bytes of an element.
    n_bytes : int
        What the chunk must decode to; never more is allocated, whatever the chunk claims.
    out : (n_bytes,) uint8, optional
        Where to decode to, C-contiguous.
    compiled : bool
        Use the C library that hdf5plugin brings, where it is; else this module's own decoder, 2–3 times
        slower.

    Raises
    ------
    RunError
        The chunk is damaged.

    """
    data = np.frombuffer(chunk, dtype=np.uint8)
    if data.size < _HEADER or int.from_bytes(chunk[:8], "big") != n_bytes:
        raise RunError("a compressed chunk is damaged", expected=f"{n_bytes} bytes", found=chunk[:8].hex())
    block = int.from_bytes(chunk[8:12], "big")
    if block == 0 or block % (_GROUP * itemsize) or block > n_bytes + _DEFAULT_BLOCK:
        raise RunError("a compressed chunk is damaged", expected="a block size", found=block)
    if out is None:
        out = np.empty(n_bytes, dtype=np.uint8)
    library = _library() if compiled else None
    if not _blocks_fit(data, block, itemsize, n_bytes):
        raise RunError(
            "a compressed chunk is damaged", expected="blocks that fill it", found=f"{data.size} bytes"
        )
    if library is not None:
        count = library(
            data.ctypes.data + _HEADER, out.ctypes.data, n_bytes // itemsize, itemsize, block // itemsize
        )
        failed = count != data.size - _HEADER
    else:
        failed = _decode(data, block, itemsize, out) != 0
    if failed:
        raise RunError("a compressed chunk is damaged", expected=f"{n_bytes} bytes", found="other data")
    return out


@functools.cache
def _library() -> Callable[..., int] | None:
    """Return the C decoder; called through ctypes it runs without Python's lock."""
    path = Path(hdf5plugin.PLUGIN_PATH) / "libh5bshuf.so"
    try:
        decode = ctypes.CDLL(str(path)).bshuf_decompress_lz4
    except (OSError, AttributeError):
        return None
    decode.restype = ctypes.c_int64
    decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
    typed: Callable[..., int] = decode
    return typed


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


@numba.njit(cache=True, nogil=True)
def _decode(data: UInt8Array, block: int, itemsize: int, out: UInt8Array) -> int:
    """Decode all blocks; 0 on success."""
    shuffled = np.empty(block, dtype=np.uint8)
    position, written = _HEADER, 0
    whole = (out.size // (_GROUP * itemsize)) * _GROUP * itemsize
    while written < whole:
        size = min(block, whole - written)
        if position + 4 > data.size:
            return 1
        packed = 0
        for i in range(4):
            packed = packed * 256 + int(data[position + i])
        position += 4
        if position + packed > data.size:
            return 1
        if not _lz4_block(data[position : position + packed], shuffled[:size]):
            return 1
        _unshuffle(shuffled[:size], itemsize, out[written : written + size])
        position += packed
        written += size
    if data.size - position != out.size - written:
        return 1
    out[written:] = data[position:]
    return 0


@numba.njit(cache=True, nogil=True)
def _lz4_block(source: UInt8Array, target: UInt8Array) -> bool:
    """Decode one LZ4 block that must fill ``target``; False when it is damaged."""
    i, o = 0, 0
    while i < source.size:
        token = source[i]
        length, i = _lz4_length(source, i + 1, int(np.int64(token >> 4)))
        if length < 0 or i + length > source.size or o + length > target.size:
            return False
        for k in range(length):
            target[o + k] = source[i + k]
        i += length
        o += length
        if i == source.size:
            break
        if i + 2 > source.size:
            return False
        offset = np.int64(source[i]) + 256 * np.int64(source[i + 1])
        length, i = _lz4_length(source, i + 2, int(np.int64(token & 15)))
        length += 4
        if length < 4 or offset == 0 or offset > o or o + length > target.size:
            return False
        for k in range(length):  # may overlap: byte by byte, in order
            target[o + k] = target[o + k - offset]
        o += length
    return o == target.size


@numba.njit(cache=True, nogil=True)
def _lz4_length(source: UInt8Array, i: int, length: int) -> tuple[int, int]:
    """Continue a length that didn't fit into its token; return it (−1: damaged) and the next position."""
    if length < 15:
        return length, i
    while i < source.size:
        length += int(np.int64(source[i]))
        i += 1
        if source[i - 1] != 255:
            return length, i
    return -1, i


@numba.njit(cache=True, nogil=True)
def _unshuffle(shuffled: UInt8Array, itemsize: int, out: UInt8Array) -> None:
    """Undo the transposition of bits: eight elements at a time, one byte plane after another."""
    n_groups = shuffled.size // (_GROUP * itemsize)
    for byte in range(itemsize):
        base = byte * _GROUP * n_groups
        for group in range(n_groups):
            bits = np.uint64(0)
            for row in range(_GROUP):
                bits |= np.uint64(shuffled[base + row * n_groups + group]) << np.uint64(8 * row)
            if bits != np.uint64(0):
                bits = _transpose(bits)
            start = group * _GROUP * itemsize + byte
            for element in range(_GROUP):
                out[start + element * itemsize] = np.uint8((bits >> np.uint64(8 * element)) & np.uint64(255))


@numba.njit(inline="always")
def _transpose(bits: np.uint64) -> np.uint64:
    """Transpose an 8×8 matrix of bits, one byte per row (Warren, Hacker's Delight, §7-3)."""
    swap = (bits ^ (bits >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
    bits = bits ^ swap ^ (swap << np.uint64(7))
    swap = (bits ^ (bits >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
    bits = bits ^ swap ^ (swap << np.uint64(14))
    swap = (bits ^ (bits >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
    return bits ^ swap ^ (swap << np.uint64(28))
