"""Labelled frames packed for training: memory-mapped arrays per run, kept while the labels stay the same.

One folder per run and label digest holds ``images.npy`` (n, n_panels, ss, fs) in the raw dtype,
``labels.npy`` in uint8, ``bad_pixels.npy``, ``usable.npy`` (the four numbers of ``UsableValues``), ``peaks.npy`` and
``hard.npy`` (rows of position, panel, ss, fs: where labelled peaks are, and where the brightest background is) and
``frames.npy``. Crops then touch only their own pages; nothing holds a run in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from peaknet_pipeline.atomic import replace_folder_atomically
from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues
from peaknet_pipeline.labels.store import LabelFile, labels_digest, open_labels
from peaknet_pipeline.types import (
    LABEL_BACKGROUND,
    LABEL_PEAK,
    BoolArray,
    FrameArray,
    IntArray,
    UInt8Array,
)

HARD_PER_PANEL = 4
"""Brightest background places that are remembered per panel and frame."""


@dataclass(frozen=True)
class CachedRun:
    """A run's packed frames. Arrays open as memory maps on use, so the record can go to worker processes."""

    run: str
    path: Path

    def load(self, name: str) -> FrameArray:
        """Open one array of the folder as a read-only memory map."""
        try:
            return np.asanyarray(np.load(self.path / f"{name}.npy", mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise LabelError(
                f"damaged training cache ({error})",
                where=self.path,
                remedy="Delete the folder; it is made again.",
            ) from error


def cache_run(
    run: str,
    label_path: Path,
    read_frame: Callable[[int], FrameArray],
    *,
    bad_pixels: BoolArray,
    cache_root: Path,
    usable: UsableValues = ALL_VALUES,
    progress: Callable[[int], object] | None = None,
) -> CachedRun:
    """Return a run's packed frames, packing them unless the same labels were packed before and are whole.

    A process that is killed while it packs leaves nothing under the final name; a damaged folder is made again.

    Parameters
    ----------
    run : str
        Partition key.
    label_path : Path
    read_frame : callable
        Frame number → (n_panels, ss, fs), raw dtype.
    bad_pixels : bool, (n_panels, ss, fs)
    cache_root : Path
        Folder that holds all caches.
    usable : UsableValues
        Pixels of other values are not good in that frame.
    progress : callable, optional
        Called with 1 after each frame.

    Raises
    ------
    LabelError
        The label file is unreadable or doesn't fit the frames.

    """
    cached = CachedRun(run, cache_root / f"{run}-{labels_digest(label_path)}")
    with open_labels(label_path) as labels:
        if cached.path.is_dir() and _is_whole(cached, labels):
            return cached
        with replace_folder_atomically(cached.path) as temporary:
            _pack(labels, read_frame, bad_pixels, temporary, progress)
            np.save(temporary / "usable.npy", np.array(usable))
    return cached


def _is_whole(cached: CachedRun, labels: LabelFile) -> bool:
    """Say whether every array opens at its full size and belongs to these frames."""
    shape = (len(labels), *labels.stack_shape)
    try:
        images, maps, frames = (cached.load(name) for name in ("images", "labels", "frames"))
        bad_pixels, *places = (cached.load(name) for name in ("bad_pixels", "peaks", "hard"))
        cached.load("usable")
    except LabelError:
        return False
    sizes = images.shape == maps.shape == shape and bad_pixels.shape == labels.stack_shape
    return sizes and all(p.shape[1:] == (4,) for p in places) and np.array_equal(frames, labels.frames)


def _pack(
    labels: LabelFile,
    read_frame: Callable[[int], FrameArray],
    bad_pixels: BoolArray,
    folder: Path,
    progress: Callable[[int], object] | None,
) -> None:
    if bad_pixels.shape != labels.stack_shape:
        raise LabelError(
            "bad_pixels has another shape than the labels",
            where=labels.path,
            expected=labels.stack_shape,
            found=bad_pixels.shape,
        )
    peaks: list[IntArray] = [np.empty((0, 4), np.int64)]
    hard: list[IntArray] = [np.empty((0, 4), np.int64)]
    images = None
    stored = _create(folder / "labels.npy", (len(labels), *labels.stack_shape), np.dtype(np.uint8))
    for position, frame in enumerate(labels.frames):
        image, label = read_frame(int(frame)), labels.read(position)
        if image.shape != labels.stack_shape:
            raise LabelError(
                "labels and frames have different shapes",
                where=f"{labels.path}, frame {frame}",
                expected=labels.stack_shape,
                found=image.shape,
            )
        if images is None:
            images = _create(folder / "images.npy", (len(labels), *image.shape), image.dtype)
        images[position], stored[position] = image, label
        peaks.append(_with_position(position, find_labelled_peaks(label)))
        hard.append(_with_position(position, find_bright_background(image, label, bad_pixels)))
        if progress is not None:
            progress(1)
    if images is None:
        images = _create(folder / "images.npy", (0, *labels.stack_shape), np.dtype(np.float32))
    np.save(folder / "frames.npy", labels.frames)
    np.save(folder / "bad_pixels.npy", bad_pixels)
    np.save(folder / "peaks.npy", np.concatenate(peaks))
    np.save(folder / "hard.npy", np.concatenate(hard))


def _create(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> FrameArray:
    """Create a .npy file to be filled through a memory map (which cannot be empty)."""
    if 0 in shape:
        np.save(path, np.empty(shape, dtype))
        return np.empty(shape, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _with_position(position: int, places: IntArray) -> IntArray:
    return np.column_stack([np.full(len(places), position, np.int64), places])


def find_labelled_peaks(label: UInt8Array) -> IntArray:
    """Return the middle pixel of every connected group of peak pixels, int64 (n, 3): panel, ss, fs."""
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = True
    groups, n = ndimage.label(label == LABEL_PEAK, structure=structure)
    if n == 0:
        return np.empty((0, 3), np.int64)
    middles = [[(part.start + part.stop - 1) // 2 for part in box] for box in ndimage.find_objects(groups)]
    return np.asarray(middles, dtype=np.int64)


def find_bright_background(image: FrameArray, label: UInt8Array, bad_pixels: BoolArray) -> IntArray:
    """Return the brightest background pixel in each quarter of each panel, int64 (n, 3): panel, ss, fs.

    These teach the network what looks like a peak and is none: rings, streaks, zingers.
    """
    usable = (label == LABEL_BACKGROUND) & ~bad_pixels
    values = np.where(usable, image, -np.inf).astype(np.float64)
    values[~np.isfinite(values)] = -np.inf
    _, n_ss, n_fs = image.shape
    places = []
    for first_ss, last_ss in ((0, n_ss // 2), (n_ss // 2, n_ss)):
        for first_fs, last_fs in ((0, n_fs // 2), (n_fs // 2, n_fs)):
            part = values[:, first_ss:last_ss, first_fs:last_fs]
            if part.size == 0:
                continue
            flat = part.reshape(len(part), -1)
            best = flat.argmax(axis=1)
            found = np.flatnonzero(np.isfinite(flat[np.arange(len(part)), best]))
            ss, fs = np.divmod(best[found], last_fs - first_fs)
            places.append(np.column_stack([found, ss + first_ss, fs + first_fs]))
    return np.concatenate(places).astype(np.int64) if places else np.empty((0, 3), np.int64)
