"""Damaged and hostile files: a clear error within bounded memory, never a crash or a look outside."""

import resource
from pathlib import Path

import h5py
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.cxi import read_cxi_peaks
from peaknet_pipeline.runs.masks import read_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline_tests.runs.files import CXI_DATA, slab_geometry, write_slab_run


def _peak_memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    ("shape", "chunks", "dtype"),
    [
        ((3, 2**20, 2**20), (1, 1024, 1024), "u1"),
        ((10**12, 18, 8), (1, 18, 8), "u2"),
        ((3, 18, 8), (1, 2**15, 2**15), "f8"),
        ((3, 2**14, 2**14), (3, 2**14, 2**14), "u2"),
    ],
)
def test_absurd_shapes_and_chunks_are_refused_without_allocating_them(
    tmp_path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str
) -> None:
    with h5py.File(tmp_path / "bomb.cxi", "w") as file:
        options = {"maxshape": (None, None, None), "compression": "gzip"}
        try:
            dataset = file.create_dataset(CXI_DATA, shape, dtype, chunks=chunks, **options)
        except ValueError:
            pytest.skip("HDF5 itself does not make such a file")
        dataset.id.write_direct_chunk((0, 0, 0), b"\x78\x9c\x03\x00\x00\x00\x00\x01")
    before = _peak_memory_bytes()
    for geometry in (slab_geometry(), None):
        with (
            pytest.raises(
                RunError, match=r"absurdly large|outside the data set|cannot be read|was never written"
            ),
            open_run(tmp_path / "bomb.cxi", geometry) as run,
        ):
            run.read(0, 1)
    assert _peak_memory_bytes() - before < 800 * 2**20


def test_absurd_masks_values_and_lists_are_refused(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi")
    with h5py.File(tmp_path / "run.cxi", "a") as file:
        file.create_dataset("/entry_1/data_1/mask", (2**20, 2**20), "u1", chunks=(1024, 1024))
        file.create_dataset("/energies", (10**12,), "f8", chunks=(1024,))
        file.create_dataset("/entry/definition", (10**12,), "S8", chunks=(1024,))
        file.create_dataset("/entry_1/result_1/nPeaks", (10**12,), "i4", chunks=(1024,))
        file.create_dataset("/entry_1/result_1/peakXPosRaw", (10**12, 2048), "f4", chunks=(1, 2048))
        file.create_dataset("/bad_pixels", (2**20, 2**20), "u1", chunks=(1024, 1024))
    with pytest.raises(RunError, match=r"the mask /entry_1/data_1/mask has an absurd shape"):
        open_run(tmp_path / "run.cxi")
    with pytest.raises(RunError, match=r"no readable peak list.*nPeaks"):
        read_cxi_peaks(tmp_path / "run.cxi")
    with pytest.raises(RunError, match=r"the mask has an absurd shape"):
        read_mask(tmp_path / "run.cxi")


def test_a_run_is_never_read_whole(tmp_path: Path) -> None:
    """400 frames of 2 MB open and stream with far less memory than they would fill."""
    with h5py.File(tmp_path / "long.h5", "w") as file:
        dataset = file.create_dataset(
            "/data/data", (400, 1024, 1024), "u2", chunks=(1, 1024, 1024), compression="lzf"
        )
        for i in range(0, 400, 40):
            dataset[i] = i
    before = _peak_memory_bytes()
    with open_run(tmp_path / "long.h5") as run:
        total = sum(int(frames.max()) for _, frames in run.batches(8))
    assert total == sum(range(0, 400, 40))
    assert _peak_memory_bytes() - before < 200 * 2**20
