"""Several files that are one run: their frames, in order, as one."""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.resolve import resolve_geometry
from peaknet_pipeline.runs.checksum import checksum_files
from peaknet_pipeline.runs.masks import MaskSource, combine_masks
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.shot_values import usable_energies
from peaknet_pipeline.runs.sources import FrameSource
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry, IntArray

MAX_FILES = 1000
"""Files of one run that may be open at the same time."""


@dataclass(frozen=True)
class RunPart:
    """An open file of a run that several files make, and which of its frames count.

    ``frames`` are (n,) frame numbers within the file, in the order in which they are read; None: all of them.
    """

    run: Run
    frames: IntArray | None = None

    @property
    def n_frames(self) -> int:
        """How many frames the part gives."""
        return self.run.n_frames if self.frames is None else len(self.frames)

    def of_each_frame(self, values: Float64Array) -> Float64Array:
        """Return those of a file's values per frame, (n_frames of the file,), that belong to the part's frames."""
        return values if self.frames is None else values[self.frames]

    def place_of(self, frame: int) -> int:
        """Return the number within the file of the part's ``frame``."""
        return frame if self.frames is None else int(self.frames[frame])

    def read(self, start: int, stop: int, pool: Executor | None) -> Iterator[FrameArray]:
        """Yield the part's frames ``start`` to ``stop``, one stretch of neighbouring frames after another."""
        if self.frames is None:
            yield self.run.read(start, stop, pool=pool)
            return
        chosen = self.frames[start:stop]
        for stretch in np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1):
            yield self.run.read(int(stretch[0]), int(stretch[-1]) + 1, pool=pool)


class JoinedFiles:
    """What a run of several files keeps open."""

    def __init__(self, path: Path, parts: Sequence[RunPart]) -> None:
        self.path = path
        self._parts = parts

    def close(self) -> None:
        """Close every file."""
        for part in self._parts:
            part.run.close()


class JoinedRun(Run):
    """A run whose frames lie in several files; see :func:`join_runs`.

    ``sources`` are those of the first file: they tell how frames are stored, not where each one is.
    """

    def __init__(self, parts: Sequence[RunPart], **facts: Any) -> None:
        super().__init__(JoinedFiles(facts["info"].path, parts), parts[0].run.sources, **facts)
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *(part.n_frames for part in parts)])

    @property
    def placed_sources(self) -> tuple[tuple[int, FrameSource], ...]:
        """The data sets of all files; none where only some frames of a file count, which data sets can't tell."""
        if any(part.frames is not None for part in self.parts):
            return ()
        placed = zip(self.parts, self._starts, strict=False)
        return tuple((int(first) + k, one) for part, first in placed for k, one in part.run.placed_sources)

    @property
    def path_to_open(self) -> Path | tuple[Path, ...]:
        """The files, in order, where no folder and no list names the run."""
        files = tuple(part.run.info.path for part in self.parts)
        return files if self.info.path == files[0] else self.info.path

    def read(self, start: int, stop: int, *, pool: Executor | None = None) -> FrameArray:
        """Return the frames ``start`` to ``stop``, as :meth:`Run.read` does."""
        self.check_range(start, stop)
        blocks = [block for part, a, b in self._shares(start, stop) for block in part.read(a, b, pool)]
        if not blocks:
            return np.empty((0, *self.stack_shape), dtype=self.dtype)
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def read_values(self, path: str) -> Float64Array:
        """Return what the files' data sets say of each frame; see :meth:`Run.read_values`."""
        values = [part.of_each_frame(part.run.read_values(path)) for part in self.parts]
        widths = sorted({one.shape[1] for one in values})
        if len(widths) > 1:
            raise RunError(
                f"{path} differs between the files of a run",
                where=self.info.path,
                expected="as many numbers per frame in each",
                found=widths,
            )
        return np.concatenate(values)

    def locate(self, frame: int) -> tuple[Path, int]:
        """Return the file that a frame lies in, and its number there."""
        part, number = self._part_of(frame)
        return part.run.locate(number)

    def event(self, frame: int) -> tuple[Path, str]:
        """Return the file that a frame lies in, and its event there."""
        part, number = self._part_of(frame)
        return part.run.event(number)

    def _part_of(self, frame: int) -> tuple[RunPart, int]:
        """Return the part that holds a frame, and the frame's number within the part's file."""
        index = int(np.searchsorted(self._starts, frame, side="right")) - 1
        part = self.parts[index]
        return part, part.place_of(frame - int(self._starts[index]))

    def _shares(self, start: int, stop: int) -> Iterator[tuple[RunPart, int, int]]:
        """Yield the parts that hold the frames ``start`` to ``stop``, each with its own first and last + 1."""
        for part, first in zip(self.parts, self._starts, strict=False):
            a, b = max(start - int(first), 0), min(stop - int(first), part.n_frames)
            if a < b:
                yield part, a, b


def join_runs(
    parts: Sequence[RunPart], path: Path, *, geometry: Geometry | None = None, file_format: str | None = None
) -> Run:
    """Return open files as one run, their frames in the order of ``parts``; closing it closes them.

    Parameters
    ----------
    parts : sequence of RunPart
        At least one.
    path : Path
        What names the run: its first file, its folder, or the list that names its files.
    geometry : Geometry, optional
        What the files were opened with; camera length and photon energy are filled in from all of them. Without one, the
        files must describe the same detector.
    file_format : str, optional
        What the run is called; the first file's format by default.

    Raises
    ------
    RunError
        The files differ in the shape or type of their frames, in their detector, or in whether they tell a camera length;
        two of them are named.

    """
    first = parts[0].run
    for other in parts[1:]:
        _check_alike(first, other.run, geometry)
    energy = usable_energies(np.concatenate([p.of_each_frame(p.run.photon_energy_ev) for p in parts]))
    clen = None if first.clen_m is None else np.concatenate([_clen_of(part) for part in parts])
    bad_pixels, mask_sources = _joint_mask(parts)
    files = list(dict.fromkeys(file for part in parts for file in part.run.info.files))
    info = dataclasses.replace(
        first.info,
        path=path,
        file_format=file_format or first.info.file_format,
        n_frames=len(energy),
        photon_energy_ev=energy,
        checksum=checksum_files(files),
        size_bytes=sum(file.stat().st_size for file in files),
        files=tuple(files),
    )
    known = geometry if geometry is not None else first.geometry
    return JoinedRun(
        parts,
        info=info,
        geometry=None if known is None else resolve_geometry(known, photon_energy_ev=energy, clen_m=clen),
        bad_pixels=bad_pixels,
        mask_sources=mask_sources,
        clen_m=clen,
        doubts=tuple(
            dict.fromkeys(f"{p.run.info.path.name}: {doubt}" for p in parts for doubt in p.run.doubts)
        ),
        roots=tuple(dict.fromkeys(root for p in parts for root in p.run.roots)),
    )


def _check_alike(first: Run, other: Run, geometry: Geometry | None) -> None:
    pairs = {
        "shape (panels, ss, fs)": (first.stack_shape, other.stack_shape),
        "type": (first.dtype, other.dtype),
        "camera length": tuple("none" if run.clen_m is None else "per frame" for run in (first, other)),
    }
    if geometry is None:
        pairs["detector"] = tuple(
            None if run.geometry is None else run.geometry.panels for run in (first, other)
        )
    for name, (expected, found) in pairs.items():
        if expected != found:
            raise RunError(
                f"files of one run differ in their frames' {name}",
                where=other.info.path,
                expected=f"as in {first.info.path}" + ("" if name == "detector" else f": {expected}"),
                found="another one" if name == "detector" else found,
                remedy="Give them run numbers of their own, or process them one by one.",
            )


def _clen_of(part: RunPart) -> Float64Array:
    return part.of_each_frame(np.asarray(part.run.clen_m, dtype=np.float64))


def _joint_mask(parts: Sequence[RunPart]) -> tuple[BoolArray, tuple[MaskSource, ...]]:
    """Return what any of the files calls bad; where they agree, as the first one tells it."""
    first = parts[0].run
    others = [part.run for part in parts[1:] if not np.array_equal(part.run.bad_pixels, first.bad_pixels)]
    if not others:
        return first.bad_pixels, first.mask_sources
    joint, sources = combine_masks(
        {"first": first.bad_pixels, **{f"mask of {run.info.path.name}": run.bad_pixels for run in others}}
    )
    return joint, (*first.mask_sources, *sources[1:])
