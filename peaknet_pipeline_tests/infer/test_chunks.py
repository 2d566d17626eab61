"""Reading around the HDF5 library's lock gives what the library gives, and damage is an error, never a crash."""

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.infer.chunks import open_parallel
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.stream import stream_run
from peaknet_pipeline.runs.calibrate import CalibrationParams, make_calibration
from peaknet_pipeline.runs.calibrated import CalibratedRun
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.types import FrameArray
from peaknet_pipeline_tests.infer.fakes import one_peak_per_frame

FILTERS = {
    "bitshuffle": {**hdf5plugin.Bitshuffle(cname="lz4")},
    "gzip": {"compression": "gzip"},
    "gzip and shuffle": {"compression": "gzip", "shuffle": True},
    "none": {},
}


def frames_of(dtype: str, shape: tuple[int, ...] = (7, 37, 45)) -> FrameArray:
    values = np.random.default_rng(5).poisson(20.0, shape)
    values[:, 0, 0] = np.arange(shape[0])
    return values.astype(dtype)


def write(path: Path, frames: FrameArray, chunks: tuple[int, ...] | None = None, **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "/entry_1/data_1/data", data=frames, chunks=chunks or (1, *frames.shape[1:]), **options
        )
    return path


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "uint8"])
def test_direct_reading_equals_the_library(tmp_path: Path, name: str, dtype: str) -> None:
    frames = frames_of(dtype)
    path = write(tmp_path / "run.h5", frames, **FILTERS[name])
    with open_parallel(open_run(path)) as run:
        assert run.is_direct
        np.testing.assert_array_equal(run.read(2, 6)[:, 0], frames[2:6])
        assert run.read(2, 6).dtype == frames.dtype
        assert run.read(3, 3).shape == (0, 1, 37, 45)


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (2, 37, 45), "compression": "gzip"},
        {"chunks": (1, 20, 45)},
        {"compression": "lzf"},
        {**hdf5plugin.Bitshuffle(cname="zstd")},
        {**hdf5plugin.Bitshuffle(cname="none")},
        {"compression": "gzip", "fletcher32": True},
    ],
)
def test_other_layouts_go_through_the_library(tmp_path: Path, options: dict[str, object]) -> None:
    frames = frames_of("uint16")
    path = write(tmp_path / "run.h5", frames, **options)  # type: ignore[arg-type]
    with open_parallel(open_run(path)) as run:
        assert not run.is_direct
        np.testing.assert_array_equal(run.read(1, 7)[:, 0], frames[1:])


def test_frames_outside_the_run_are_refused(tmp_path: Path) -> None:
    with (
        open_parallel(open_run(write(tmp_path / "run.h5", frames_of("uint16")))) as run,
        pytest.raises(RunError),
    ):
        run.read(5, 8)


@pytest.mark.parametrize("name", ["bitshuffle", "gzip", "gzip and shuffle"])
def test_damaged_chunks_are_errors_that_name_the_frame(tmp_path: Path, name: str) -> None:
    """Flip bytes all over the stored chunks: right or refused, and some of it refused."""
    frames = frames_of("uint16")
    path = write(tmp_path / "run.h5", frames, **FILTERS[name])
    with h5py.File(path) as file:
        info = file["/entry_1/data_1/data"].id.get_chunk_info(3)
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    refused: list[str] = []
    for place in [*range(0, 24), *rng.integers(24, info.size, 40)]:
        hurt = bytearray(whole)
        hurt[info.byte_offset + int(place)] ^= int(rng.integers(1, 256))
        path.write_bytes(hurt)
        with open_parallel(open_run(path)) as run:
            assert run.is_direct
            try:
                assert run.read(0, 7).shape == (7, 1, 37, 45)
            except RunError as error:
                refused.append(str(error))
    assert len(refused) > 5
    assert all("frame 3 cannot be read" in message for message in refused)


def test_a_truncated_chunk_is_an_error(tmp_path: Path) -> None:
    frames = frames_of("uint16")
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "/entry_1/data_1/data",
            frames.shape,
            "u2",
            chunks=(1, 37, 45),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        data[...] = frames
        _, raw = data.id.read_direct_chunk((2, 0, 0))
        data.id.write_direct_chunk((2, 0, 0), raw[: len(raw) // 2])
    with open_parallel(open_run(path)) as run, pytest.raises(RunError, match="frame 2 cannot be read"):
        run.read(0, 7)


def test_missing_chunks_are_left_to_the_library(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        data = file.create_dataset("/entry_1/data_1/data", (4, 8, 9), "u2", chunks=(1, 8, 9), fillvalue=7)
        data[1] = 3
    with open_parallel(open_run(tmp_path / "run.h5")) as run:
        assert run.read(0, 4)[:, 0, 0, 0].tolist() == [7, 3, 7, 7]


def test_linked_data_files_are_read_through_their_master(tmp_path: Path) -> None:
    frames = frames_of("uint16")
    for number, part in ((1, frames[:3]), (2, frames[3:])):
        with h5py.File(tmp_path / f"data_{number:06d}.h5", "w") as file:
            file.create_dataset("/data", data=part, chunks=(1, 37, 45), **FILTERS["bitshuffle"])
    with h5py.File(tmp_path / "master.h5", "w") as file:
        for number in (1, 2):
            file[f"/entry/data/data_{number:06d}"] = h5py.ExternalLink(f"data_{number:06d}.h5", "/data")
    with open_parallel(open_run(tmp_path / "master.h5")) as run:
        assert run.is_direct
        np.testing.assert_array_equal(run.read(1, 6)[:, 0], frames[1:6])


def test_many_readers_of_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "run.h5", frames_of("int32", (60, 37, 45)), **FILTERS["bitshuffle"])
    params = StreamParams(batch_frames=3, readers=4)
    table, _ = stream_run(lambda: open_parallel(open_run(path)), one_peak_per_frame, params=params)
    np.testing.assert_array_equal(table["intensity"], np.arange(60))


def test_a_run_that_is_calibrated_while_it_is_read_stays_so(tmp_path: Path) -> None:
    frames = frames_of("uint16", (4, 12, 16))
    constants = np.full((3, 1, 12, 16), 2.0)
    with open_run(write(tmp_path / "run.h5", frames)) as raw:
        calibrated = CalibratedRun(
            raw, make_calibration(np.zeros_like(constants), constants), CalibrationParams(common_mode="none")
        )
        reader = open_parallel(calibrated)
        assert not reader.is_direct
        np.testing.assert_allclose(reader.read(1, 3)[:, 0], frames[1:3] / 2.0)
