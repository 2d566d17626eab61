"""Arrays of Zarr stores that are folders, formats 2 and 3, read chunk by chunk with decoders that keep to the declared size.

Facts: the specifications of Zarr 2 and 3 (zarr-specs). Numbers alone are read: formats of objects would need pickles.
"""

import itertools
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.decoders import decode_blosc, decode_bzip2, decode_zstd
from peaknet_pipeline.records import read_json
from peaknet_pipeline.types import FrameArray, UInt8Array

MAX_CHUNK_BYTES = 2**30
V2, V3 = ".zarray", "zarr.json"
STORE_FILES = (V2, ".zgroup", V3)
"""A folder with one of them is a Zarr array or group."""

Selection = tuple[slice, ...]
Decode = Callable[[UInt8Array, int], UInt8Array]


def _inflate(stored: UInt8Array, n_bytes: int) -> UInt8Array:
    """Inflate data with gzip's or zlib's header to at most one byte more than expected."""
    try:
        data = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(stored.data, n_bytes + 1)
    except zlib.error as error:
        raise RunError("a compressed chunk is damaged", expected="deflated data", found=error) from error
    return np.frombuffer(data, dtype=np.uint8)


CODECS: Mapping[str, Decode] = {
    "blosc": lambda stored, n: decode_blosc(stored, (), n),
    "zstd": lambda stored, n: decode_zstd(stored, (), n),
    "gzip": _inflate,
    "zlib": _inflate,
    "bz2": lambda stored, n: decode_bzip2(stored, (), n),
}


@dataclass(frozen=True)
class ArrayFacts:
    """What an array's metadata declare; ``codec`` is None where chunks are stored as they are."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: float
    codec: str | None
    prefix: str
    separator: str


class ZarrArray:
    """An array of a Zarr store, sliced like an HDF5 data set.

    Chunks are read one after another; one that was never written is the fill value.
    """

    chunks = None
    is_virtual = False

    def __init__(self, folder: Path, name: str, allows: Callable[[Path], bool]) -> None:
        self.folder, self.name = folder, name
        self._facts = read_facts(folder)
        self._allows = allows
        self.shape, self.dtype = self._facts.shape, self._facts.dtype.newbyteorder("=")
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        self.attrs: dict[str, Any] = {}

    def __getitem__(self, selection: Any) -> FrameArray:
        """Read a box, or with ``()`` all."""
        whole = tuple(slice(0, n) for n in self.shape)
        box = (
            whole
            if selection == ()
            else tuple(slice(*s.indices(n)) for s, n in zip(selection, self.shape, strict=True))
        )
        out = np.full([s.stop - s.start for s in box], self._facts.fill, dtype=self.dtype)
        spans = [
            range(s.start // c, -(-s.stop // c)) if s.stop > s.start else range(0)
            for s, c in zip(box, self._facts.chunks, strict=True)
        ]
        for index in itertools.product(*spans):
            self._place(index, box, out)
        return out

    @property
    def n_stored(self) -> int:
        """How many elements the files of the array hold at most."""
        n_files = sum(len(names) for _, _, names in os.walk(self.folder))
        return n_files * math.prod(self._facts.chunks)

    def _path(self, index: Sequence[int]) -> Path:
        facts = self._facts
        names = [*([facts.prefix] if facts.prefix else []), *map(str, index)]
        return self.folder / (facts.separator.join(names) or "0")

    def _place(self, index: Sequence[int], box: Selection, out: FrameArray) -> None:
        chunk = self._read(self._path(index))
        if chunk is None:
            return
        first = [i * c for i, c in zip(index, self._facts.chunks, strict=True)]
        low = [max(s.start, f) for s, f in zip(box, first, strict=True)]
        high = [min(s.stop, f + c) for s, f, c in zip(box, first, self._facts.chunks, strict=True)]
        target = tuple(slice(a - s.start, b - s.start) for a, b, s in zip(low, high, box, strict=True))
        source = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
        out[target] = chunk[source]

    def _read(self, path: Path) -> FrameArray | None:
        facts = self._facts
        n_bytes = math.prod(facts.chunks) * facts.dtype.itemsize
        if not path.is_file():
            return None
        if not self._allows(path.resolve()):
            raise RunError("a chunk is a link out of the allowed folders", where=path, found=path.resolve())
        try:
            stored = np.fromfile(path, dtype=np.uint8, count=2 * n_bytes + 2**20)
            data = stored if facts.codec is None else CODECS[facts.codec](stored, n_bytes)
        except RunError as error:
            raise RunError(error.what, where=path, expected=error.expected, found=error.found) from error
        if data.size != n_bytes:
            raise RunError("a chunk is damaged", where=path, expected=f"{n_bytes} bytes", found=data.size)
        return data.view(facts.dtype).reshape(facts.chunks)


def is_array(folder: Path) -> bool:
    """Tell whether a folder is a Zarr array."""
    if (folder / V2).is_file():
        return True
    return (folder / V3).is_file() and _metadata(folder / V3).get("node_type") == "array"


def read_facts(folder: Path) -> ArrayFacts:
    """Read an array's metadata.

    Raises
    ------
    RunError
        They are damaged, declare something absurd, or something that is not read here; the message names it.

    """
    path = folder / (V2 if (folder / V2).is_file() else V3)
    values = _metadata(path)
    try:
        facts = _facts_v2(values) if path.name == V2 else _facts_v3(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"Zarr metadata are damaged ({error!r})", where=path) from error
    except RunError as error:
        raise RunError(
            error.what,
            where=path,
            expected=error.expected,
            found=error.found,
            remedy="Copy it to HDF5, or rechunk it.",
        ) from error
    n_bytes = math.prod(facts.chunks) * facts.dtype.itemsize
    fits = (
        len(facts.shape) == len(facts.chunks) and min((*facts.chunks, 1)) >= 1 and min((*facts.shape, 0)) >= 0
    )
    if not fits or n_bytes > MAX_CHUNK_BYTES:
        found = f"shape {facts.shape}, chunks {facts.chunks}"
        raise RunError(
            "the array's chunks are absurd", where=path, expected=f"≤ {MAX_CHUNK_BYTES} bytes", found=found
        )
    return facts


def _metadata(path: Path) -> dict[str, Any]:
    values = read_json(path, error=RunError)
    if not isinstance(values, dict):
        raise RunError("Zarr metadata are no object", where=path)
    return values


def _facts_v2(values: Mapping[str, Any]) -> ArrayFacts:
    if values.get("filters"):
        raise RunError("a filter is not read", found=values["filters"])
    if values.get("order", "C") != "C":
        raise RunError("the order of elements is not read", expected="C", found=values["order"])
    compressor = values.get("compressor")
    return ArrayFacts(
        shape=_whole(values["shape"]),
        chunks=_whole(values["chunks"]),
        dtype=_numeric(np.dtype(str(values["dtype"]))),
        fill=_fill(values.get("fill_value")),
        codec=None if compressor is None else _known(str(compressor["id"])),
        prefix="",
        separator=_separator(values.get("dimension_separator", ".")),
    )


def _facts_v3(values: Mapping[str, Any]) -> ArrayFacts:
    grid, keys, codecs = values["chunk_grid"], values["chunk_key_encoding"], list(values["codecs"])
    if grid["name"] != "regular" or keys["name"] not in ("default", "v2"):
        raise RunError("a chunk grid is not read", found=f"{grid['name']}, {keys['name']}")
    first = codecs.pop(0)
    if first["name"] != "bytes" or len(codecs) > 1:
        raise RunError("a chain of codecs is not read", found=[first["name"], *(c["name"] for c in codecs)])
    endian = (first.get("configuration") or {}).get("endian", "little")
    default = keys["name"] == "default"
    return ArrayFacts(
        shape=_whole(values["shape"]),
        chunks=_whole(grid["configuration"]["chunk_shape"]),
        dtype=_numeric(np.dtype(str(values["data_type"]))).newbyteorder(">" if endian == "big" else "<"),
        fill=_fill(values.get("fill_value")),
        codec=_known(str(codecs[0]["name"])) if codecs else None,
        prefix="c" if default else "",
        separator=_separator((keys.get("configuration") or {}).get("separator", "/" if default else ".")),
    )


def _whole(values: Sequence[Any]) -> tuple[int, ...]:
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in values):
        raise ValueError(f"not whole numbers: {values}")
    return tuple(values)


def _numeric(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind not in "uifb" or dtype.fields is not None:
        raise RunError("the array is not numeric", expected="integers or floats", found=dtype)
    return dtype


def _known(codec: str) -> str:
    if codec not in CODECS:
        raise RunError("a compression is not read", expected=", ".join(CODECS), found=codec)
    return codec


def _fill(value: object) -> float:
    return 0.0 if value is None else float(str(value)) if not isinstance(value, bool) else float(value)


def _separator(value: object) -> str:
    if value not in (".", "/"):
        raise ValueError(f"a separator {value!r}")
    return str(value)
