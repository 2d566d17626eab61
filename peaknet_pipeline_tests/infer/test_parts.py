"""Parts: what is written is found again, what is damaged or foreign is not, and the whole is the local stream's file."""

from pathlib import Path

import numpy as np
import pytest

from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.parts import (
    BatchPlan,
    join_parts,
    part_path,
    parts_folder,
    prepare_parts,
    write_part,
)
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import stream_run
from peaknet_pipeline_tests.infer.fakes import ArrayRun, one_peak_per_frame

PLAN = BatchPlan(5, 30, 4, "abc")
FRAMES = np.arange(40, dtype=np.int32)[:, None, None, None] * np.ones((1, 2, 3, 4), dtype=np.int32)


def write_batches(folder: Path, numbers: list[int]) -> None:
    for number in numbers:
        first, last = PLAN.frames(number)
        write_part(folder, number, Found(one_peak_per_frame(FRAMES[first:last], first)))


def test_batches_cover_every_frame_once() -> None:
    frames = [f for n in range(PLAN.n_batches) for f in range(*PLAN.frames(n))]
    assert frames == list(range(5, 30))


def test_written_batches_are_found_again(tmp_path: Path) -> None:
    folder = parts_folder(tmp_path / "peaks.parquet")
    assert prepare_parts(folder, PLAN) == set()
    write_batches(folder, [0, 3, 6])
    assert prepare_parts(folder, PLAN) == {0, 3, 6}


@pytest.mark.parametrize(
    "other", [BatchPlan(5, 30, 4, "xyz"), BatchPlan(5, 30, 5, "abc"), BatchPlan(4, 30, 4, "abc")]
)
def test_parts_of_another_plan_are_thrown_away(tmp_path: Path, other: BatchPlan) -> None:
    folder = parts_folder(tmp_path / "peaks.parquet")
    prepare_parts(folder, PLAN)
    write_batches(folder, [0, 1])
    assert prepare_parts(folder, other) == set()


def test_damaged_parts_are_made_again(tmp_path: Path) -> None:
    folder = parts_folder(tmp_path / "peaks.parquet")
    prepare_parts(folder, PLAN)
    write_batches(folder, [0, 1, 2])
    whole = part_path(folder, 1).read_bytes()
    part_path(folder, 1).write_bytes(whole[: len(whole) // 2])
    (folder / ".000000004.parquet.x.tmp").write_bytes(b"half")
    assert prepare_parts(folder, PLAN) == {0, 2}
    assert not list(folder.glob(".*.tmp"))


def test_joined_parts_are_the_file_of_the_local_stream(tmp_path: Path) -> None:
    out = tmp_path / "peaks.parquet"
    folder = parts_folder(out)
    prepare_parts(folder, PLAN)
    write_batches(folder, [3, 1, 0, 6, 2, 5, 4, 3])
    assert join_parts(folder, out, PLAN, extra={"run": "r1"}) == 25
    local = tmp_path / "local.parquet"
    params = StreamParams(batch_frames=4)
    sink = ParquetSink(local, extra={"run": "r1"})
    stream_run(lambda: ArrayRun(FRAMES), one_peak_per_frame, params=params, sinks=[sink], start=5, stop=30)
    assert out.read_bytes() == local.read_bytes()
    assert not folder.exists()
