"""Masks come back from their file as the network made them, by whichever stream, or there is no file."""

import functools
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.found import Found, PeakPixels, keep_hits
from peaknet_pipeline.infer.masks import MaskFile
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.part_files import write_part
from peaknet_pipeline.infer.part_sink import PartSink
from peaknet_pipeline.infer.parts import open_parts
from peaknet_pipeline.infer.sinks import TableCollector
from peaknet_pipeline.infer.stream import stream_run
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray, FrameArray
from peaknet_pipeline_tests.infer.fake_network import threshold_network
from peaknet_pipeline_tests.infer.fakes import ArrayRun, gaussian_frames, one_peak_per_frame

SPOTS = np.array([[f, f % 2, 8 + 2.3 * f, 40 - 3.1 * f, 150.0] for f in range(10) for _ in range(1)])
FRAMES = gaussian_frames(SPOTS, (10, 2, 40, 48)).astype(np.float32)
SHAPE = FRAMES.shape[1:]
MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(0, 4), *[st.integers(1, 6)] * 3))


def engine() -> Engine:
    return Engine(threshold_network(level=30.0), bad_pixels=np.zeros(SHAPE, dtype=bool))


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_a_list_of_pixels_is_the_mask(masks: BoolArray) -> None:
    pixels = PeakPixels.from_masks(masks)
    assert len(pixels) == len(masks)
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(pixels.mask(i), mask.astype(np.uint8))


def test_the_streams_masks_are_the_pixels_above_the_threshold(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    params = StreamParams(batch_frames=3, readers=2, finders=2)
    masks = MaskFile(path, SHAPE, extra={"model": "threshold", "recipe": "abc"})
    peaks = TableCollector()
    stream_run(lambda: ArrayRun(FRAMES), engine().segment, params=params, sinks=[peaks, masks])
    with h5py.File(path) as file:
        data = file["peak_mask"]
        assert data.chunks == (1, *SHAPE)
        assert data.dtype == np.uint8
        np.testing.assert_array_equal(data[...], FRAMES >= 30.0)
        np.testing.assert_array_equal(file["frame"][...], np.arange(10))
        assert dict(file.attrs) == {"model": "threshold", "recipe": "abc"}
    assert len(peaks.table()) == 10
    assert peaks.table()["n_pixels"].sum() == (FRAMES >= 30.0).sum()


def test_only_hits_have_masks_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    frames = FRAMES.copy()
    frames[4:7] = 10.0
    stream_run(lambda: ArrayRun(frames), engine().segment, sinks=[MaskFile(path, SHAPE, min_peaks=1)])
    with h5py.File(path) as file:
        assert file["frame"][...].tolist() == [0, 1, 2, 3, 7, 8, 9]
        np.testing.assert_array_equal(file["peak_mask"][...], frames[[0, 1, 2, 3, 7, 8, 9]] >= 30.0)


@pytest.mark.parametrize("part_s", [0.0, 60.0])
def test_parts_give_the_same_masks_as_the_stream(tmp_path: Path, part_s: float) -> None:
    with open_parts(tmp_path / "work", recipe="", n_frames=10) as parts:
        write_part(parts.folder, (5, 8), engine().segment(FRAMES[5:8], 5))
        parts.written.append((5, 8))
        sinks = [PartSink(parts, part_s=part_s)]
        params = StreamParams(batch_frames=2)
        stream_run(
            lambda: ArrayRun(FRAMES), engine().segment, params=params, sinks=sinks, stretches=parts.missing
        )
        parts.join([MaskFile(tmp_path / "joined.h5", SHAPE)])
    stream_run(lambda: ArrayRun(FRAMES), engine().segment, sinks=[MaskFile(tmp_path / "streamed.h5", SHAPE)])
    with h5py.File(tmp_path / "joined.h5") as one, h5py.File(tmp_path / "streamed.h5") as other:
        np.testing.assert_array_equal(one["peak_mask"][...], other["peak_mask"][...])
        np.testing.assert_array_equal(one["frame"][...], np.arange(10))


def failing(at: int, frames: FrameArray, first_frame: int) -> Found:
    if first_frame >= at:
        raise StreamError("the finder broke")
    return engine().segment(frames, first_frame)


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="broke"):
        stream_run(
            lambda: ArrayRun(FRAMES),
            functools.partial(failing, 4),
            params=StreamParams(batch_frames=2),
            sinks=[MaskFile(tmp_path / "masks.h5", SHAPE)],
        )
    assert list(tmp_path.iterdir()) == []


def test_a_finder_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="Masks come from the network"):
        stream_run(
            lambda: ArrayRun(FRAMES), one_peak_per_frame, sinks=[MaskFile(tmp_path / "masks.h5", SHAPE)]
        )
    with pytest.raises(StreamError, match=r"no masks for their file.*expected \(2, 40, 40\)"):
        stream_run(
            lambda: ArrayRun(FRAMES), engine().segment, sinks=[MaskFile(tmp_path / "m.h5", (2, 40, 40))]
        )
    assert list(tmp_path.iterdir()) == []


def table_of_counts(counts: list[int]) -> PeakTable:
    table = one_peak_per_frame(np.zeros((len(counts), 1, 1, 1), np.int32), 0)
    return table.loc[table.index.repeat(counts)].reset_index(drop=True)


def test_hits_are_the_frames_with_enough_peaks() -> None:
    kept, hits, reduction = keep_hits(table_of_counts([3, 15, 0, 20, 14]), min_peaks=15, n_frames=5)
    assert hits.tolist() == [1, 3]
    assert sorted(set(kept["frame"])) == [1, 3]
    assert reduction.to_dict() == {"hits": 2, "kept_fraction": 0.4, "peaks_found": 52, "peaks_kept": 35}
    nothing, none, empty = keep_hits(table_of_counts([0, 1]), min_peaks=15, n_frames=0)
    assert (len(nothing), len(none), empty.to_dict()["kept_fraction"]) == (0, 0, 0.0)
