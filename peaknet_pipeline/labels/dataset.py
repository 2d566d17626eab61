"""Streaming access for training: random crops or whole panels from packed runs.

The same seed and epoch give the same samples. The datasets have ``__len__`` and ``__getitem__`` and can be
pickled, which is all that ``torch.utils.data.DataLoader`` asks for, with any number of workers; nothing here
needs torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.geometry.usable import UsableValues, are_usable
from peaknet_pipeline.labels.cache import CachedRun
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import LABEL_IGNORE, BoolArray, Float32Array, FrameArray, IntArray, UInt8Array


@dataclass(frozen=True)
class CropParams(Parameters):
    """Which crops an epoch shows."""

    size: int = parameter(128, meaning="side of a crop", unit="px", ge=8)
    per_epoch: int = parameter(1024, meaning="crops in an epoch", ge=1)
    peak_share: float = parameter(0.6, meaning="share of crops that hold a labelled peak", ge=0, le=1)
    hard_share: float = parameter(0.2, meaning="share of crops around bright background", ge=0, le=1)


class Sample(NamedTuple):
    """One crop or panel.

    Attributes
    ----------
    image : float32, (ss, fs), adu
        0 where ``good`` is False.
    good : bool, (ss, fs)
        Pixels on the panel that are not bad and have a usable value.
    label : uint8, (ss, fs)
        0, 1 or 255; 255 off the panel.
    origin : int64, (5,)
        Run number in the dataset, frame, panel, and ss and fs of the first pixel.

    """

    image: Float32Array
    good: BoolArray
    label: UInt8Array
    origin: IntArray


class _PackedRuns:
    """Frames of several packed runs, opened lazily in each process."""

    def __init__(self, runs: Sequence[CachedRun], frames: Sequence[IntArray] | None) -> None:
        self.runs = tuple(runs)
        self._wanted = None if frames is None else tuple(np.asarray(f) for f in frames)
        self._open: dict[tuple[int, str], FrameArray] = {}
        self.index = self._list_frames()

    def __getstate__(self) -> dict[str, object]:
        """Leave the memory maps behind; the other process opens its own."""
        return {**self.__dict__, "_open": {}}

    def array(self, run: int, name: str) -> FrameArray:
        """Return one array of one run."""
        if (run, name) not in self._open:
            self._open[run, name] = self.runs[run].load(name)
        return self._open[run, name]

    def _list_frames(self) -> IntArray:
        """List the frames in use, int64 (n, 2): run number, position in the run's arrays."""
        parts = [np.empty((0, 2), np.int64)]
        for run in range(len(self.runs)):
            frames = self.array(run, "frames")
            positions = np.arange(len(frames))
            if self._wanted is not None:
                positions = np.flatnonzero(np.isin(frames, self._wanted[run]))
            parts.append(np.column_stack([np.full(len(positions), run), positions]))
        return np.concatenate(parts).astype(np.int64)

    def cut(self, run: int, position: int, panel: int, ss: int, fs: int, shape: tuple[int, int]) -> Sample:
        """Cut a window; what hangs over the panel's edge is not good and ignored."""
        images, labels = self.array(run, "images"), self.array(run, "labels")
        bad = self.array(run, "bad_pixels")
        n_ss, n_fs = images.shape[2:]
        image = np.zeros(shape, np.float32)
        good, label = np.zeros(shape, np.bool_), np.full(shape, LABEL_IGNORE, np.uint8)
        source = np.s_[max(ss, 0) : min(ss + shape[0], n_ss), max(fs, 0) : min(fs + shape[1], n_fs)]
        target = np.s_[
            max(-ss, 0) : max(-ss, 0) + source[0].stop - source[0].start,
            max(-fs, 0) : max(-fs, 0) + source[1].stop - source[1].start,
        ]
        values = images[position, panel][source].astype(np.float32)
        usable = UsableValues(*(float(end) for end in self.array(run, "usable"))).of(images.dtype.name)
        good[target] = ~bad[panel][source].astype(np.bool_) & are_usable(values, usable)
        image[target] = np.where(good[target], values, 0)
        label[target] = labels[position, panel][source]
        frame = int(self.array(run, "frames")[position])
        return Sample(image, good, label, np.array([run, frame, panel, ss, fs], np.int64))


class CropDataset:
    """Random crops: a share around labelled peaks, a share around bright background, the rest anywhere.

    Crop ``i`` of epoch ``e`` depends on seed, ``e`` and ``i`` only, so any number of workers gives the same
    epoch.

    Parameters
    ----------
    runs : sequence of CachedRun
    params : CropParams, optional
    frames : sequence of int arrays, optional
        Per run, the frame numbers in use; all when left out.
    seed : int

    Raises
    ------
    LabelError
        No frame is in use.

    """

    def __init__(
        self,
        runs: Sequence[CachedRun],
        params: CropParams | None = None,
        *,
        frames: Sequence[IntArray] | None = None,
        seed: int = 0,
    ) -> None:
        self.params = params or CropParams()
        self.seed, self.epoch = seed, 0
        self._packed = _PackedRuns(runs, frames)
        if not len(self._packed.index):
            raise LabelError("no frames to cut crops from", where="CropDataset", found=[r.run for r in runs])
        self._places = {name: self._list_places(name) for name in ("peaks", "hard")}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose crops follow; with workers, before the loader starts its iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of crops in an epoch."""
        return self.params.per_epoch

    def __getitem__(self, index: int) -> Sample:
        """Return one crop of the present epoch."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, self.epoch, index])
        size, kind = self.params.size, rng.random()
        places = self._places["peaks" if kind < self.params.peak_share else "hard"]
        if kind >= self.params.peak_share + self.params.hard_share or not len(places):
            return self._cut_anywhere(rng)
        run, position, panel, ss, fs = self._draw_place(places, rng)
        shift = rng.integers(0, size, size=2)
        corner = self._inside(run, ss - shift[0], fs - shift[1])
        return self._packed.cut(run, position, panel, *corner, (size, size))

    def _list_places(self, name: str) -> list[IntArray]:
        """Group places by frame in use, so that a frame with many peaks doesn't crowd out the others."""
        groups: list[IntArray] = []
        for run in range(len(self._packed.runs)):
            rows = np.asarray(self._packed.array(run, name), dtype=np.int64)
            used = self._packed.index[self._packed.index[:, 0] == run, 1]
            rows = rows[np.isin(rows[:, 0], used)]
            rows = np.column_stack([np.full(len(rows), run), rows])[np.argsort(rows[:, 0], kind="stable")]
            starts = np.flatnonzero(np.diff(rows[:, 1])) + 1
            groups += [group for group in np.split(rows, starts) if len(group)]
        return groups

    def _draw_place(self, places: list[IntArray], rng: np.random.Generator) -> list[int]:
        group = places[int(rng.integers(len(places)))]
        return [int(value) for value in group[int(rng.integers(len(group)))]]

    def _cut_anywhere(self, rng: np.random.Generator) -> Sample:
        run, position = (int(v) for v in self._packed.index[int(rng.integers(len(self._packed.index)))])
        n_panels, n_ss, n_fs = self._packed.array(run, "images").shape[1:]
        ss, fs = int(rng.integers(n_ss)), int(rng.integers(n_fs))
        corner = self._inside(run, ss - self.params.size // 2, fs - self.params.size // 2)
        return self._packed.cut(
            run, position, int(rng.integers(n_panels)), *corner, (self.params.size, self.params.size)
        )

    def _inside(self, run: int, ss: int, fs: int) -> tuple[int, int]:
        """Pull a crop's corner onto the panel as far as it goes; a smaller panel sits in its middle."""
        n_ss, n_fs = self._packed.array(run, "images").shape[2:]
        return _pull(int(ss), n_ss, self.params.size), _pull(int(fs), n_fs, self.params.size)


class PanelDataset:
    """Whole panels of every frame in use, in order, or in an order drawn from seed and epoch.

    Parameters
    ----------
    runs, frames, seed
        As in :class:`CropDataset`.
    shuffle : bool

    """

    def __init__(
        self,
        runs: Sequence[CachedRun],
        *,
        frames: Sequence[IntArray] | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self.seed, self.epoch, self.shuffle = seed, 0, shuffle
        self._packed = _PackedRuns(runs, frames)
        n_panels = [self._packed.array(run, "images").shape[1] for run in range(len(self._packed.runs))]
        self._rows = [(int(r), int(p), k) for r, p in self._packed.index for k in range(n_panels[int(r)])]
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of an epoch."""
        self.epoch = epoch
        order = np.arange(len(self._rows))
        self._order = np.random.default_rng([self.seed, epoch]).permutation(order) if self.shuffle else order

    def __len__(self) -> int:
        """Return the number of panels."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return one whole panel."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        run, position, panel = self._rows[self._order[index]]
        shape = self._packed.array(run, "images").shape[2:]
        return self._packed.cut(run, position, panel, 0, 0, (int(shape[0]), int(shape[1])))


def _pull(start: int, length: int, size: int) -> int:
    return (length - size) // 2 if length < size else min(max(start, 0), length - size)
