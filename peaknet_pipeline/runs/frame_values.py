"""What a run's data sets say of each frame."""

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.runs.series import FrameOrder, substitute
from peaknet_pipeline.types import Float64Array

MAX_VALUES = 1024
"""Numbers of one frame in a data set, such as its event codes."""


def read_per_frame(files: LinkedFiles, path: str, order: FrameOrder) -> Float64Array:
    """Return a scalar or per-frame value, (n_frames,), float64; of a path with placeholders, each event's own.

    Raises
    ------
    RunError
        There is nothing numeric there, or its length is neither 1 nor the number of frames.

    """
    if "%" not in path:
        return _values(files, path, order.n_frames, or_more=order.is_cut)
    each = zip(order.events, order.counts, strict=True)
    return np.concatenate([_values(files, substitute(path, event), n) for event, n in each])


def _values(files: LinkedFiles, path: str, n_frames: int, *, or_more: bool = False) -> Float64Array:
    """Return one data set's values, (n_frames,); of a run that was stopped, the planned frames may have values too."""
    dataset = files.dataset(path)
    size = dataset.size or 0
    if dataset.dtype.kind not in "uif" or not (size in (1, n_frames) or (or_more and size > n_frames)):
        found = f"{dataset.dtype} {dataset.shape}"
        raise RunError(
            f"{path} does not fit", where=files.path, expected=f"1 or {n_frames} numbers", found=found
        )
    try:
        values = np.asarray(read_whole(dataset), dtype=np.float64).ravel()
    except DAMAGE as error:
        raise RunError(f"{path} cannot be read ({error})", where=files.path) from error
    return np.broadcast_to(values, (n_frames,)).copy() if size == 1 else values[:n_frames]


def read_frame_values(files: LinkedFiles, path: str, order: FrameOrder) -> Float64Array:
    """Return a data set's numbers for each frame, (n_frames, k): one, or a row of several such as event codes.

    Raises
    ------
    RunError
        There is nothing numeric there, or it has another number of rows than the run frames.

    """
    if "%" in path:
        return read_per_frame(files, path, order)[:, None]
    dataset = files.dataset(path)
    if len(dataset.shape or ()) != 2:
        return read_per_frame(files, path, order)[:, None]
    fits = dataset.shape[0] == order.n_frames or (order.is_cut and dataset.shape[0] > order.n_frames)
    if dataset.dtype.kind not in "uifb" or not fits or not 0 < dataset.shape[1] <= MAX_VALUES:
        found = f"{dataset.dtype} {dataset.shape}"
        raise RunError(
            f"{path} does not fit",
            where=files.path,
            expected=f"{order.n_frames} rows of 1 … {MAX_VALUES} numbers",
            found=found,
        )
    try:
        values = np.asarray(read_whole(dataset), dtype=np.float64)
    except DAMAGE as error:
        raise RunError(f"{path} cannot be read ({error})", where=files.path) from error
    return values[: order.n_frames]
