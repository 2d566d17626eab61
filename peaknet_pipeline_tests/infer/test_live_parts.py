"""What a live stream found is on disk in parts, with the frames' own numbers; the next one goes on from them."""

import dataclasses
import os
import resource
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from peaknet_pipeline.errors import PeaknetError, StreamError
from peaknet_pipeline.infer.arrivals import Arrival, FileFacts, Patience
from peaknet_pipeline.infer.found import Found, PeakPixels, RawImages
from peaknet_pipeline.infer.frame_numbers import FrameNumbers
from peaknet_pipeline.infer.live import live_stream
from peaknet_pipeline.infer.live_figures import LiveStatistics
from peaknet_pipeline.infer.live_parts import (
    ArrivalSink,
    FileNumbers,
    image_type,
    read_facts,
    taken_numbers,
    write_facts,
)
from peaknet_pipeline.infer.live_sources import follow_file, follow_folder
from peaknet_pipeline.infer.part_files import read_part
from peaknet_pipeline.infer.parts import Parts, open_parts
from peaknet_pipeline.infer.sinks import TableCollector
from peaknet_pipeline.types import FrameArray
from peaknet_pipeline_tests.infer.fakes import one_peak_per_frame

QUICK = Patience(poll_s=0.01, idle_s=0.3)


def frames_of(numbers: list[int], dtype: str = "i4") -> FrameArray:
    return np.array(numbers, dtype)[:, None, None, None] * np.ones((1, 1, 6, 5), dtype)


def found_in(numbers: list[int], dtype: str = "i4") -> Found:
    frames = frames_of(numbers, dtype)
    peaks = one_peak_per_frame(frames, 0).assign(frame=np.array(numbers, np.int32))
    pixels = PeakPixels.from_masks(frames % 2 == 1)
    return Found(peaks, pixels, images=RawImages.in_memory(frames, np.array(numbers)))


def test_frames_in_any_order_come_back_with_their_numbers_pixels_and_images(tmp_path: Path) -> None:
    batches = ([5, 3], [9], [4, 8, 0])
    with pytest.raises(KeyError), open_parts(tmp_path / "work", recipe="a", n_frames=None) as parts:
        with ArrivalSink(parts, part_s=60.0) as sink:
            for numbers in batches:
                sink.write(found_in(numbers), np.array(numbers))
        raise KeyError  # what follows is another process's
    with open_parts(tmp_path / "work", recipe="a", n_frames=None) as parts:
        assert (parts.written, parts.end, parts.missing) == ([(0, 6)], 6, [])
        taken = taken_numbers(parts)
        assert [number for number in range(12) if number in taken] == [0, 3, 4, 5, 8, 9]
        with ArrivalSink(parts) as sink:
            sink.write(found_in([1, 2]), np.array([1, 2]))
        assert parts.written == [(0, 6), (6, 8)]
        whole = read_part(parts.folder, (0, 6))
        assert list(whole.peaks["intensity"]) == [5, 3, 9, 4, 8, 0]
        assert whole.images is not None
        assert whole.pixels is not None
        np.testing.assert_array_equal(whole.images.numbers, [5, 3, 9, 4, 8, 0])
        np.testing.assert_array_equal(whole.images.read(1, 4), frames_of([3, 9, 4]))
        assert [int(whole.pixels.mask(i).max()) for i in range(6)] == [1, 1, 1, 0, 0, 0]
        assert image_type(parts) == np.int32
        collector = TableCollector()
        parts.join([collector])
        assert list(collector.table()["frame"]) == [5, 3, 9, 4, 8, 0, 1, 2]
    assert list(tmp_path.iterdir()) == []


def test_images_of_two_types_go_to_two_parts_and_a_type_that_holds_both(tmp_path: Path) -> None:
    with open_parts(tmp_path / "work", recipe="a", n_frames=None) as parts:
        with ArrivalSink(parts, part_s=60.0) as sink:
            sink.write(found_in([0, 1], "u2"), np.array([0, 1]))
            sink.write(found_in([2], "f4"), np.array([2]))
        assert parts.written == [(0, 2), (2, 3)]
        assert image_type(parts) == np.float32


def test_a_part_is_closed_when_it_is_old_though_no_frame_comes(tmp_path: Path) -> None:
    with (
        open_parts(tmp_path / "work", recipe="a", n_frames=None) as parts,
        ArrivalSink(parts, part_s=0.05) as sink,
    ):
        sink.write(found_in([7]), np.array([7]))
        sink.close_full()
        assert parts.written == []
        time.sleep(0.06)
        sink.close_full()
        assert parts.written == [(0, 1)]
        assert Parts(parts.folder, None).written == [(0, 1)]


def test_a_stream_with_other_settings_does_not_throw_parts_away(tmp_path: Path) -> None:
    with pytest.raises(KeyError), open_parts(tmp_path / "work", recipe="a", n_frames=None) as parts:
        with ArrivalSink(parts) as sink:
            sink.write(found_in([7]), np.array([7]))
        raise KeyError
    with (
        pytest.raises(StreamError, match=r"other settings left what it found.*Repeat that command"),
        open_parts(tmp_path / "work", recipe="b", n_frames=None, keep_others=True),
    ):
        pass
    with open_parts(tmp_path / "work", recipe="a", n_frames=None, keep_others=True) as parts:
        assert parts.end == 1


def test_a_stream_that_found_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), open_parts(tmp_path / "work", recipe="a", n_frames=None):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_error_and_keeps_the_parts_before(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 2**30, (4, 1, 6, 5))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(numbers: list[int]) -> None:
        images = RawImages.in_memory(noise[: len(numbers)], np.array(numbers))
        sink.write(dataclasses.replace(found_in(numbers), images=images), np.array(numbers))

    with pytest.raises(StreamError, match=r"cannot be written, found File too large\. .*Make room"):  # noqa: SIM117
        with open_parts(tmp_path / "work", recipe="a", n_frames=None) as parts:
            with ArrivalSink(parts, part_s=0.0) as sink:
                full([3, 1])
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
                try:
                    full([4, 5])
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    with open_parts(tmp_path / "work", recipe="a", n_frames=None) as parts:
        assert parts.written == [(0, 2)]
        assert not [path for path in parts.folder.iterdir() if path.name.startswith((".", "open"))]


def test_facts_are_kept(tmp_path: Path) -> None:
    assert read_facts(tmp_path) is None
    mask = np.arange(30).reshape(1, 6, 5) % 7 == 0
    flags = (-100.0, None, 32767.0)
    for facts in (FileFacts(mask, 9500.0, flags, -0.42), FileFacts(None, None)):
        write_facts(tmp_path, facts)
        kept = read_facts(tmp_path)
        assert kept is not None
        assert (kept.photon_energy_ev, kept.clen_m) == (facts.photon_energy_ev, facts.clen_m)
        assert kept.flags == facts.flags
        np.testing.assert_array_equal(kept.bad_pixels, facts.bad_pixels)  # type: ignore[arg-type]


def write_run(path: Path, values: list[int], **options: object) -> None:
    data = frames_of(values)[:, 0]
    with h5py.File(path, "w") as file:
        file.create_dataset("/entry_1/data_1/data", data=data, chunks=(1, 6, 5), **options)


def damage(path: Path, name: str, frame: int) -> None:
    with h5py.File(path, "r+") as file:
        file[name].id.write_direct_chunk((frame, 0, 0), b"\0" * 7)


def seen_in(arrivals: list[Arrival]) -> dict[int, int]:
    """Return each frame's number and value; none comes twice."""
    pairs = [(int(n), int(f.max())) for a in arrivals for n, f in zip(a.numbers, a.frames, strict=True)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_a_folder_goes_on_after_files_and_frames_that_cannot_be_used(tmp_path: Path) -> None:
    write_run(tmp_path / "a.h5", [10, 11])
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["note"] = "no frames"
    write_run(tmp_path / "c.h5", [12, 13, 14, 15], **hdf5plugin.Bitshuffle(cname="lz4"))
    damage(tmp_path / "c.h5", "/entry_1/data_1/data", 2)
    (tmp_path / "d.h5").symlink_to("nowhere")
    os.mkfifo(tmp_path / "e.h5")
    (tmp_path / "f.h5").write_bytes(b"not HDF5" * 99)
    write_run(tmp_path / "g.h5", [16])
    told: list[PeaknetError] = []
    kept = FileNumbers(tmp_path / "files.json")
    arrivals = list(follow_folder(tmp_path, settle_s=0.0, files=kept, refuse=told.append, patience=QUICK))
    assert seen_in(arrivals) == {0: 10, 1: 11, 2: 12, 3: 13, 5: 15, 6: 16}
    named = sorted({Path(str(error.where)).name for error in told})
    assert len(told) == len(named)
    assert {"b.h5", "c.h5", "f.h5"} <= set(named)
    assert "frame 2" in next(str(error) for error in told if "c.h5" in str(error))
    write_run(tmp_path / "aa.h5", [20, 21])  # between those that have their numbers already
    taken = FrameNumbers([0, 1, 2, 3, 6])
    again = follow_folder(
        tmp_path, settle_s=0.0, taken=taken, files=FileNumbers(tmp_path / "files.json"), patience=QUICK
    )
    assert seen_in(list(again)) == {7: 20, 8: 21, 5: 15}


def test_a_file_that_could_not_be_used_is_tried_again_once_it_changes(tmp_path: Path) -> None:
    write_run(tmp_path / "a.h5", [1])
    (tmp_path / "b.h5").write_bytes(b"not HDF5" * 99)
    told: list[PeaknetError] = []
    source = follow_folder(tmp_path, settle_s=0.0, refuse=told.append, patience=Patience(0.01, 1.0))
    seen = [next(source)]
    write_run(tmp_path / "new", [2])
    (tmp_path / "new").replace(tmp_path / "b.h5")
    assert seen_in(seen + list(source)) == {0: 1, 1: 2}
    assert len(told) <= 1


def test_a_damaged_chunk_of_a_followed_file_is_left_out_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(
            "/data", data=frames_of(list(range(10)))[:, 0], maxshape=(None, 6, 5), chunks=(1, 6, 5),
            compression="gzip",
        )  # fmt: skip
    damage(path, "/data", 6)
    told: list[PeaknetError] = []
    taken = FrameNumbers([0, 1, 4])
    source = follow_file(path, "/data", batch_frames=4, taken=taken, refuse=told.append, patience=QUICK)
    assert seen_in(list(source)) == {number: number for number in (2, 3, 5, 7, 8, 9)}
    assert [("frame 6" in str(error), error.where) for error in told] == [(True, path)]


def test_only_the_images_of_hits_are_kept_when_asked(tmp_path: Path) -> None:
    def find(frames: FrameArray, first: int) -> Found:
        peaks = one_peak_per_frame(frames, first)
        return Found(peaks[frames[:, 0, 0, 0] % 2 == 0])

    arrivals = [Arrival(np.array([n, n + 1]), frames_of([n, n + 1]), np.zeros(2)) for n in range(0, 6, 2)]
    with open_parts(tmp_path / "work", recipe="a", n_frames=None) as parts:
        live_stream(
            arrivals, find, LiveStatistics(min_peaks=1), sinks=[ArrivalSink(parts)], with_images=True,
            hits_only=True,
        )  # fmt: skip
        images = read_part(parts.folder, (0, 6)).images
        assert images is not None
        np.testing.assert_array_equal(images.numbers, [0, 2, 4])
        np.testing.assert_array_equal(images.read(0, 3), frames_of([0, 2, 4]))
