"""A resumable stream that notes which frames it looks at; run by itself, it is there to be killed.

python -m peaknet_pipeline_tests.infer.killed_stream {local,ray} FOLDER SECONDS_PER_BATCH BATCH_FRAMES
"""

import functools
import sys
import time
from pathlib import Path

import numpy as np

from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.infer.part_sink import PartSink
from peaknet_pipeline.infer.parts import open_parts
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.infer.ray_stream import stream_run_on_ray
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.infer.stream import Finder, stream_run
from peaknet_pipeline.types import FrameArray
from peaknet_pipeline_tests.infer.fakes import ArrayRun, one_peak_per_frame

N_FRAMES = 48
FRAMES = np.arange(N_FRAMES, dtype=np.int32)[:, None, None, None] * np.ones((1, 2, 3, 4), dtype=np.int32)


def noting_finder(notes: Path, seconds: float) -> Finder:
    """Make a finder that adds a line to ``notes`` for each batch: its first frame and its number of frames."""

    def find(frames: FrameArray, first_frame: int) -> Found:
        with notes.open("a") as file:
            file.write(f"{first_frame} {len(frames)}\n")
        time.sleep(seconds)
        return Found(one_peak_per_frame(frames, first_frame))

    return find


def noted_frames(notes: Path) -> list[int]:
    """Return the frames that were looked at, as often as they were."""
    lines = [[int(number) for number in line.split()] for line in notes.read_text().splitlines()]
    return sorted(frame for first, n in lines for frame in range(first, first + n))


def stream(kind: str, folder: Path, seconds: float, batch_frames: int) -> None:
    """Find what is missing in ``folder / "work"`` and write ``folder / "peaks.parquet"``."""
    open_run = functools.partial(ArrayRun, FRAMES)
    make_finder = functools.partial(noting_finder, folder / "notes", seconds)
    with open_parts(folder / "work", recipe="model-1", n_frames=N_FRAMES) as parts:
        if kind == "ray":
            stream_run_on_ray(open_run, make_finder, parts, params=RayParams(batch_frames=batch_frames))
        else:
            params = StreamParams(batch_frames=batch_frames)
            sinks = [PartSink(parts, part_s=2 * seconds)]
            stream_run(open_run, make_finder(), params=params, sinks=sinks, stretches=parts.missing)
        parts.join([ParquetSink(folder / "peaks.parquet")])


if __name__ == "__main__":
    stream(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
