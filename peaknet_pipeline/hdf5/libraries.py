"""The C decoders that h5py and hdf5plugin bring, called through ctypes: without Python's lock, and without HDF5.

Each is called only with sizes that were checked against its buffers.
"""

import ctypes
import functools
from ctypes import c_int, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import h5py  # noqa: F401  (loads the szip library where it has one)

from peaknet_pipeline.errors import RunError

_SIZES = [c_size_t] * 3
_BITSHUFFLE: dict[str, tuple[Any, list[Any]]] = {
    "bshuf_decompress_lz4": (c_int64, [c_void_p, c_void_p, *_SIZES]),
    "bshuf_decompress_zstd": (c_int64, [c_void_p, c_void_p, *_SIZES]),
    "bshuf_bitunshuffle": (c_int64, [c_void_p, c_void_p, *_SIZES]),
    "LZ4_decompress_safe": (c_int, [c_void_p, c_void_p, c_int, c_int]),
    "ZSTD_decompress": (c_size_t, [c_void_p, c_size_t, c_void_p, c_size_t]),
    "ZSTD_isError": (c_int, [c_size_t]),
}
_BLOSC: dict[str, tuple[Any, list[Any]]] = {
    "blosc_cbuffer_validate": (c_int, [c_void_p, c_size_t, c_void_p]),
    "blosc_decompress_ctx": (c_int, [c_void_p, c_void_p, c_size_t, c_int]),
}
_BLOSC2: dict[str, tuple[Any, list[Any]]] = {
    "blosc2_init": (None, []),
    "b2nd_from_cframe": (c_int, [c_void_p, c_int64, ctypes.c_bool, c_void_p]),
    "b2nd_to_cbuffer": (c_int, [c_void_p, c_void_p, c_int64]),
    "b2nd_free": (c_int, [c_void_p]),
    "blosc2_schunk_from_buffer": (c_void_p, [c_void_p, c_int64, ctypes.c_bool]),
    "blosc2_schunk_decompress_chunk": (c_int, [c_void_p, c_int64, c_void_p, c_int32]),
    "blosc2_schunk_free": (c_int, [c_void_p]),
}
_SZIP: dict[str, tuple[Any, list[Any]]] = {
    "SZ_BufftoBuffDecompress": (c_int, [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p]),
}


@functools.cache
def bitshuffle_library() -> ctypes.CDLL:
    """Return bitshuffle's decoders, with those of LZ4 and Zstandard that it holds."""
    return _typed(_plugin("libh5bshuf.so"), _BITSHUFFLE)


@functools.cache
def blosc_library() -> ctypes.CDLL:
    """Return the decoder of Blosc 1."""
    return _typed(_plugin("libh5blosc.so"), _BLOSC)


@functools.cache
def blosc2_library() -> ctypes.CDLL:
    """Return the decoder of Blosc 2."""
    library = _typed(_plugin("libh5blosc2.so"), _BLOSC2)
    library.blosc2_init()
    return library


@functools.cache
def szip_library() -> ctypes.CDLL:
    """Return the szip decoder that HDF5 was loaded with."""
    mapped = Path("/proc/self/maps").read_text().split("\n")
    paths = {line.split(maxsplit=5)[-1] for line in mapped if "libsz" in line.rpartition("/")[2]}
    return _typed(Path(min(paths, default="libsz.so")), _SZIP)


def _plugin(name: str) -> Path:
    try:
        import hdf5plugin
    except ImportError as error:
        remedy = "Install hdf5plugin, or repack the file: h5repack -f GZIP=1 IN OUT."
        raise RunError("hdf5plugin is not installed", where=name, remedy=remedy) from error
    return Path(hdf5plugin.PLUGIN_PATH) / name


def _typed(path: Path, functions: dict[str, tuple[Any, list[Any]]]) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise RunError(
            f"a decoder is missing ({error})",
            where=path,
            remedy="Install hdf5plugin's own wheel, or repack the file: h5repack -f GZIP=1 IN OUT.",
        ) from error
    return library
