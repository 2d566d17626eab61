# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""Patches of pixels around reflections, cut at panel edges, with bad pixels left out."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, IntArray


@dataclass(frozen=True)
class Patches:
    """Square patches of pixels, in photons.

    Attributes
    ----------
    data : float64, (n, size, size)
        Photons; 0 where ``good`` is False.
    good : bool, (n, size, size)
        Pixels that count: on the panel, not bad, finite.
    centre : int64, (n, 2)
        Pixel (ss, fs) in the panel that the patch is centred on.
    start : float64, (n, 2)
        Where the spot is expected, (ss, fs) in the panel, pixels.
    adu_per_photon : float64, (n,)
        What ``data`` was divided by.

    """

    data: Float64Array
    good: BoolArray
    centre: IntArray
    start: Float64Array
    adu_per_photon: Float64Array

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.data)

    def take(self, rows: IntArray) -> "Patches":
        """Return the patches of the given rows."""
        return Patches(
            self.data[rows], self.good[rows], self.centre[rows], self.start[rows], self.adu_per_photon[rows]
        )


def cut_patches(
    frame: FrameArray,
    panel: npt.ArrayLike,
    fs: npt.ArrayLike,
    ss: npt.ArrayLike,
    *,
    bad_pixels: BoolArray,
    half_size: int = 4,
    adu_per_photon: npt.ArrayLike = 1.0,
) -> Patches:
    """Cut a square patch around each position of one frame.

    Parameters
    ----------
    frame : any real dtype, (n_panels, ss, fs), adu
        Values that are not finite count as bad.
    panel : array_like of int, (n,)
    fs, ss : array_like of float, (n,)
        Expected positions, pixels.
    bad_pixels : bool, (n_panels, ss, fs)
    half_size : int
        Patches have ``2 · half_size + 1`` pixels a side.
    adu_per_photon : array_like of float, () or (n_panels,)
        Gain.

    Raises
    ------
    ParameterError
        Shapes disagree, a position lies on no panel, or a gain is not positive.

    """
    panels = np.ascontiguousarray(panel, dtype=np.int64)
    start = np.column_stack([np.asarray(ss, np.float64), np.asarray(fs, np.float64)]).reshape(-1, 2)
    gain = np.broadcast_to(np.asarray(adu_per_photon, dtype=np.float64), frame.shape[:1])
    _check_positions(frame, bad_pixels, panels, start, gain)
    size = 2 * half_size + 1
    data = np.zeros((len(panels), size, size))
    good = np.zeros((len(panels), size, size), dtype=np.bool_)
    centre = np.rint(start).astype(np.int64)
    _cut(np.ascontiguousarray(frame), np.ascontiguousarray(bad_pixels), panels, centre, gain, data, good)
    return Patches(data, good, centre, start, gain[panels])


def concatenate_patches(parts: list[Patches]) -> Patches:
    """Join patches of several frames, in order; at least one part."""
    return Patches(
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.good for part in parts]),
        np.concatenate([part.centre for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.adu_per_photon for part in parts]),
    )


def _check_positions(
    frame: FrameArray, bad_pixels: BoolArray, panel: IntArray, start: Float64Array, gain: Float64Array
) -> None:
    if frame.ndim != 3 or bad_pixels.shape != frame.shape:
        raise ParameterError(
            "frame and bad_pixels disagree",
            where="cut_patches",
            expected=f"{frame.shape} (n_panels, ss, fs)",
            found=bad_pixels.shape,
        )
    if not (np.isfinite(gain).all() and (gain > 0).all()):
        raise ParameterError("adu_per_photon is not positive", where="cut_patches", found=gain.min())
    n_panels, n_ss, n_fs = frame.shape
    inside = (panel >= 0) & (panel < n_panels) & np.isfinite(start).all(axis=1)
    inside &= (np.abs(start - [(n_ss - 1) / 2, (n_fs - 1) / 2]) <= [n_ss / 2 + 0.5, n_fs / 2 + 0.5]).all(
        axis=1
    )
    if not inside.all():
        row = int(np.argmin(inside))
        raise ParameterError(
            f"{int((~inside).sum())} positions lie on no panel",
            where="cut_patches",
            expected=f"within {frame.shape}",
            found=f"panel {panel[row]}, ss {start[row, 0]:.1f}, fs {start[row, 1]:.1f} in row {row}",
            remedy="Check that reflections and frames belong to the same geometry.",
        )


@njit(nogil=True, cache=True)
def _cut(frame, bad_pixels, panel, centre, gain, data, good):
    _, n_ss, n_fs = frame.shape
    size = data.shape[1]
    half = size // 2
    for i in range(len(panel)):
        p = panel[i]
        for row in range(size):
            ss = centre[i, 0] + row - half
            if ss < 0 or ss >= n_ss:
                continue
            for column in range(size):
                fs = centre[i, 1] + column - half
                if fs < 0 or fs >= n_fs or bad_pixels[p, ss, fs]:
                    continue
                value = float(frame[p, ss, fs])
                if math.isfinite(value):
                    data[i, row, column] = value / gain[p]
                    good[i, row, column] = True
