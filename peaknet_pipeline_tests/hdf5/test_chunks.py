"""Chunks read by threads equal what HDF5 reads; damage ends in an error, never in other memory."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.bitshuffle import LZ4, STORED, ZSTD, decode_bitshuffle
from peaknet_pipeline.hdf5.chunks import read_chunks
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.types import FrameArray
from peaknet_pipeline_tests.runs.files import CXI_DATA, slab_geometry, write_slab_run

STORAGE: dict[str, dict[str, object]] = {
    "none": {},
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle()),
    "deflate": {"compression": "gzip"},
    "shuffle-deflate": {"compression": "gzip", "shuffle": True},
}


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(3) as executor:
        yield executor


@pytest.mark.parametrize("name", STORAGE)
@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "uint8", ">u2", "float64"])
def test_threads_read_what_hdf5_reads(tmp_path: Path, pool: Executor, name: str, dtype: str) -> None:
    data = np.random.default_rng(0).poisson(3, (7, 33, 50)).astype(dtype)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for chunks in ((1, 33, 50), (2, 33, 50), (3, 10, 17)):
            dataset = file.create_dataset(f"d{chunks}", data=data, chunks=chunks, **STORAGE[name])
            file.flush()
            for selection in (np.s_[0:7, 0:33, 0:50], np.s_[2:3, 5:20, 7:49], np.s_[1:6, 9:11, 16:18]):
                np.testing.assert_array_equal(read_chunks(dataset, selection, pool), dataset[selection])


def decoded(stored: bytes, itemsize: int, n_bytes: int, code: int = LZ4) -> FrameArray:
    return decode_bitshuffle(np.frombuffer(stored, np.uint8), (0, 5, itemsize, 0, code), n_bytes)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_bitshuffle_gives_back_what_was_stored(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, itemsize: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    kinds = (rng.integers(0, 256, height * width * itemsize), rng.poisson(0.1, height * width * itemsize))
    for values in kinds:
        data = values.astype(np.uint8).view(f"u{itemsize}").reshape(height, width)
        for name, code in (("lz4", LZ4), ("zstd", ZSTD), ("none", STORED)):
            with h5py.File(tmp_path_factory.mktemp("b") / "x.h5", "w") as file:
                storage = hdf5plugin.Bitshuffle(cname=name)
                dataset = file.create_dataset("d", data=data, chunks=data.shape, **storage)
                stored = dataset.id.read_direct_chunk((0, 0))[1]
            assert decoded(stored, itemsize, data.nbytes, code).tobytes() == data.tobytes()


def _stored_chunk(tmp_path: Path) -> tuple[bytes, int]:
    data = np.random.default_rng(0).poisson(2, (64, 80)).astype(np.uint16)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("d", data=data, chunks=data.shape, **hdf5plugin.Bitshuffle())
        return dataset.id.read_direct_chunk((0, 0))[1], data.nbytes


def test_damaged_chunks_give_an_error_or_wrong_values_but_no_crash(tmp_path: Path) -> None:
    stored, n_bytes = _stored_chunk(tmp_path)
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(3000):
        content = bytearray(stored[: rng.integers(0, len(stored) + 1)] if rng.random() < 0.2 else stored)
        for _ in range(rng.integers(1, 5)):
            if content:
                content[rng.integers(min(len(content), 60) if rng.random() < 0.5 else len(content))] ^= (
                    1 << rng.integers(8)
                )
        try:
            assert decoded(bytes(content), 2, n_bytes).size == n_bytes
        except RunError:
            refused += 1
    assert refused > 800


def test_a_chunk_that_claims_to_be_huge_is_refused_before_anything_is_allocated() -> None:
    claim = (2**60).to_bytes(8, "big") + (8192).to_bytes(4, "big") + bytes(100)
    with pytest.raises(RunError, match=r"a compressed chunk is damaged, expected 1000 bytes"):
        decoded(claim, 2, 1000)
    claim = (1000).to_bytes(8, "big") + (2**31).to_bytes(4, "big") + bytes(100)
    with pytest.raises(RunError, match=r"a block size"):
        decoded(claim, 2, 1000)


def test_contiguous_and_half_written_data_sets_are_read_too(tmp_path: Path, pool: Executor) -> None:
    data = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        contiguous = file.create_dataset("contiguous", data=data)
        zstd = file.create_dataset("zstd", data=data, chunks=(1, 4, 5), **hdf5plugin.Zstd())
        half = file.create_dataset("half", (3, 4, 5), np.uint16, chunks=(1, 4, 5), fillvalue=9)
        half[1] = data[1]
        file.flush()
        for dataset in (contiguous, zstd, half):
            np.testing.assert_array_equal(read_chunks(dataset, np.s_[0:3, 0:4, 0:5], pool), dataset[()])


def test_a_run_reads_the_same_with_a_pool_and_from_many_threads(tmp_path: Path, pool: Executor) -> None:
    stack = write_slab_run(tmp_path / "run.cxi", 12)
    with open_run(tmp_path / "run.cxi", slab_geometry()) as run:
        np.testing.assert_array_equal(run.read(3, 11, pool=pool), stack[3:11])
        with ThreadPoolExecutor(4) as others:
            parts = list(others.map(lambda i: run.read(i, i + 1, pool=pool), range(12)))
    np.testing.assert_array_equal(np.concatenate(parts), stack)


def test_a_damaged_chunk_names_the_frames_with_a_pool_too(tmp_path: Path, pool: Executor) -> None:
    write_slab_run(tmp_path / "run.cxi")
    with h5py.File(tmp_path / "run.cxi") as file:
        info = file[CXI_DATA].id.get_chunk_info(1)
    content = bytearray((tmp_path / "run.cxi").read_bytes())
    content[info.byte_offset : info.byte_offset + info.size] = bytes(info.size)
    (tmp_path / "run.cxi").write_bytes(content)
    with open_run(tmp_path / "run.cxi", slab_geometry()) as run:
        with pytest.raises(RunError, match=r"frames 1 to 1 cannot be read"):
            run.read(1, 2, pool=pool)
        assert run.read(2, 3, pool=pool).shape[0] == 1


def test_real_runs_read_the_same_with_a_pool(realdata: Path, pool: Executor) -> None:
    with open_run(realdata / "thaumatin" / "stills.h5", realdata / "thaumatin" / "stills.geom") as run:
        np.testing.assert_array_equal(run.read(0, 3, pool=pool), run.read(0, 3))


def numbered_run(path: Path, **options: object) -> FrameArray:
    """Write seven noisy frames, one chunk each, whose first pixel is their number."""
    frames = np.random.default_rng(5).poisson(20.0, (7, 37, 45)).astype("u2")
    frames[:, 0, 0] = np.arange(7)
    with h5py.File(path, "w") as file:
        file.create_dataset(CXI_DATA, data=frames, chunks=(1, 37, 45), **options)
    return frames


@pytest.mark.parametrize("name", ["bitshuffle-lz4", "deflate", "shuffle-deflate"])
def test_flipped_bytes_in_a_run_are_refused_or_harmless(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run.h5"
    numbered_run(path, **STORAGE[name])
    with h5py.File(path) as file:
        info = file[CXI_DATA].id.get_chunk_info(3)
    whole, rng = path.read_bytes(), np.random.default_rng(2)
    refused: list[str] = []
    for place in [*range(0, 24), *rng.integers(24, info.size, 40)]:
        hurt = bytearray(whole)
        hurt[info.byte_offset + int(place)] ^= int(rng.integers(1, 256))
        path.write_bytes(hurt)
        with open_run(path) as run:
            try:
                assert run.read(2, 5).shape == (3, 1, 37, 45)
            except RunError as error:
                refused.append(str(error))
    assert len(refused) > 5
    assert all("frames 2 to 4 cannot be read" in message for message in refused)


def test_a_truncated_chunk_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    numbered_run(path, **STORAGE["bitshuffle-lz4"])
    with h5py.File(path, "r+") as file:
        data = file[CXI_DATA]
        _, raw = data.id.read_direct_chunk((2, 0, 0))
        data.id.write_direct_chunk((2, 0, 0), raw[: len(raw) // 2])
    with open_run(path) as run, pytest.raises(RunError, match="frames 0 to 6 cannot be read"):
        run.read(0, 7)


@pytest.mark.parametrize("name", sorted(STORAGE))
@pytest.mark.parametrize("offset", [2**63 + 5, 2**63 - 3, 2**40])
def test_a_chunk_that_lies_where_no_file_reaches_is_an_error(tmp_path: Path, name: str, offset: int) -> None:
    path = tmp_path / "run.h5"
    numbered_run(path, **STORAGE[name])
    with h5py.File(path) as file:
        true = file[CXI_DATA].id.get_chunk_info_by_coord((2, 0, 0)).byte_offset
    content = path.read_bytes()
    assert content.count(true.to_bytes(8, "little")) == 1
    path.write_bytes(content.replace(true.to_bytes(8, "little"), offset.to_bytes(8, "little")))
    with pytest.raises(RunError), open_run(path) as run:
        run.read(0, 7)


def test_chunks_that_were_never_written_hold_the_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        data = file.create_dataset(CXI_DATA, (4, 8, 9), "u2", chunks=(1, 8, 9), fillvalue=7)
        data[1] = data[3] = 3  # a run that ends in chunks never written was stopped, and ends before them
    with open_run(tmp_path / "run.h5") as run:
        assert run.read(0, 4)[:, 0, 0, 0].tolist() == [7, 3, 7, 3]
