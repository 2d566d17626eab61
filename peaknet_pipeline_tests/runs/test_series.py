"""Numbered links of a master file are one run, whatever their names are; where some are missing, the reader is told."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline_tests.runs.files import CXI_DATA, random_stack, write_slab_run

HEIGHT, WIDTH = 6, 8
Write = Callable[..., Path]


@pytest.fixture
def frames() -> np.ndarray:
    """Return nine frames, (9, ss, fs)."""
    return random_stack(9, seed=3)[:, 0]


def write_links(
    folder: Path,
    frames: np.ndarray,
    names: Sequence[str],
    *,
    missing: Sequence[int] = (),
    empty: Sequence[int] = (),
    entry: str = "entry",
) -> Path:
    """Write a master whose links, three frames each, lead to files of their own; some missing, some without frames."""
    with h5py.File(folder / "run.h5", "w") as master:
        for k, name in enumerate(names):
            if k not in missing:
                own = frames[3 * k : 3 * k + (0 if k in empty else 3)]
                with h5py.File(folder / f"part{k}.h5", "w") as file:
                    file.create_dataset(
                        "entry/data/data",
                        data=own,
                        maxshape=(None, *own.shape[1:]),
                        chunks=(1, *own.shape[1:]),
                    )
            master[f"{entry}/data/{name}"] = h5py.ExternalLink(f"part{k}.h5", "entry/data/data")
    return folder / "run.h5"


@pytest.mark.parametrize("pattern", ["data_{:06d}", "data_{:04d}", "lyso_1_{:06d}", "data{}", "{}_scan"])
@pytest.mark.parametrize("first", [1, 2, 9])
def test_links_are_one_run_in_the_order_of_their_numbers(
    tmp_path: Path, frames: np.ndarray, pattern: str, first: int
) -> None:
    path = write_links(tmp_path, frames, [pattern.format(first + k) for k in range(3)])
    with open_run(path) as run:
        assert np.array_equal(run.read(0, run.n_frames)[:, 0], frames)
        assert not run.doubts


@pytest.mark.parametrize("entry", ["entry_0000", "entry_1"])
def test_the_entry_may_have_another_name(tmp_path: Path, frames: np.ndarray, entry: str) -> None:
    path = write_links(tmp_path, frames, [f"data_{k:06d}" for k in range(3)], entry=entry)
    with open_run(path) as run:
        assert np.array_equal(run.read(0, run.n_frames)[:, 0], frames)


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_an_aborted_run_is_read_up_to_what_is_missing(tmp_path: Path, frames: np.ndarray, kind: str) -> None:
    names = ["data_000001", "data_000002", "data_000003"]
    with open_run(write_links(tmp_path, frames, names, **{kind: [1, 2]})) as run:
        assert np.array_equal(run.read(0, run.n_frames)[:, 0], frames[:3])
        assert len(run.doubts) == 1
        assert "ends after 1 of 3 data sets; without frames are data_000002, data_000003" in run.doubts[0]


def test_a_virtual_data_set_of_a_stopped_run_gives_way_to_its_numbered_sources(
    tmp_path: Path, frames: np.ndarray
) -> None:
    path = write_links(tmp_path, frames, ["data_000001", "data_000002", "data_000003"], missing=[2])
    layout = h5py.VirtualLayout(frames.shape, frames.dtype)
    for k in range(3):
        layout[3 * k : 3 * k + 3] = h5py.VirtualSource(
            f"part{k}.h5", "entry/data/data", (3, *frames.shape[1:])
        )
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("entry/data/data", layout)
    with open_run(path) as run:
        assert np.array_equal(run.read(0, run.n_frames)[:, 0], frames[:6])
        assert "ends after 2 of 3 data sets" in run.doubts[0]
    with h5py.File(path, "a") as file:
        for k in range(3):
            del file[f"entry/data/data_00000{k + 1}"]
    with pytest.raises(RunError, match=r"a linked file is missing, found part2\.h5"):
        open_run(path)


@pytest.mark.parametrize("kind", ["missing", "empty"])
@pytest.mark.parametrize("gap", [0, 1])
def test_frames_missing_before_the_end_are_refused(
    tmp_path: Path, frames: np.ndarray, kind: str, gap: int
) -> None:
    names = ["data_000001", "data_000002", "data_000003"]
    path = write_links(tmp_path, frames, names, **{kind: [gap]})
    with pytest.raises(RunError, match=f"frames are missing in the middle: /entry/data/{names[gap]}"):
        open_run(path)


def test_a_run_without_any_of_its_files_names_the_first(tmp_path: Path, frames: np.ndarray) -> None:
    path = write_links(tmp_path, frames, ["data_000001", "data_000002"], missing=[0, 1])
    with pytest.raises(RunError, match=r"a linked file is missing, found part0\.h5"):
        open_run(path)


def test_a_number_that_no_link_bears_is_refused(tmp_path: Path, frames: np.ndarray) -> None:
    path = write_links(tmp_path, frames, ["data_000001", "data_000002", "data_000004"])
    with pytest.raises(
        RunError, match="numbered data sets have a gap, expected one numbered 3 after data_000002"
    ):
        open_run(path)


def test_energies_of_the_frames_that_were_planned_are_cut_with_the_run(
    tmp_path: Path, frames: np.ndarray
) -> None:
    path = write_links(tmp_path, frames, ["data_000001", "data_000002"], missing=[1])
    with h5py.File(path, "a") as file:
        file["entry/instrument/beam/incident_energy"] = 9000.0 + np.arange(6)
        file["entry/instrument/beam/incident_energy"].attrs["units"] = "eV"
    with open_run(path) as run:
        np.testing.assert_allclose(run.photon_energy_ev, [9000, 9001, 9002])


def test_a_master_that_planned_more_frames_is_doubted(tmp_path: Path, frames: np.ndarray) -> None:
    path = write_links(tmp_path, frames, ["data_000001", "data_000002", "data_000003"])
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector/detectorSpecific/nimages"] = 5
        file["entry/instrument/detector/detectorSpecific/ntrigger"] = 4
    with open_run(path) as run:
        assert "The master planned 20 frames; 9 are there." in run.doubts


def test_frames_whose_chunks_were_never_written_end_the_run(tmp_path: Path, frames: np.ndarray) -> None:
    with h5py.File(tmp_path / "run.cxi", "w") as file:
        data = file.create_dataset(CXI_DATA, (20, *frames.shape[1:]), frames.dtype, chunks=(1, 3, WIDTH))
        data[:4] = frames[:4]
        data[5, :3] = frames[5, :3]
        file["/LCLS/photon_energy_eV"] = 9000.0 + np.arange(20)
    with open_run(tmp_path / "run.cxi") as run:
        assert run.n_frames == 6
        assert np.array_equal(run.read(0, 4)[:, 0], frames[:4])
        np.testing.assert_allclose(run.photon_energy_ev, 9000.0 + np.arange(6))
        assert run.doubts[0].startswith("1 frames before the last were never written")
        assert run.doubts[1] == "The last 14 of 20 frames were never written: the run ends before them."
        write_cxi_peaks(tmp_path / "peaks.cxi", empty_table(PEAKS), run)
    with open_run(tmp_path / "peaks.cxi") as copy:
        assert copy.n_frames == 6


def test_images_of_one_frame_each_are_one_run(tmp_path: Path, frames: np.ndarray) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        for k, frame in enumerate(frames):
            file[f"images/shot_{5 * k * k}"] = frame  # numbers with gaps, as shots have that are no hits
    with open_run(tmp_path / "run.h5") as run:
        assert np.array_equal(run.read(0, run.n_frames)[:, 0], frames)


def test_a_data_set_of_another_shape_is_no_part_of_the_run(tmp_path: Path, frames: np.ndarray) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["detectors/image_1"] = frames
        file["detectors/image_2"] = frames[:, :3]
    with open_run(tmp_path / "run.h5") as run:
        assert np.array_equal(run.read(0, run.n_frames)[:, 0], frames)


def test_a_data_set_that_was_named_is_read_alone(tmp_path: Path, frames: np.ndarray) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["detectors/image_1"] = frames
        file["detectors/image_2"] = frames[::-1]
    with open_run(tmp_path / "run.h5", data_path="/detectors/image_1") as run:
        assert np.array_equal(run.read(0, run.n_frames)[:, 0], frames)


@pytest.mark.parametrize("other", ["entry_2/data_1", "entry_1/data_2", "entry_1/instrument_1/detector_2"])
def test_frames_of_a_second_cxi_entry_are_named(tmp_path: Path, other: str) -> None:
    stack = write_slab_run(tmp_path / "run.cxi")
    with h5py.File(tmp_path / "run.cxi", "a") as file:
        file["entry_1/instrument_1/detector_1/data"] = h5py.SoftLink("/entry_1/data_1/data")
        file[f"{other}/data"] = stack[:2, 0]
    with open_run(tmp_path / "run.cxi") as run:
        assert run.n_frames == len(stack)
        assert [doubt for doubt in run.doubts if f"/{other}/data (2, 6, 8)" in doubt] == list(run.doubts)
        assert len(run.doubts) == 1
