"""Decoders of HDF5's compression filters: none reads beyond the stored chunk, or makes more than the declared bytes.

HDF5's own filters trust the lengths inside a chunk, which a damaged or hostile file chooses: some read beyond the chunk, so
that this process's memory comes back as pixels, others allocate what the chunk claims. Here every length is checked before
it is used, and a chunk that decodes to other than the declared number of bytes is an error.
"""

import bz2
import ctypes
import struct
import zlib
from collections.abc import Callable, Mapping

import h5py
import numba
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.bitshuffle import BITSHUFFLE_FILTER, decode_bitshuffle
from peaknet_pipeline.hdf5.libraries import (
    bitshuffle_library,
    blosc2_library,
    blosc_library,
    szip_library,
)
from peaknet_pipeline.types import UInt8Array

BZIP2_FILTER, LZF_FILTER, BLOSC_FILTER, LZ4_FILTER, ZSTD_FILTER, BLOSC2_FILTER = (
    307,
    32000,
    32001,
    32004,
    32015,
    32026,
)
LARGEST_C_INT = 2**31 - 1
Values = tuple[int, ...]
Decoder = Callable[[UInt8Array, Values, int], UInt8Array]
"""From stored bytes, the filter's parameters and the declared size to that many bytes."""


def _damaged(expected: object, found: object) -> RunError:
    return RunError("a compressed chunk is damaged", expected=expected, found=found)


def _exactly(data: bytes, n_bytes: int) -> UInt8Array:
    if len(data) != n_bytes:
        found = f"{len(data)} bytes" if len(data) < n_bytes else "more"
        raise _damaged(f"{n_bytes} bytes", found)
    return np.frombuffer(data, dtype=np.uint8)


def decode_gzip(stored: UInt8Array, values: Values, n_bytes: int) -> UInt8Array:
    """Inflate to at most one byte more than expected, whatever the chunk would become."""
    try:
        return _exactly(zlib.decompressobj().decompress(stored.data, n_bytes + 1), n_bytes)
    except zlib.error as error:
        raise _damaged("deflated data", error) from error


def decode_bzip2(stored: UInt8Array, values: Values, n_bytes: int) -> UInt8Array:
    """Decode a bzip2 stream, to at most one byte more than expected."""
    try:
        return _exactly(bz2.BZ2Decompressor().decompress(stored.data, n_bytes + 1), n_bytes)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged("bzip2 data", error) from error


def decode_lzf(stored: UInt8Array, values: Values, n_bytes: int) -> UInt8Array:
    """Decode LZF: runs of literals, and references to what was decoded before."""
    out = np.empty(n_bytes, dtype=np.uint8)
    if not _decode_lzf(stored, out):
        raise _damaged(f"{n_bytes} bytes", "other LZF data")
    return out


@numba.njit(cache=True, nogil=True)
def _decode_lzf(data: UInt8Array, out: UInt8Array) -> bool:
    i, o = 0, 0
    while i < data.size:
        control = int(data[i])
        i += 1
        if control < 32:
            n = control + 1
            if i + n > data.size or o + n > out.size:
                return False
            for k in range(n):
                out[o + k] = data[i + k]
            i += n
        else:
            n = control >> 5
            if n == 7 and i < data.size:
                n += int(data[i])
                i += 1
            n += 2
            if i >= data.size:
                return False
            back = ((control & 31) << 8) + int(data[i]) + 1
            i += 1
            if back > o or o + n > out.size:
                return False
            for k in range(n):  # may overlap: byte by byte, in order
                out[o + k] = out[o + k - back]
        o += n
    return o == out.size


def decode_lz4(stored: UInt8Array, values: Values, n_bytes: int) -> UInt8Array:
    """Decode filter 32004: decoded size (8 bytes), block size (4), then blocks after their sizes (4), all big-endian.

    A block whose size is that of its content is stored as it is.
    """
    if stored.size < 12:
        raise _damaged("a header of 12 bytes", f"{stored.size} bytes")
    total, block = struct.unpack(">QI", stored[:12].tobytes())
    if total != n_bytes or not 0 < block <= LARGEST_C_INT:
        raise _damaged(f"{n_bytes} bytes", f"{total} bytes in blocks of {block}")
    out = np.empty(n_bytes, dtype=np.uint8)
    position = 12
    for start in range(0, n_bytes, block):
        target = out[start : start + block]
        packed = int.from_bytes(stored[position : position + 4].tobytes(), "big")
        source = stored[position + 4 : position + 4 + packed]
        if source.size != packed or position + 4 > stored.size:
            raise _damaged(f"a block of {packed} bytes", f"{source.size} bytes")
        _decode_lz4_block(source, target)
        position += 4 + packed
    return out


def _decode_lz4_block(source: UInt8Array, target: UInt8Array) -> None:
    if source.size == target.size:
        target[:] = source
        return
    decode = bitshuffle_library().LZ4_decompress_safe
    n = decode(source.ctypes.data, target.ctypes.data, min(source.size, LARGEST_C_INT), target.size)
    if n != target.size:
        raise _damaged(f"{target.size} bytes", "other LZ4 data")


def decode_zstd(stored: UInt8Array, values: Values, n_bytes: int) -> UInt8Array:
    """Decode Zstandard frames into the declared bytes."""
    out = np.empty(n_bytes, dtype=np.uint8)
    library = bitshuffle_library()
    n = library.ZSTD_decompress(out.ctypes.data, n_bytes, stored.ctypes.data, stored.size)
    if library.ZSTD_isError(n) or n != n_bytes:
        raise _damaged(f"{n_bytes} bytes", "other Zstandard data")
    return out


def decode_blosc(stored: UInt8Array, values: Values, n_bytes: int) -> UInt8Array:
    """Decode a Blosc buffer, whose header tells decoded, block and stored size."""
    library, told = blosc_library(), ctypes.c_size_t()
    invalid = stored.size < 16 or library.blosc_cbuffer_validate(
        stored.ctypes.data, stored.size, ctypes.addressof(told)
    )
    if invalid or told.value != n_bytes:
        raise _damaged(f"{n_bytes} bytes", "no whole Blosc buffer" if invalid else f"{told.value} bytes")
    out = np.zeros(n_bytes, dtype=np.uint8)
    if library.blosc_decompress_ctx(stored.ctypes.data, out.ctypes.data, n_bytes, 1) != n_bytes:
        raise _damaged(f"{n_bytes} bytes", "other Blosc data")
    return out


def decode_blosc2(stored: UInt8Array, values: Values, n_bytes: int) -> UInt8Array:
    """Decode a Blosc2 frame of one chunk, or of an array in blocks (b2nd)."""
    head = stored[:38].tobytes()
    is_frame = len(head) == 38 and head[2:9] == b"b2frame"
    length, told = (int.from_bytes(head[a:b], "big") for a, b in ((16, 24), (30, 38)))
    if not is_frame or length != stored.size or told != n_bytes:
        raise _damaged(f"a frame of {n_bytes} bytes", f"{told} bytes" if is_frame else "no Blosc2 frame")
    start = int.from_bytes(head[11:15], "big")
    inner = stored[start : start + 16].tobytes()
    if len(inner) < 16 or int.from_bytes(inner[4:8], "little") > 2 * n_bytes + 2**16:
        raise _damaged(f"a chunk of {n_bytes} bytes", "another")
    out = np.zeros(n_bytes, dtype=np.uint8)
    if not (_decode_b2nd(stored, out) or _decode_schunk(stored, out)):
        raise _damaged(f"{n_bytes} bytes", "other Blosc2 data")
    return out


def _decode_b2nd(stored: UInt8Array, out: UInt8Array) -> bool:
    library, array = blosc2_library(), ctypes.c_void_p()
    if b"b2nd" not in stored[:512].tobytes():
        return False
    if library.b2nd_from_cframe(stored.ctypes.data, stored.size, False, ctypes.addressof(array)) != 0:
        return False
    try:
        return bool(library.b2nd_to_cbuffer(array, out.ctypes.data, out.size) == 0)
    finally:
        library.b2nd_free(array)


def _decode_schunk(stored: UInt8Array, out: UInt8Array) -> bool:
    library = blosc2_library()
    schunk = library.blosc2_schunk_from_buffer(stored.ctypes.data, stored.size, False)
    if not schunk:
        return False
    try:
        n = library.blosc2_schunk_decompress_chunk(schunk, 0, out.ctypes.data, min(out.size, LARGEST_C_INT))
        return bool(n == out.size)
    finally:
        library.blosc2_schunk_free(schunk)


class _SzipParameters(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int)
        for name in ("options_mask", "bits_per_pixel", "pixels_per_block", "pixels_per_scanline")
    ]


def decode_szip(stored: UInt8Array, values: Values, n_bytes: int) -> UInt8Array:
    """Decode szip: the decoded size (4 bytes, little-endian), then the stream."""
    mask, block, bits, line = (*values, 0, 0, 0, 0)[:4]
    possible = block in range(2, 33, 2) and bits in (*range(1, 25), 32, 64) and 0 < line <= 128 * block
    told = int.from_bytes(stored[:4].tobytes(), "little")
    if not possible or told != n_bytes or stored.size < 5:
        raise _damaged(f"{n_bytes} bytes", f"{told} bytes, parameters {values}")
    out, size = np.zeros(n_bytes, dtype=np.uint8), ctypes.c_size_t(n_bytes)
    parameters = _SzipParameters(mask & LARGEST_C_INT, bits, block, line)
    status = szip_library().SZ_BufftoBuffDecompress(
        out.ctypes.data,
        ctypes.addressof(size),
        stored.ctypes.data + 4,
        stored.size - 4,
        ctypes.addressof(parameters),
    )
    if status != 0 or size.value != n_bytes:
        raise _damaged(f"{n_bytes} bytes", f"{size.value} bytes of szip data")
    return out


DECODERS: Mapping[int, Decoder] = {
    h5py.h5z.FILTER_DEFLATE: decode_gzip,
    h5py.h5z.FILTER_SZIP: decode_szip,
    BZIP2_FILTER: decode_bzip2,
    LZF_FILTER: decode_lzf,
    BLOSC_FILTER: decode_blosc,
    LZ4_FILTER: decode_lz4,
    BITSHUFFLE_FILTER: decode_bitshuffle,
    ZSTD_FILTER: decode_zstd,
    BLOSC2_FILTER: decode_blosc2,
}
"""By the number of the filter."""
