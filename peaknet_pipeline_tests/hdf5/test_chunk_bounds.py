"""No stored chunk decodes to more than was declared: told before HDF5 decodes it, for every filter that is read."""

import bz2
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.chunks import read_rows, read_whole
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline_tests.runs.files import CXI_DATA, slab_geometry
from peaknet_pipeline_tests.runs.test_fuzz import _peak_memory_bytes

SHAPE, CHUNK = (4, 18, 8), (1, 18, 8)
HUGE = 2**40

FILTERS: dict[str, dict[str, Any]] = {
    "gzip with checksum": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "lzf with checksum": {"compression": "lzf", "fletcher32": True},
    "szip": {"compression": "szip"},
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle()),
    "bitshuffle-zstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
    "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="none")),
    "blosc": dict(hdf5plugin.Blosc(cname="zstd")),
    "blosc2": dict(hdf5plugin.Blosc2()),
    "lz4": dict(hdf5plugin.LZ4()),
    "zstd": dict(hdf5plugin.Zstd()),
    "zstd with checksum": {**hdf5plugin.Zstd(), "fletcher32": True},
    "bzip2": dict(hdf5plugin.BZip2()),
}


def write(path: Path, options: dict[str, Any], name: str = CXI_DATA) -> np.ndarray[Any, Any]:
    data = np.random.default_rng(1).poisson(3.0, SHAPE).astype(np.uint16)
    with h5py.File(path, "w", userblock_size=512 if "user" in path.name else 0) as file:
        file.create_dataset(name, data=data, chunks=CHUNK, **options)
    return data


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("file", ["run.cxi", "user.cxi"])
def test_honest_chunks_of_every_filter_are_read(tmp_path: Path, name: str, file: str) -> None:
    data = write(tmp_path / file, FILTERS[name])
    with h5py.File(tmp_path / file) as opened:
        assert np.array_equal(read_whole(opened[CXI_DATA]), data)
        assert np.array_equal(read_rows(opened[CXI_DATA], 2, 9), data[2:])


def zstd_bomb(n_bytes: int) -> bytes:
    """Return a valid Zstandard frame of zeros: blocks of one repeated byte (RFC 8878), four bytes per 128 KiB."""
    n = n_bytes >> 17
    blocks = b"".join(struct.pack("<I", (1 << 17) << 3 | 1 << 1 | (i == n - 1))[:3] + b"\0" for i in range(n))
    return b"\x28\xb5\x2f\xfd" + bytes([3 << 6 | 1 << 5]) + struct.pack("<Q", n_bytes) + blocks


def gzip_bomb(n_bytes: int) -> bytes:
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(n_bytes >> 20)) + packer.flush()


def lzf_bomb(n_bytes: int) -> bytes:
    return b"\0\0" + b"\xe0\xff\0" * (n_bytes // 264)


def bzip2_bomb(n_bytes: int) -> bytes:
    packer = bz2.BZ2Compressor()
    return b"".join(packer.compress(bytes(2**20)) for _ in range(n_bytes >> 20)) + packer.flush()


BOMBS: dict[str, Callable[[int], bytes]] = {
    "zstd": zstd_bomb,
    "gzip with checksum": gzip_bomb,
    "lzf": lzf_bomb,
    "bzip2": bzip2_bomb,
    "szip": lambda n: struct.pack("<I", n) + bytes(64),
    "bitshuffle-zstd": lambda n: struct.pack(">QI", HUGE, 8192) + bytes(64),
    "bitshuffle-lz4": lambda n: struct.pack(">QI", HUGE, 8192) + bytes(64),
    "lz4": lambda n: struct.pack(">QI", HUGE, 2**30) + bytes(64),
    "blosc": lambda n: b"\x02\x01\x21\x02" + struct.pack("<III", n, 2**20, 80) + bytes(64),
    "blosc2": lambda n: b"\x9e\xa8b2frame\0\xd2" + bytes(18) + b"\xd3" + struct.pack(">Q", n) + bytes(600),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("virtual", [False, True])
def test_a_chunk_that_would_decode_without_end_is_refused(tmp_path: Path, name: str, virtual: bool) -> None:
    """Also behind a virtual data set, whose sources HDF5 reads by itself."""
    write(tmp_path / "bomb.cxi", FILTERS[name])
    with h5py.File(tmp_path / "bomb.cxi", "a") as file:
        file[CXI_DATA].id.write_direct_chunk(
            (2, 0, 0), BOMBS[name](384 * 2**20 if name != "bzip2" else 2**25)
        )
    path = tmp_path / "bomb.cxi"
    if virtual:
        path = tmp_path / "master.cxi"
        layout = h5py.VirtualLayout(SHAPE, np.uint16)
        layout[:] = h5py.VirtualSource("bomb.cxi", CXI_DATA, SHAPE)
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset(CXI_DATA, layout)
    before = _peak_memory_bytes()
    with pytest.raises(RunError, match=r"chunk.*damaged"), open_run(path, slab_geometry()) as run:
        assert virtual or run.read(0, 2).shape[0] == 2
        run.read(0, 4)
    assert _peak_memory_bytes() - before < 60 * 2**20


@pytest.mark.parametrize(
    "options",
    [{"scaleoffset": 0}, {**hdf5plugin.Zstd()}, dict(hdf5plugin.SZ3(absolute=0.5))],
    ids=["scale-offset", "two compressions", "unknown"],
)
def test_filters_whose_output_has_no_bound_are_refused_with_what_to_do(tmp_path: Path, options: Any) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(CHUNK)
    properties.set_deflate(1)
    with h5py.File(tmp_path / "run.cxi", "w") as file:
        if "compression" in options and options["compression"] == 32015:
            properties.set_filter(32015, h5py.h5z.FLAG_MANDATORY, (3,))
            space = h5py.h5s.create_simple(SHAPE)
            h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT16, space, properties)
        else:
            kind = np.float32 if "compression" in options else np.uint16
            file.create_dataset("x", data=np.ones(SHAPE, kind), chunks=CHUNK, **options)
    with LinkedFiles(tmp_path / "run.cxi") as files, pytest.raises(RunError, match=r"no bound.*h5repack"):
        files.dataset("/x")


def test_small_values_are_bounded_too(tmp_path: Path) -> None:
    write(tmp_path / "bomb.cxi", FILTERS["zstd"], "/values")
    with h5py.File(tmp_path / "bomb.cxi", "a") as file:
        file["/values"].id.write_direct_chunk((0, 0, 0), zstd_bomb(2**29))
    before = _peak_memory_bytes()
    with LinkedFiles(tmp_path / "bomb.cxi") as files, pytest.raises(RunError, match="damaged"):
        files.value("/values", max_size=10_000)
    assert _peak_memory_bytes() - before < 60 * 2**20
