"""Compressed frames read in parallel: raw chunks through HDF5's one lock, decompression outside of it.

The HDF5 library decompresses under a global lock, so that threads that read do not help each other. Where a data
set has one chunk per frame and filters that are known here (none, gzip, shuffle, bitshuffle-LZ4), only the raw
bytes are fetched through the library.
"""

import ctypes
import functools
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import hdf5plugin
import numba
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.chunks import read_chunks
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.types import FrameArray

GZIP, SHUFFLE, BITSHUFFLE = 1, 2, 32008
BITSHUFFLE_LZ4 = 2
HEADER_BYTES = 12

Decoder = Callable[[bytes, "np.ndarray[Any, Any]"], None]
"""A raw chunk into an array of the chunk's shape; ValueError or zlib.error if the chunk is damaged."""


def open_parallel(run: Run) -> "ParallelRun":
    """Return the run behind a reader that decompresses outside HDF5's lock where it can."""
    return ParallelRun(run)


class ParallelRun:
    """Frames of a run by range, the same as ``run.read`` gives; closes the run at the end of its block."""

    def __init__(self, run: Run) -> None:
        self._run = run
        # A run that changes what it reads (a calibrated one) is asked itself.
        sources = run.sources if type(run) is Run else ()
        self._source = sources[0] if len(sources) == 1 and sources[0].slab_map.frame_axis == 0 else None
        datasets = self._source.datasets if self._source is not None else ()
        self._decoders = [chunk_decoder(dataset) for dataset in datasets]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self._run.n_frames

    @property
    def is_direct(self) -> bool:
        """Whether every frame goes around the HDF5 library's decompression."""
        return bool(self._decoders) and all(decoder is not None for decoder in self._decoders)

    def __enter__(self) -> Self:
        """Return the reader."""
        self._run.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the run."""
        self._run.__exit__(kind, value, traceback)

    def read(self, start: int, stop: int) -> FrameArray:
        """Return the frames ``start`` to ``stop``, (n, n_panels, ss, fs), in the stored dtype.

        Raises
        ------
        RunError
            The range is not within the run, or the file is damaged there.

        """
        if self._source is None or not self.is_direct or not 0 <= start < stop <= self.n_frames:
            return self._run.read(start, stop)
        first = self._source.datasets[0]
        slab = np.empty((stop - start, *first.shape[1:]), dtype=first.dtype)
        for i, frame in enumerate(range(start, stop)):
            self._read_one(frame, slab[i])
        whole = (slice(None), *self._source.slab_map.window)
        return self._source.slab_map.to_stack(np.ascontiguousarray(slab[whole]))

    def _read_one(self, frame: int, out: FrameArray) -> None:
        if self._source is None:
            return
        number = int(np.searchsorted(self._source.starts, frame, side="right")) - 1
        dataset, decode = self._source.datasets[number], self._decoders[number]
        place = (frame - self._source.starts[number], *(0,) * (dataset.ndim - 1))
        try:
            skipped, raw = dataset.id.read_direct_chunk(place)
            if skipped or decode is None:
                whole = (slice(place[0], place[0] + 1), *(slice(0, n) for n in dataset.shape[1:]))
                out[...] = read_chunks(dataset, whole, None)[0]
            else:
                decode(raw, out)
        except (OSError, RuntimeError, KeyError, ValueError, zlib.error, RunError) as error:
            raise RunError(
                f"frame {frame} cannot be read ({error})",
                where=self._run.info.path,
                remedy="The file is damaged there: copy it again.",
            ) from error


def chunk_decoder(dataset: Any) -> Decoder | None:
    """Return what decodes the data set's chunks, or None where only the HDF5 library can.

    That is so unless each chunk is exactly one frame of native byte order, stored (allocated) in full, and all
    filters are known.
    """
    one_frame = dataset.chunks is not None and dataset.chunks == (1, *dataset.shape[1:])
    if not one_frame or not dataset.dtype.isnative or dataset.is_virtual:
        return None
    if dataset.id.get_num_chunks() != dataset.shape[0]:
        return None
    filters = _filters(dataset)
    if filters == []:
        return _copy
    if [code for code, _ in filters] in ([GZIP], [SHUFFLE, GZIP]):
        return functools.partial(_inflate, shuffled=len(filters) == 2)
    if [code for code, _ in filters] == [BITSHUFFLE] and filters[0][1][4:5] == (BITSHUFFLE_LZ4,):
        return _unbitshuffle if _bitshuffle_library() is not None else None
    return None


def _filters(dataset: Any) -> list[tuple[int, tuple[int, ...]]]:
    plist = dataset.id.get_create_plist()
    found = (plist.get_filter(i) for i in range(plist.get_nfilters()))
    return [(int(entry[0]), tuple(entry[2])) for entry in found]


def _copy(raw: bytes, out: "np.ndarray[Any, Any]") -> None:
    _check_size(len(raw), out.nbytes)
    out[...] = np.frombuffer(raw, dtype=out.dtype).reshape(out.shape)


def _inflate(raw: bytes, out: "np.ndarray[Any, Any]", *, shuffled: bool) -> None:
    # At most one byte too much is asked for: a chunk that would blow up is noticed, not unpacked.
    data = zlib.decompressobj().decompress(raw, out.nbytes + 1)
    _check_size(len(data), out.nbytes)
    if shuffled:
        data = np.frombuffer(data, np.uint8).reshape(out.dtype.itemsize, -1).T.tobytes()
    out[...] = np.frombuffer(data, dtype=out.dtype).reshape(out.shape)


def _unbitshuffle(raw: bytes, out: "np.ndarray[Any, Any]") -> None:
    library = _bitshuffle_library()
    if library is None:
        raise ValueError("no bitshuffle library")
    if len(raw) < HEADER_BYTES:
        raise ValueError("the chunk has no header")
    _check_size(int.from_bytes(raw[:8], "big"), out.nbytes)
    size, count = out.dtype.itemsize, out.size
    block = int.from_bytes(raw[8:12], "big") // size
    # The library trusts the lengths in the chunk; they are checked here, so that damage cannot lead it astray.
    if block <= 0 or block % 8 or not _blocks_fit(np.frombuffer(raw, np.uint8), count, size, block):
        raise ValueError("the chunk's blocks do not fit")
    start = ctypes.cast(ctypes.c_char_p(raw), ctypes.c_void_p).value or 0
    done = library.bshuf_decompress_lz4(start + HEADER_BYTES, out.ctypes.data, count, size, block)
    if done < 0:
        raise ValueError(f"bitshuffle error {done}")


@functools.cache
def _bitshuffle_library() -> Any:
    """Return the library of the HDF5 filter, whose functions also work by themselves; None if it isn't there."""
    path = hdf5plugin.get_config().registered_filters.get("bshuf")
    try:
        library = ctypes.CDLL(path) if path else None
        decompress = getattr(library, "bshuf_decompress_lz4", None)
    except OSError:
        return None
    if decompress is None:
        return None
    decompress.restype = ctypes.c_int64
    decompress.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
    return library


@numba.njit(cache=True, nogil=True)
def _blocks_fit(raw, count, size, block):  # type: ignore[no-untyped-def]
    """Tell whether the block lengths of a bitshuffle-LZ4 chunk add up to its size."""
    place, left = np.int64(12), count - count % 8
    while left > 0:
        if place + 4 > raw.size:
            return False
        length = (
            (np.int64(raw[place]) << 24)
            | (np.int64(raw[place + 1]) << 16)
            | (np.int64(raw[place + 2]) << 8)
            | np.int64(raw[place + 3])
        )
        place += 4 + length
        left -= min(block, left)
    return place + (count % 8) * size == raw.size


def _check_size(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"the chunk holds {found} bytes instead of {expected}")
