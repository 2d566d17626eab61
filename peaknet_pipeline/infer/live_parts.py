"""What a live stream keeps on disk while it runs, so that it goes on after whatever ended it.

Frames come in any order and with any numbers. A part therefore names its frames by their place in the order of arrival, and
their numbers lie beside it.
"""

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.atomic import replace_atomically, write_file
from peaknet_pipeline.geometry.usable import Flags
from peaknet_pipeline.infer.arrivals import FileFacts
from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.infer.frame_numbers import FrameNumbers
from peaknet_pipeline.infer.image_file import BATCH_FRAMES
from peaknet_pipeline.infer.part_files import read_part
from peaknet_pipeline.infer.part_sink import PART_S, PartSink
from peaknet_pipeline.infer.parts import Parts
from peaknet_pipeline.runs.cxi_append import CxiFile
from peaknet_pipeline.types import Float64Array, IntArray

FACTS_FILE, FILES_FILE = "facts.npz", "files.json"


class ArrivalSink(PartSink):
    """Takes what is found in frames as they come, whatever their numbers."""

    def __init__(self, parts: Parts, *, part_s: float = PART_S) -> None:
        super().__init__(parts, part_s=part_s)
        self._next_place = parts.end

    def write(self, found: Found, numbers: IntArray) -> None:
        """Add frames of these ``numbers`` (n,) to the open part."""
        places = np.arange(self._next_place, self._next_place + len(numbers))
        super().write(dataclasses.replace(found, numbers=np.asarray(numbers, dtype=np.int64)), places)
        self._next_place += len(numbers)


class CxiSink(CxiFile):
    """Takes the frames that are kept, with their peaks, into a CXI file."""

    def write(self, found: Found, numbers: IntArray) -> None:
        """Write the frames that come with the peaks, if any do."""
        if found.images is None:
            return
        for kept, frames in found.images.batches(BATCH_FRAMES):
            self.append(found.peaks, frames, kept)


class FileNumbers:
    """Which numbers the frames of each file of a folder have, kept in a file, if one is given, for the next stream."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, tuple[int, int]] = {}
        if path is not None and path.is_file():
            self._known = {name: (first, n) for name, (first, n) in json.loads(path.read_text()).items()}

    def first_of(self, name: str, n_frames: int) -> int:
        """Return the number of the first frame of a file; a new one follows on all others."""
        known = self._known.get(name)
        if known is None or known[1] != n_frames:
            known = self._known[name] = (max((a + n for a, n in self._known.values()), default=0), n_frames)
            if self._path is not None:
                write_file(self._path, json.dumps(self._known))
        return known[0]


def taken_numbers(parts: Parts) -> FrameNumbers:
    """Return the numbers of all frames that are in parts."""
    taken = FrameNumbers()
    for span in parts.written:
        numbers = read_part(parts.folder, span).numbers
        for number in np.arange(*span) if numbers is None else numbers:
            taken.add(int(number))
    return taken


def image_type(parts: Parts) -> np.dtype[np.generic] | None:
    """Return a type that holds the raw frames of all parts; None if there are none."""
    images = (read_part(parts.folder, span).images for span in parts.written)
    types = {kept.dtype for kept in images if kept is not None}
    return np.result_type(*types) if types else None


def write_facts(folder: Path, facts: FileFacts) -> None:
    """Keep what the first file said, for a stream that goes on."""
    kept: dict[str, Any] = {} if facts.bad_pixels is None else {"bad_pixels": facts.bad_pixels}
    energy, clen = (np.nan if v is None else v for v in (facts.photon_energy_ev, facts.clen_m))
    if facts.flags is not None:
        kept["flags"] = np.array([np.nan if flag is None else flag for flag in facts.flags])
    with replace_atomically(folder / FACTS_FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, photon_energy_ev=energy, clen_m=clen, **kept)


def read_facts(folder: Path) -> FileFacts | None:
    """Return what an earlier stream kept; None if it kept nothing that can be read."""
    with suppress(FileNotFoundError, ValueError, KeyError), np.load(folder / FACTS_FILE) as kept:
        energy, clen = (float(kept[name]) for name in ("photon_energy_ev", "clen_m"))
        return FileFacts(
            kept.get("bad_pixels"),
            None if np.isnan(energy) else energy,
            _flags(kept.get("flags")),
            None if np.isnan(clen) else clen,
        )
    return None


def _flags(kept: Float64Array | None) -> Flags | None:
    if kept is None:
        return None
    low, high, equal = (None if np.isnan(flag) else float(flag) for flag in kept)
    return low, high, equal
