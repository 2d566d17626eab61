"""A peak table that is written in parts: what has a name is complete, so that work can be taken up again.

Each batch is one Parquet file whose name is its number. Writing a batch twice replaces a file by an equal one, so a
batch that is repeated after a failure is neither lost nor doubled.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.errors import TableError
from peaknet_pipeline.infer.found import Found, PeakPixels
from peaknet_pipeline.infer.masks import MaskFile
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.tables import read_table, write_json, write_table
from peaknet_pipeline.types import PEAKS

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class BatchPlan:
    """Which frames make which batch, and of what work (``recipe``: run, model and parameters, hashed)."""

    start: int
    stop: int
    batch_frames: int
    recipe: str = ""

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return -(-(self.stop - self.start) // self.batch_frames)

    def frames(self, number: int) -> tuple[int, int]:
        """Return the first frame of a batch and the one after its last."""
        first = self.start + number * self.batch_frames
        return first, min(first + self.batch_frames, self.stop)


def parts_folder(out: Path) -> Path:
    """Return the folder of the parts of the table ``out``."""
    return out.with_name(f".{out.name}.parts")


def part_path(folder: Path, number: int) -> Path:
    """Return the file of a batch."""
    return folder / f"{number:09d}.parquet"


def pixels_path(folder: Path, number: int) -> Path:
    """Return the file of a batch's peak pixels."""
    return folder / f"{number:09d}.npz"


def prepare_parts(folder: Path, plan: BatchPlan) -> set[int]:
    """Return the numbers of the batches that are already written; parts of another plan are thrown away."""
    plan_file = folder / PLAN_FILE
    if folder.exists() and _read_plan(plan_file) != asdict(plan):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(plan_file, asdict(plan))
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    numbers = {int(path.stem) for path in folder.glob("*.parquet") if path.stem.isdigit()}
    return {number for number in numbers if _is_whole(part_path(folder, number))}


def write_part(folder: Path, number: int, found: Found) -> None:
    """Write a batch, atomically: its pixels, if there are any, before its peaks, whose name says that it is complete."""
    if found.pixels is not None:
        with replace_atomically(pixels_path(folder, number)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, shape=found.pixels.shape, starts=found.pixels.starts, index=found.pixels.index
            )
    write_table(found.peaks, part_path(folder, number), PEAKS)


def read_part(folder: Path, number: int, *, with_pixels: bool) -> Found:
    """Read a batch."""
    peaks = read_table(part_path(folder, number), PEAKS)
    if not with_pixels:
        return Found(peaks)
    with np.load(pixels_path(folder, number)) as kept:
        n_panels, height, width = (int(side) for side in kept["shape"])
        return Found(peaks, PeakPixels((n_panels, height, width), kept["starts"], kept["index"]))


def join_parts(
    folder: Path,
    out: Path,
    plan: BatchPlan,
    *,
    masks: MaskFile | None = None,
    extra: Mapping[str, str] | None = None,
) -> int:
    """Join all batches in frame order to the table ``out``, remove the parts, and return the number of peaks.

    The file is the one that a local stream writes, bit for bit.
    """
    n_peaks = 0
    with ParquetSink(out, extra=extra) as sink, masks or nullcontext():
        for number in range(plan.n_batches):
            first, _ = plan.frames(number)
            found = read_part(folder, number, with_pixels=masks is not None)
            sink.write(found.peaks, np.empty((0, 0, 0, 0)), first)
            if masks is not None:
                masks.write(found, first)
            n_peaks += len(found.peaks)
    shutil.rmtree(folder)
    return n_peaks


def _read_plan(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_whole(path: Path) -> bool:
    try:
        read_table(path, PEAKS)
    except TableError:
        path.unlink(missing_ok=True)
        return False
    return True
