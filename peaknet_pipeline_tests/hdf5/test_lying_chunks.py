"""A chunk whose inner lengths lie is refused by whatever way it is reached: no other memory comes back as pixels."""

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from peaknet_pipeline.errors import PeaknetError, RunError
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.decoders import DECODERS
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.hdf5.filters import fletcher32, read_pipeline
from peaknet_pipeline.infer.swmr_file import GrowingData
from peaknet_pipeline.labels.store import open_labels, write_labels
from peaknet_pipeline.runs.calibrated import read_calibration
from peaknet_pipeline.runs.cxi import read_cxi_peaks
from peaknet_pipeline.runs.masks import MASK_REASONS, read_layers, read_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline_tests.hdf5.hostile_files import ENERGY, MASK, RESULT, STORAGE, WAYS, write_sound
from peaknet_pipeline_tests.runs.files import CXI_DATA, slab_geometry


def lying_bitshuffle(n_bytes: int, inner: bytes = b"") -> bytes:
    """A chunk whose only block tells more bytes than the chunk holds."""
    return struct.pack(">QI", n_bytes, 8192) + struct.pack(">I", 0x7FFFFFF0) + (inner or b"\xf0" + bytes(30))


def lying_lz4(n_bytes: int) -> bytes:
    return struct.pack(">QI", n_bytes, n_bytes) + struct.pack(">I", n_bytes) + bytes(30)


LYING: dict[str, Callable[[int], bytes]] = {
    "bitshuffle-lz4": lying_bitshuffle,
    "bitshuffle-lz4 with checksum": lambda n: with_checksum(lying_bitshuffle(n)),
    "bitshuffle-zstd": lambda n: lying_bitshuffle(n, b"\x28\xb5\x2f\xfd" + bytes(60)),
    "lz4": lying_lz4,
    "blosc": lambda n: b"\x02\x01\x21\x02" + struct.pack("<III", n, n, 2**20) + bytes(64),
    "blosclz": lambda n: b"\x02\x01\x01\x02" + struct.pack("<III", n, n, 2**31 - 1) + bytes(64),
    "lzf": lambda n: b"\x1f" + bytes(3),
    "zstd": lambda n: b"\x28\xb5\x2f\xfd\x60" + struct.pack("<H", n - 256) + b"\xff\xff\xff" + bytes(9),
    "szip": lambda n: struct.pack("<I", n) + b"\x01",
}


def with_checksum(content: bytes) -> bytes:
    return content + struct.pack("<I", fletcher32(np.frombuffer(content, np.uint8)))


def store_lie(path: Path, name: str, storage: str) -> None:
    """Give a data set a lying first chunk."""
    with h5py.File(path, "a") as file:
        data = file[name]
        n_bytes = int(np.prod(data.chunks)) * data.dtype.itemsize
        data.id.write_direct_chunk((0,) * data.ndim, LYING[storage](n_bytes))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("storage", LYING)
def test_frames_are_refused_by_every_way_and_filter(tmp_path: Path, way: str, storage: str) -> None:
    path = write_sound(tmp_path, storage, way, np.random.default_rng(0))
    inner = path if way in ("plain", "userblock", "virtual") else tmp_path / "inner.h5"
    store_lie(inner, CXI_DATA if way in ("plain", "userblock") else "/source", storage)
    for geometry in (slab_geometry(), None):
        with open_run(path, geometry if way != "numbered" else None) as run:
            with pytest.raises(RunError, match=r"frames 0 to 0 cannot be read"):
                run.read(0, 1)
            assert run.read(1, 2).any()


@pytest.mark.parametrize("storage", ["bitshuffle-lz4", "lz4", "blosc"])
@pytest.mark.parametrize(
    ("place", "door"),
    [
        (MASK, read_mask),
        (MASK, open_run),
        (ENERGY, open_run),
        (f"{RESULT}/nPeaks", read_cxi_peaks),
        (f"{RESULT}/peakXPosRaw", read_cxi_peaks),
        ("/pedestal", read_calibration),
        ("/gain", read_calibration),
    ],
)
def test_what_lies_beside_the_frames_is_refused_too(
    tmp_path: Path, storage: str, place: str, door: Callable[[Path], Any]
) -> None:
    path = write_sound(tmp_path, storage, "userblock", np.random.default_rng(0))
    store_lie(path, place, storage)
    with pytest.raises(RunError, match=r"damaged"):
        door(path)


def test_layers_of_masks_and_labels_are_refused_too(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file.create_dataset(MASK_REASONS, (1, 4, 4), "u4", chunks=(1, 4, 4), **hdf5plugin.Bitshuffle())
        file[MASK_REASONS].attrs["layers"] = np.bytes_(b'["a"]')
    store_lie(tmp_path / "mask.h5", MASK_REASONS, "bitshuffle-lz4")
    with pytest.raises(RunError, match="damaged"):
        read_layers(tmp_path / "mask.h5")
    write_labels(tmp_path / "labels.h5", [(0, np.zeros((1, 4, 4), np.uint8), 0)], (1, 4, 4), provenance={})
    with h5py.File(tmp_path / "labels.h5", "a") as file:
        file["labels"].id.write_direct_chunk((0, 0, 0, 0), with_checksum(b"no deflated data"))
    with open_labels(tmp_path / "labels.h5") as labels, pytest.raises(PeaknetError, match="damaged"):
        labels.read(0)


def test_a_followed_file_is_read_within_bounds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "live.h5", "w", libver="latest") as file:
        options = {"maxshape": (None, 18, 8), "chunks": (1, 18, 8), **hdf5plugin.Bitshuffle()}
        file.create_dataset(CXI_DATA, data=np.ones((2, 18, 8), "u2"), **options)
    store_lie(tmp_path / "live.h5", CXI_DATA, "bitshuffle-lz4")
    with LinkedFiles(tmp_path / "live.h5", growing=True) as files:
        growing = GrowingData(files, CXI_DATA, slab_geometry())
        with pytest.raises(PeaknetError, match="damaged"):
            growing.read(0, 1)
        assert growing.read(1, 2).all()


@pytest.mark.parametrize("storage", STORAGE)
def test_cut_and_flipped_chunks_decode_to_the_declared_size_or_not_at_all(
    tmp_path: Path, storage: str
) -> None:
    values = np.random.default_rng(0).poisson(2.0, (40, 50)).astype("u2")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", data=values, chunks=values.shape, **STORAGE[storage])
        pipeline, stored = read_pipeline(data), np.frombuffer(data.id.read_direct_chunk((0, 0))[1], np.uint8)
    assert pipeline.decode(stored, 0).tobytes() == values.tobytes()
    rng = np.random.default_rng(3)
    for _ in range(200):
        content = stored[: rng.integers(stored.size + 1)].copy() if rng.random() < 0.3 else stored.copy()
        for place in rng.integers(0, max(content.size, 1), rng.integers(0, 4)) if content.size else ():
            content[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(RunError):
            assert pipeline.decode(content, 0).size == values.nbytes


@pytest.mark.parametrize("number", sorted(DECODERS))
def test_no_decoder_takes_an_empty_or_a_tiny_chunk(number: int) -> None:
    for n in range(5):
        with pytest.raises(RunError):
            DECODERS[number](np.zeros(n, np.uint8), (0, 5, 2, 0, 2), 4096)


def test_the_checksum_is_that_of_hdf5(tmp_path: Path) -> None:
    for n in (1, 2, 7, 1000, 70_001):
        values = np.random.default_rng(n).integers(0, 256, n).astype("u1")
        with h5py.File(tmp_path / "x.h5", "w") as file:
            stored = file.create_dataset("x", data=values, chunks=(n,), fletcher32=True).id.read_direct_chunk(
                (0,)
            )[1]
        assert struct.pack("<I", fletcher32(values)) == stored[-4:]


def test_wrong_checksums_and_compressed_text_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", data=np.arange(9, dtype="u2"), chunks=(9,), fletcher32=True)
        stored = data.id.read_direct_chunk((0,))[1]
        data.id.write_direct_chunk((0,), bytes([stored[0] ^ 1]) + stored[1:])
        text = file.create_dataset("t", (2,), h5py.string_dtype(), chunks=(2,), compression="gzip")
        text[:] = ["a", "b"]
    with LinkedFiles(tmp_path / "x.h5") as files:
        with pytest.raises(RunError, match="checksum"):
            read_whole(files.dataset("/x"))
        with pytest.raises(RunError, match=r"cannot be read so.*h5repack"):
            read_whole(files.dataset("/t"))


def test_a_file_may_not_declare_far_more_than_it_stores(tmp_path: Path) -> None:
    for n, ok in ((50_000, True), (150_000, False)):
        with h5py.File(tmp_path / "run.h5", "w") as file:
            data = file.create_dataset(CXI_DATA, (n, 18, 8), "u2", chunks=(1, 18, 8), maxshape=(None, 18, 8))
            data[0] = data[n - 1] = 1  # what is missing at the end would be taken for a stopped run
        if ok:
            with open_run(tmp_path / "run.h5") as run:
                assert run.n_frames == n
                assert run.read(n - 2, n - 1).sum() == 0
        else:
            with pytest.raises(RunError, match=r"declares far more than it stores.*about 2 are stored"):
                open_run(tmp_path / "run.h5")


def test_numbers_of_odd_precision_are_converted_as_hdf5_does(tmp_path: Path) -> None:
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((6,))
    properties.set_deflate(1)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((6,)), properties)
        file["x"][:] = [-1, 5, -2048, 2047, 0, 7]
    with LinkedFiles(tmp_path / "x.h5") as files:
        assert read_whole(files.dataset("/x")).tolist() == [-1, 5, -2048, 2047, 0, 7]
