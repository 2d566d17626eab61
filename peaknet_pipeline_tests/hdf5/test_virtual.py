"""Virtual data sets followed part by part show what HDF5 shows, at bounded cost."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.chunks import read_chunks
from peaknet_pipeline.hdf5.files import LinkedFiles

SHAPE = (10, 12, 8)


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def frames(tmp_path: Path) -> np.ndarray[Any, Any]:
    """Frames in ``source.h5:/d``, compressed, in chunks that are no frames."""
    values = np.random.default_rng(0).poisson(300, SHAPE).astype("u2")
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file.create_dataset(
            "d", data=values, chunks=(1, 5, 8), maxshape=(None, 12, 8), **hdf5plugin.Bitshuffle()
        )
    return values


def source(name: str = "source.h5", place: str = "/d") -> h5py.VirtualSource:
    return h5py.VirtualSource(name, place, SHAPE, dtype="u2", maxshape=(None, 12, 8))


def whole(layout: Any) -> None:
    layout[:] = source()


def some_frames(layout: Any) -> None:
    layout[3:8] = source()[0:5]


def every_other(layout: Any) -> None:
    layout[::2] = source()[:5]


def chosen(layout: Any) -> None:
    layout[:3] = source()[[1, 4, 9]]


def modules(layout: Any) -> None:
    layout[:, 0], layout[:, 1] = source()[:, 0:6], source()[:, 6:12]


def columns(layout: Any) -> None:
    layout[:, :, :4], layout[:, :, 4:] = source()[:, :, ::2], source()[:, :, 1::2]


def one_frame(layout: Any) -> None:
    layout[:] = source()[4]


def growing(layout: Any) -> None:
    layout[0 : h5py.h5s.UNLIMITED] = source()[0 : h5py.h5s.UNLIMITED]


def over_each_other(layout: Any) -> None:
    layout[:, :, 0:8:4] = source()[:, :, 2:8:4]
    layout[0:10:5] = source()[[3, 4]]


LAYOUTS: dict[str, tuple[Callable[[Any], None], tuple[int, ...], str]] = {
    "whole": (whole, SHAPE, "u2"),
    "some frames": (some_frames, SHAPE, "u2"),
    "every other": (every_other, SHAPE, "u2"),
    "chosen": (chosen, (3, 12, 8), "u2"),
    "modules": (modules, (10, 2, 6, 8), "u2"),
    "columns": (columns, SHAPE, "u2"),
    "one frame": (one_frame, (12, 8), "u2"),
    "growing": (growing, SHAPE, "u2"),
    "over each other": (over_each_other, SHAPE, "u2"),
    "as floats": (whole, SHAPE, "f4"),
    "as too small integers": (whole, SHAPE, "u1"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_boxes_of_a_virtual_data_set_equal_what_hdf5_shows(
    tmp_path: Path, frames: np.ndarray[Any, Any], pool: Executor, name: str
) -> None:
    fill, shape, dtype = LAYOUTS[name]
    layout = h5py.VirtualLayout(shape, dtype, maxshape=(None, *shape[1:]) if name == "growing" else None)
    fill(layout)
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file.create_virtual_dataset("v", layout, fillvalue=7)
        again = h5py.VirtualLayout(shape, dtype)
        again[:] = h5py.VirtualSource(".", "/v", shape, dtype=dtype)
        file.create_virtual_dataset("virtual of it", again)
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "run.h5") as plain, LinkedFiles(tmp_path / "run.h5") as files:
        for place in ("/v", "/virtual of it"):
            expected, data = plain[place][()], files.dataset(place)
            for executor in (None, pool):
                for _ in range(6):
                    ends = [sorted(rng.choice(n + 1, 2, replace=False)) for n in shape]
                    box = tuple(slice(int(a), int(b)) for a, b in ends)
                    np.testing.assert_array_equal(read_chunks(data, box, executor), expected[box])


def test_hdf5_itself_never_reads_a_virtual_data_set(tmp_path: Path, frames: np.ndarray[Any, Any]) -> None:
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = source()
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    with LinkedFiles(tmp_path / "run.h5") as files, pytest.raises(RunError, match="by its parts"):
        _ = files.dataset("/v")[0]
    with h5py.File(tmp_path / "run.h5") as file, pytest.raises(RunError, match="was not checked"):
        read_chunks(file["v"], tuple(slice(0, n) for n in SHAPE), None)


def nested(path: Path, depth: int, *, overlapping: bool) -> None:
    """Virtual data sets, two a level, each of the two below: 2^depth ways to the bottom."""
    with h5py.File(path, "w") as file:
        file["/v0a"] = file["/v0b"] = np.arange(4 * 3 * 5, dtype="u2").reshape(4, 3, 5)
        for level in range(1, depth + 1):
            for name in "ab":
                layout = h5py.VirtualLayout((4, 3, 5), "u2")
                for i, below in enumerate("ab"):
                    place = h5py.VirtualSource(".", f"/v{level - 1}{below}", (4, 3, 5))
                    rows = slice(0, 4) if overlapping else slice(2 * i, 2 * i + 2)
                    layout[rows] = place[rows]
                file.create_virtual_dataset(f"/v{level}{name}", layout)


def test_nested_virtual_data_sets_are_checked_once_each(tmp_path: Path) -> None:
    nested(tmp_path / "run.h5", 15, overlapping=False)
    started = time.process_time()
    with LinkedFiles(tmp_path / "run.h5") as files:
        values = read_chunks(files.dataset("/v15a"), np.s_[0:4, 0:3, 0:5], None)
    assert values.ravel().tolist() == list(range(60))
    assert time.process_time() - started < 1.0


def test_parts_that_lie_over_each_other_without_end_are_refused(tmp_path: Path) -> None:
    nested(tmp_path / "run.h5", 15, overlapping=True)
    started = time.process_time()
    with LinkedFiles(tmp_path / "run.h5") as files:
        data = files.dataset("/v15a")
        with pytest.raises(RunError, match="over each other"):
            read_chunks(data, np.s_[0:4, 0:3, 0:5], None)
    assert time.process_time() - started < 2.0


def test_a_virtual_data_set_that_lies_too_deep_is_refused(tmp_path: Path) -> None:
    nested(tmp_path / "run.h5", 22, overlapping=False)
    with LinkedFiles(tmp_path / "run.h5") as files, pytest.raises(RunError, match="too deep"):
        files.dataset("/v22a")


def test_a_part_beyond_its_source_is_refused(tmp_path: Path, frames: np.ndarray[Any, Any]) -> None:
    layout = h5py.VirtualLayout((20, 12, 8), "u2")
    layout[:] = h5py.VirtualSource("source.h5", "/d", (20, 12, 8))
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    with (
        LinkedFiles(tmp_path / "run.h5") as files,
        pytest.raises(RunError, match="other shapes than its source"),
    ):
        files.dataset("/v")


class Backwards(ThreadPoolExecutor):
    """A pool whose first jobs are its last."""

    def __init__(self) -> None:
        super().__init__(8)
        self._wait_s = 0.2

    def submit(self, *arguments: Any, **named: Any) -> Any:
        """Let each job wait less than the one before."""
        self._wait_s = max(0.0, self._wait_s - 0.02)
        return super().submit(_after, self._wait_s, *arguments)


def _after(seconds: float, job: Callable[..., None], *arguments: Any) -> None:
    time.sleep(seconds)
    job(*arguments)


def test_the_last_part_counts_whatever_the_threads_do(tmp_path: Path, frames: np.ndarray[Any, Any]) -> None:
    layout = h5py.VirtualLayout((1, 12, 8), "u2")
    for n in (2, 5, 7):
        layout[:] = source()[n : n + 1]
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    with LinkedFiles(tmp_path / "run.h5") as files, Backwards() as pool:
        values = read_chunks(files.dataset("/v"), np.s_[0:1, 0:12, 0:8], pool)
    np.testing.assert_array_equal(values[0], frames[7])
