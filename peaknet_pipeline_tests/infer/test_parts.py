"""Parts: what is written is found again, what is damaged or foreign is not; the whole is an uninterrupted stream's file."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.batches import Batches, Stretch
from peaknet_pipeline.infer.found import Found, PeakPixels
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.part_files import part_path, read_part, write_part
from peaknet_pipeline.infer.part_sink import PartSink
from peaknet_pipeline.infer.parts import Parts, open_parts
from peaknet_pipeline.infer.sinks import ParquetSink, TableCollector
from peaknet_pipeline.infer.stream import stream_run
from peaknet_pipeline.types import IntArray
from peaknet_pipeline_tests.infer import killed_stream
from peaknet_pipeline_tests.infer.fakes import ArrayRun, one_peak_per_frame

N_FRAMES = 30
FRAMES = np.arange(N_FRAMES, dtype=np.int32)[:, None, None, None] * np.ones((1, 2, 3, 4), dtype=np.int32)


def found_in(span: Stretch) -> Found:
    return Found(one_peak_per_frame(FRAMES[slice(*span)], span[0]))


def interrupted(folder: Path, spans: list[Stretch], *, recipe: str = "abc") -> Path:
    """Write some parts as a stream that ended in an error; return where they lie."""
    with pytest.raises(KeyError), open_parts(folder, recipe=recipe, n_frames=N_FRAMES) as parts:
        for span in spans:
            write_part(parts.folder, span, found_in(span))
        raise KeyError
    return parts.folder


@given(
    cuts=st.lists(st.integers(0, 40), max_size=8).map(sorted).filter(lambda cuts: len(cuts) % 2 == 0),
    size=st.integers(1, 9),
)
def test_batches_cover_every_frame_of_their_stretches_once(cuts: list[int], size: int) -> None:
    stretches = list(zip(cuts[::2], cuts[1::2], strict=True))
    batches = Batches(stretches, size, n_frames=40)
    assert [f for span in batches for f in range(*span)] == [f for span in stretches for f in range(*span)]
    assert all(0 < stop - first <= size for first, stop in batches)
    assert batches.n_frames == sum(stop - first for first, stop in batches)
    with pytest.raises(IndexError):
        batches[len(batches)]


def test_written_parts_are_found_again(tmp_path: Path) -> None:
    interrupted(tmp_path / "work", [(8, 12), (0, 4), (12, 13)])
    with open_parts(tmp_path / "work", recipe="abc", n_frames=N_FRAMES) as parts:
        assert parts.written == [(0, 4), (8, 12), (12, 13)]
        assert parts.missing == [(4, 8), (13, 30)]
        assert parts.n_written == 9
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_recipe_are_thrown_away(tmp_path: Path) -> None:
    old = interrupted(tmp_path / "work", [(0, 4)])
    with open_parts(tmp_path / "work", recipe="xyz", n_frames=N_FRAMES) as parts:
        assert parts.missing == [(0, N_FRAMES)]
        assert not old.exists()


def test_damaged_and_overlapping_parts_are_made_again(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "work", [(0, 4), (4, 8), (6, 10), (10, 12)])
    whole = part_path(folder, (0, 4)).read_bytes()
    part_path(folder, (0, 4)).write_bytes(whole[: len(whole) // 2])
    (folder / ".000000012-000000016.parquet.x.tmp").write_bytes(b"half")
    with open_parts(tmp_path / "work", recipe="abc", n_frames=N_FRAMES) as parts:
        assert parts.written == [(4, 8), (10, 12)]
        assert not list(folder.glob(".*.tmp"))


def test_two_processes_do_not_find_the_same_peaks(tmp_path: Path) -> None:
    with (
        open_parts(tmp_path / "work", recipe="abc", n_frames=N_FRAMES),
        pytest.raises(StreamError, match=r"another process is finding these peaks.*Wait for it"),
        open_parts(tmp_path / "work", recipe="abc", n_frames=N_FRAMES),
    ):
        pass


def test_a_process_killed_while_it_removes_its_parts_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the files would pass for what an unfinished stream has found."""

    def killed(folder: Path) -> None:
        next(folder.rglob("*.parquet")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        with open_parts(tmp_path / "work", recipe="abc", n_frames=N_FRAMES) as parts:
            for span in ((0, 4), (4, 8)):
                write_part(parts.folder, span, found_in(span))
    (left,) = tmp_path.iterdir()
    left.rename(left.with_name(re.sub(r"-\d+\.", "-4194305.", left.name)))  # a process that is no more
    with open_parts(tmp_path / "work", recipe="abc", n_frames=N_FRAMES) as parts:
        assert parts.written == []
    assert list(tmp_path.iterdir()) == []


def test_missing_frames_are_not_joined(tmp_path: Path) -> None:
    with (
        pytest.raises(StreamError, match=r"frames are missing.*\(4, 30\)"),
        open_parts(tmp_path / "work", recipe="abc", n_frames=N_FRAMES) as parts,
    ):
        write_part(parts.folder, (0, 4), found_in((0, 4)))
        parts.written.append((0, 4))
        parts.join([TableCollector()])


@settings(max_examples=20, deadline=None)
@given(part_s=st.sampled_from([0.0, 0.002, 60.0]), seed=st.integers(0, 99))
def test_parts_give_the_file_of_a_stream_without_them(
    tmp_path_factory: pytest.TempPathFactory, part_s: float, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    gaps = np.random.default_rng(seed).choice(N_FRAMES // 2, 2, replace=False) * 2
    interrupted(folder / "work", [(int(first), int(first) + 2) for first in gaps])
    with open_parts(folder / "work", recipe="abc", n_frames=N_FRAMES) as parts:
        sinks = [PartSink(parts, part_s=part_s)]
        params = StreamParams(batch_frames=3)
        _, report = stream_run(
            lambda: ArrayRun(FRAMES), one_peak_per_frame, params=params, sinks=sinks, stretches=parts.missing
        )
        assert report.frames == N_FRAMES - 4
        parts.join([ParquetSink(folder / "joined.parquet", extra={"run": "r1"})])
    sink = ParquetSink(folder / "streamed.parquet", extra={"run": "r1"})
    stream_run(lambda: ArrayRun(FRAMES), one_peak_per_frame, sinks=[sink])
    assert (folder / "joined.parquet").read_bytes() == (folder / "streamed.parquet").read_bytes()


def test_a_part_keeps_what_came_before_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError),
        open_parts(tmp_path / "work", recipe="abc", n_frames=N_FRAMES) as parts,
        PartSink(parts) as sink,
    ):
        for span in ((0, 3), (3, 6), (6, 8)):
            sink.write(found_in(span), np.arange(*span))
        raise KeyError
    assert Parts(parts.folder, N_FRAMES).written == [(0, 8)]
    assert read_part(parts.folder, (0, 8)).peaks.equals(found_in((0, 8)).peaks)


def test_an_interrupt_in_the_middle_of_a_batch_gives_its_part_up_and_is_told_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted_write(self: ParquetSink, found: Found, numbers: IntArray) -> None:
        raise SystemExit(143)

    with (
        pytest.raises(SystemExit),
        open_parts(tmp_path / "work", recipe="abc", n_frames=N_FRAMES) as parts,
        PartSink(parts, part_s=0.0) as sink,
    ):
        sink.write(found_in((0, 3)), np.arange(0, 3))
        monkeypatch.setattr(ParquetSink, "write", interrupted_write)
        sink.write(found_in((3, 6)), np.arange(3, 6))
    assert Parts(parts.folder, N_FRAMES).written == [(0, 3)]
    assert [path.name for path in parts.folder.iterdir()] == ["000000000-000000003.parquet"]


def test_pixels_of_many_batches_are_those_of_one(tmp_path: Path) -> None:
    masks = np.random.default_rng(3).random((7, 2, 5, 6)) < 0.2
    whole = PeakPixels.from_masks(masks)
    joined = PeakPixels.join([PeakPixels.from_masks(masks[a:b]) for a, b in ((0, 3), (3, 3), (3, 7))])
    assert joined.shape == whole.shape
    np.testing.assert_array_equal(joined.starts, whole.starts)
    np.testing.assert_array_equal(joined.index, whole.index)


@pytest.mark.parametrize("batch_frames", [2, 5])
def test_a_killed_process_goes_on_from_what_it_has_written(tmp_path: Path, batch_frames: int) -> None:
    """SIGKILL in the middle; the second process, with batches of another size too, computes only what no part holds."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", killed_stream.__name__, "local", str(killed), "0.05", "2"]
    killed.mkdir()
    whole.mkdir()
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 60
        while len(list(killed.glob("work/*/[0-9]*.parquet"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -9
    kept = [range(*map(int, path.stem.split("-"))) for path in killed.glob("work/*/[0-9]*.parquet")]
    n_kept = sum(len(span) for span in kept)
    assert 6 <= n_kept < killed_stream.N_FRAMES
    assert not (killed / "peaks.parquet").exists()
    (killed / "notes").unlink()
    killed_stream.stream("local", killed, 0.0, batch_frames)
    missing = set(range(killed_stream.N_FRAMES)).difference(*kept)
    assert killed_stream.noted_frames(killed / "notes") == sorted(missing)
    killed_stream.stream("local", whole, 0.0, 8)
    assert (killed / "peaks.parquet").read_bytes() == (whole / "peaks.parquet").read_bytes()
    assert not (killed / "work").exists()
