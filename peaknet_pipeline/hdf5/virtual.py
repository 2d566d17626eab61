"""Virtual data sets, followed part by part to the data sets that hold their values.

HDF5 would read the sources by itself, with its own filters. Here each part of a virtual data set is known as a box in a
source that was checked, so that the source's chunks are read like any others.
"""

import functools
import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import RunError

Indices = range | npt.NDArray[np.int64]
Selection = tuple[slice, ...]
MAX_BOXES = 4096
MAX_COMPARED = 1000


@dataclass(frozen=True)
class VirtualPart:
    """Places of a virtual data set along each of its dimensions, and the places in the source that they show."""

    target: tuple[Indices, ...]
    source: Any
    shown: tuple[Indices, ...]

    @property
    def partners(self) -> tuple[int | None, ...]:
        """The source's dimension behind each dimension of more than one place; those of one place have none."""
        wide = iter(axis for axis, places in enumerate(self.shown) if len(places) != 1)
        return tuple(next(wide) if len(places) != 1 else None for places in self.target)


@dataclass(frozen=True)
class PartBox:
    """A box of a source, of some ``shape``, and where it goes in what is read of the virtual data set."""

    target: Selection
    source: Any
    box: Selection

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the box in the source."""
        return tuple(s.stop - s.start for s in self.box)

    @property
    def n_elements(self) -> int:
        """Number of elements in the box."""
        return math.prod(self.shape)


class VirtualDataset(h5py.Dataset):  # type: ignore[misc]
    """A virtual data set whose sources were opened and checked."""

    def __init__(self, dataset: Any, parts: Sequence[VirtualPart]) -> None:
        super().__init__(dataset.id)
        ends = [[(_first(i), _last(i) + 1) for i in part.target] for part in parts]
        self.parts = tuple(parts)
        self._ends = np.array(ends, dtype=np.int64).reshape(len(parts), -1, 2)

    @functools.cached_property
    def may_overlap(self) -> bool:
        """Whether parts may lie over each other, so that they must be read one after the other: the last one counts."""
        if len(self.parts) > MAX_COMPARED:
            return True
        starts, stops = self._ends[:, :, 0], self._ends[:, :, 1]
        meets = np.all((starts[:, None] < stops) & (stops[:, None] > starts), axis=2)
        return bool(np.any(np.triu(meets, k=1)))

    def parts_within(self, selection: Selection) -> Iterator[PartBox]:
        """Yield the boxes of sources that a box of this data set shows, in the order in which HDF5 reads them."""
        starts, stops = (np.array([getattr(s, end) for s in selection]) for end in ("start", "stop"))
        meets = ((self._ends[:, :, 0] < stops) & (self._ends[:, :, 1] > starts)).all(axis=1)
        for number in np.flatnonzero(meets):
            yield from _boxes(self.parts[number], selection)

    def __getitem__(self, selection: Any, new_dtype: Any = None) -> Any:
        """Refuse: HDF5 would decode the sources' chunks itself."""
        raise RunError("a virtual data set is read by its parts", where=self.file.filename, found=self.name)


def virtual_part(dataset: Any, mapping: Any, source: Any) -> VirtualPart:
    """Return the part of a virtual data set that one of its mappings declares.

    Raises
    ------
    RunError
        The mapping doesn't show boxes, strides or lists along each dimension, or more than its source holds.

    """
    target, shown = _selected(mapping.vspace, dataset.shape), _selected(mapping.src_space, source.shape)
    target, shown = _clipped(target, dataset.shape), _clipped(shown, source.shape)
    if mapping.vspace.get_select_type() == h5py.h5s.SEL_HYPERSLABS and _is_growing(mapping):
        target, shown = _cut_to_shorter(target, shown)
    wide = [[len(i) for i in indices if len(i) != 1] for indices in (target, shown)]
    if wide[0] != wide[1]:
        raise RunError(
            f"{dataset.name} shows other shapes than its source has",
            where=dataset.file.filename,
            expected=f"{wide[0]} elements",
            found=f"{wide[1]} in {source.name}",
            remedy="Copy the data into one data set.",
        )
    return VirtualPart(target, source, shown)


def _selected(space: Any, shape: tuple[int, ...]) -> tuple[Indices, ...]:
    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_ALL:
        return tuple(range(n) for n in shape)
    if kind == h5py.h5s.SEL_NONE:
        return tuple(range(0) for _ in shape)
    if kind != h5py.h5s.SEL_HYPERSLABS:
        raise RunError("a virtual data set shows single points", found=space.shape)
    if space.is_regular_hyperslab():
        axes = zip(*space.get_regular_hyperslab(), shape, strict=True)
        return tuple(_regular(start, stride, count, block, n) for start, stride, count, block, n in axes)
    return _listed(space)


def _regular(start: int, stride: int, count: int, block: int, n: int) -> Indices:
    """Return ``count`` blocks of ``block`` places, ``stride`` apart; as many as there is room for where that is open."""
    if block == h5py.h5s.UNLIMITED:
        return range(start, max(n, start))
    if count == h5py.h5s.UNLIMITED:
        count = max(0, -(-(n - start) // stride))
    if block == 1 or count == 1:
        return range(start, start + block) if count == 1 else range(start, start + count * stride, stride)
    if stride == block:
        return range(start, start + count * block)
    if count * block > max(n, 1):
        raise RunError("a virtual data set shows more than there is", expected=n, found=count * block)
    return (start + np.arange(count)[:, None] * stride + np.arange(block)).ravel()


def _listed(space: Any) -> tuple[Indices, ...]:
    """Return the places along each dimension of a selection that takes every combination of them."""
    blocks = np.asarray(space.get_select_hyper_blocklist(), dtype=np.int64)  # (n, first and last, dimension)
    axes = []
    for axis in range(blocks.shape[2]):
        spans = np.unique(blocks[:, :, axis], axis=0)
        axes.append(np.unique(np.concatenate([np.arange(a, b + 1) for a, b in spans])))
    if math.prod(len(axis) for axis in axes) != space.get_select_npoints():
        raise RunError("a virtual data set shows an irregular selection", found=f"{len(blocks)} blocks")
    return tuple(axes)


def _is_growing(mapping: Any) -> bool:
    """Whether a mapping takes as much as its source has by now."""
    spaces = [
        s for s in (mapping.vspace, mapping.src_space) if s.get_select_type() == h5py.h5s.SEL_HYPERSLABS
    ]
    return any(
        h5py.h5s.UNLIMITED in axis
        for space in spaces
        if space.is_regular_hyperslab()
        for axis in space.get_regular_hyperslab()[2:]
    )


def _clipped(indices: tuple[Indices, ...], shape: tuple[int, ...]) -> tuple[Indices, ...]:
    """Return the places that exist."""
    if len(indices) != len(shape):
        raise RunError(
            "a virtual data set has a source of other dimensions", expected=len(indices), found=shape
        )
    return tuple(i[: bisect_left(i, n)] for i, n in zip(indices, shape, strict=True))


def _last(indices: Indices) -> int:
    return int(indices[-1]) if len(indices) else -1


def _first(indices: Indices) -> int:
    return int(indices[0]) if len(indices) else 0


def _cut_to_shorter(
    target: tuple[Indices, ...], shown: tuple[Indices, ...]
) -> tuple[tuple[Indices, ...], tuple[Indices, ...]]:
    if len(target) != len(shown):
        return target, shown
    pairs = [(min(len(a), len(b)), a, b) for a, b in zip(target, shown, strict=True)]
    return tuple(a[:n] for n, a, _ in pairs), tuple(b[:n] for n, _, b in pairs)


def _boxes(part: VirtualPart, selection: Selection) -> Iterator[PartBox]:
    """Yield boxes, without gaps on either side, for the places of a part within a selection."""
    steps = []
    for places, partner, asked in zip(part.target, part.partners, selection, strict=True):
        inside = slice(bisect_left(places, asked.start), bisect_left(places, asked.stop))
        if inside.start == inside.stop:
            return
        steps.append(_steps(places[inside], None if partner is None else part.shown[partner][inside]))
    if math.prod(len(s) for s in steps) > MAX_BOXES:
        raise RunError("a virtual data set shows absurdly many single places", found=part.source.name)
    fixed = [slice(int(places[0]), int(places[0]) + 1) for places in part.shown]
    for combination in itertools.product(*steps):
        box = list(fixed)
        for (_, span), partner in zip(combination, part.partners, strict=True):
            if partner is not None and span is not None:
                box[partner] = span
        target = tuple(
            slice(place.start - asked.start, place.stop - asked.start)
            for (place, _), asked in zip(combination, selection, strict=True)
        )
        yield PartBox(target, part.source, tuple(box))


def _steps(target: Indices, shown: Indices | None) -> list[tuple[slice, slice | None]]:
    """Cut a dimension where its places, or the source's, are not next to each other."""
    if shown is None:
        return [(slice(int(target[0]), int(target[0]) + 1), None)]
    if isinstance(target, range) and isinstance(shown, range) and target.step == shown.step == 1:
        return [(slice(target.start, target.stop), slice(shown.start, shown.stop))]
    a, b = np.asarray(target), np.asarray(shown)
    breaks = np.flatnonzero((np.diff(a) != 1) | (np.diff(b) != 1)) + 1
    return [
        (slice(int(x[0]), int(x[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1))
        for x, y in zip(np.split(a, breaks), np.split(b, breaks), strict=True)
    ]
