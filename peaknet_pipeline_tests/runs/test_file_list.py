"""A list of files, with or without events, is a run like any other."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.runs.file_list import read_file_list
from peaknet_pipeline.runs.inspect import inspect_path
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.types import Geometry
from peaknet_pipeline_tests.runs.files import CXI_DATA, WIDTH, random_stack, slab_geometry, write_slab_run


@pytest.fixture
def frames(tmp_path: Path) -> dict[str, np.ndarray]:
    """Write two runs of 4 and 3 frames; return their frames by name."""
    (tmp_path / "proc").mkdir()
    return {
        "a.h5": write_slab_run(tmp_path / "proc" / "a.h5", 4),
        "b.h5": write_slab_run(tmp_path / "proc" / "b.h5", 3),
    }


def write_list(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "hits.lst").write_bytes(text.encode(encoding))
    return folder / "hits.lst"


def read(path: Path, geometry: Geometry | None = None) -> np.ndarray:
    with open_run(path, geometry or slab_geometry()) as run:
        return run.read(0, run.n_frames)


def test_lines_without_events_stand_for_whole_files(tmp_path: Path, frames: dict[str, np.ndarray]) -> None:
    path = write_list(tmp_path, f"proc/b.h5\n{tmp_path}/proc/a.h5\n")
    assert np.array_equal(read(path), np.concatenate([frames["b.h5"], frames["a.h5"]]))


def test_events_choose_frames_in_the_order_of_the_lines(
    tmp_path: Path, frames: dict[str, np.ndarray]
) -> None:
    path = write_list(tmp_path, "proc/a.h5 //3\nproc/a.h5 //1\nproc/b.h5\t//2\n\nproc/a.h5 //0\n")
    a, b = frames["a.h5"], frames["b.h5"]
    with open_run(path, slab_geometry()) as run:
        assert run.info.file_format == "list"
        assert np.array_equal(run.read(0, 4), [a[3], a[1], b[2], a[0]])
        assert np.array_equal(run.read(2, 3), [b[2]])
        places = [run.event(k) for k in range(4)]
    assert [(file.name, event) for file, event in places] == [
        ("a.h5", "//3"),
        ("a.h5", "//1"),
        ("b.h5", "//2"),
        ("a.h5", "//0"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_line_ends_and_blanks_of_editors_do_no_harm(
    tmp_path: Path, frames: dict[str, np.ndarray], encoding: str
) -> None:
    path = write_list(tmp_path, "  proc/a.h5   //2  \r\n\r\nproc/b.h5", encoding)
    assert np.array_equal(read(path), np.concatenate([frames["a.h5"][2:3], frames["b.h5"]]))


def test_names_with_blanks_are_names(tmp_path: Path, frames: dict[str, np.ndarray]) -> None:
    (tmp_path / "proc" / "a.h5").rename(tmp_path / "my run.h5")
    path = write_list(tmp_path, "my run.h5 //1\nmy run.h5\n")
    a = frames["a.h5"]
    assert np.array_equal(read(path), np.concatenate([a[1:2], a]))


def test_events_name_the_groups_of_a_file_with_placeholders(tmp_path: Path) -> None:
    stack = random_stack(5)
    with h5py.File(tmp_path / "sacla.h5", "w") as file:
        for k, frame in enumerate(stack):
            file[f"tag-{k}/data"] = frame.reshape(-1, WIDTH)
            file[f"tag-{k}/energy"] = 9000.0 + k
    text = slab_geometry(dims="dim0 = ss\ndim1 = fs\n").text.replace(CXI_DATA, "/%/data")
    geometry = parse_geometry(text.replace("= 9500 eV", "= /%/energy eV"))
    path = write_list(tmp_path, "sacla.h5 tag-4//\nsacla.h5 tag-1//\n")
    with open_run(path, geometry) as run:
        assert np.array_equal(run.read(0, 2), stack[[4, 1]])
        np.testing.assert_allclose(run.photon_energy_ev, [9004, 9001])
        assert [run.event(k)[1] for k in range(2)] == ["tag-4//", "tag-1//"]
    write_list(tmp_path, "sacla.h5 tag-9//\n")
    with pytest.raises(RunError, match=r"hits.lst, line 1: no such event, .*tag-0//.*, found tag-9//"):
        open_run(path, geometry)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the list names no files"),
        (
            "proc/a.h5\nproc/c.h5 //1\nd.h5\n",
            r"listed files are missing, .* found line 2: proc/c.h5 and 1 more",
        ),
        ("proc/a.h5 //1\nproc/a.h5 //4\n", r"hits.lst, line 2: no such frame, expected //0 … //3, found //4"),
        ("proc/a.h5 //\n", r"line 1: no such frame"),
        ("proc/a.h5 //1/2\n", r"line 1: no such frame"),
        ("proc/a.h5 //-1\n", r"line 1: no such frame"),
        ("proc/a.h5 tag//1\n", r"line 1: no such event"),
        ("proc/a.h5\0", "not a text file"),
    ],
)
def test_a_line_that_cannot_be_read_is_told(
    tmp_path: Path, frames: dict[str, np.ndarray], text: str, words: str
) -> None:
    with pytest.raises(RunError, match=words):
        open_run(write_list(tmp_path, text), slab_geometry())


def test_a_list_is_confined_where_its_run_is(tmp_path: Path, frames: dict[str, np.ndarray]) -> None:
    (tmp_path / "raw").mkdir()
    path = write_list(tmp_path / "raw", "../proc/a.h5\n")
    assert len(read(path)) == 4
    with pytest.raises(RunError, match="allowed folders"):
        open_run(path, slab_geometry(), root=tmp_path / "raw")
    with open_run(path, slab_geometry(), root=tmp_path / "raw", more_roots=[tmp_path / "proc"]) as run:
        assert run.n_frames == 4


def test_a_list_is_inspected(tmp_path: Path, frames: dict[str, np.ndarray]) -> None:
    report = inspect_path(write_list(tmp_path, "proc/a.h5 //2\nproc/b.h5\n"), slab_geometry())
    assert (report.kind, report.facts["frames"], report.problems) == ("list", 4, [])
    assert not inspect_path(write_list(tmp_path, "gone.h5\n")).is_usable


def test_lines_are_numbered_as_an_editor_numbers_them(tmp_path: Path, frames: dict[str, np.ndarray]) -> None:
    lines = read_file_list(write_list(tmp_path, "\nproc/a.h5\n\nproc/b.h5 //2\n"))
    assert [(line.number, line.file.name, line.event) for line in lines] == [
        (2, "a.h5", None),
        (4, "b.h5", "//2"),
    ]
