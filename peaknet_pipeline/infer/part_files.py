"""The files of a part of an unfinished stream: peaks, and what lies beside them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.infer.batches import Stretch
from peaknet_pipeline.infer.found import Found, PeakPixels
from peaknet_pipeline.infer.image_file import read_images
from peaknet_pipeline.infer.sinks import ParquetSink
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import IntArray

NAMES = "[0-9]*-[0-9]*"


def part_path(folder: Path, span: Stretch) -> Path:
    """Return the file of the peaks of some frames."""
    return folder / f"{span[0]:09d}-{span[1]:09d}.parquet"


def beside_path(folder: Path, span: Stretch) -> Path:
    """Return the file of the peaks' pixels and the frames' numbers."""
    return part_path(folder, span).with_suffix(".npz")


def images_path(folder: Path, span: Stretch) -> Path:
    """Return the file of raw frames."""
    return part_path(folder, span).with_suffix(".h5")


def write_part(folder: Path, span: Stretch, found: Found) -> None:
    """Write a part, atomically: what lies beside the peaks first, since their name says that the part is complete."""
    write_beside(folder, span, found.pixels, found.numbers)
    with ParquetSink(part_path(folder, span)) as sink:
        sink.write(found, np.arange(*span))


def read_part(folder: Path, span: Stretch) -> Found:
    """Read a part; its raw frames stay in their file until they are asked for."""
    peaks = read_table(part_path(folder, span), PEAKS)
    images = images_path(folder, span)
    kept = read_images(images) if images.is_file() else None
    if not beside_path(folder, span).is_file():
        return Found(peaks, images=kept)
    with np.load(beside_path(folder, span)) as beside:
        numbers = beside.get("numbers")
        if "shape" not in beside:
            return Found(peaks, None, numbers, kept)
        n_panels, height, width = (int(side) for side in beside["shape"])
        pixels = PeakPixels((n_panels, height, width), beside["starts"], beside["index"])
    return Found(peaks, pixels, numbers, kept)


def write_beside(folder: Path, span: Stretch, pixels: PeakPixels | None, numbers: IntArray | None) -> None:
    arrays: dict[str, Any] = {} if numbers is None else {"numbers": numbers}
    if pixels is not None:
        arrays |= {"shape": pixels.shape, "starts": pixels.starts, "index": pixels.index}
    if arrays:
        with replace_atomically(beside_path(folder, span)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)


def has_parts(folder: Path) -> bool:
    """Tell whether there is any part."""
    return next(folder.glob(f"{NAMES}.parquet"), None) is not None


def whole_parts(folder: Path) -> list[Stretch]:
    """Return the frames of the parts that can be read, each frame once; remove what is damaged or half written."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    whole: list[Stretch] = []
    for path in sorted(folder.glob(f"{NAMES}.parquet")):
        first, stop = (int(number) for number in path.stem.split("-"))
        if first >= (whole[-1][1] if whole else 0) and _is_whole(folder, (first, stop)):
            whole.append((first, stop))
        else:
            path.unlink()
    for path in (*folder.glob(f"{NAMES}.npz"), *folder.glob(f"{NAMES}.h5")):
        if not path.with_suffix(".parquet").is_file():
            path.unlink()
    return whole


def _is_whole(folder: Path, span: Stretch) -> bool:
    try:
        read_part(folder, span)
    except (PeaknetError, OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False
    return True
