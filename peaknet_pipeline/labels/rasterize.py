"""Label maps of one frame: accepted profiles become peaks, everything doubtful becomes "ignore".

Precedence, from weakest to strongest:

1. background (0);
2. ignore (255): discs around rejected fits, reflections too weak to be labelled and found peaks that nothing
   predicts;
3. peak (1): pixels where an accepted profile reaches half of its height. Stamps are OR-ed, so no stamp erases
   another, and a doubtful neighbour doesn't erase a good peak;
4. ignore again: bad and saturated pixels, because their values teach nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.profile import N_PROFILE, stamp_half_maximum
from peaknet_pipeline.types import (
    LABEL_BACKGROUND,
    LABEL_IGNORE,
    LABEL_PEAK,
    BoolArray,
    Float64Array,
    FrameArray,
    IntArray,
    UInt8Array,
)


@dataclass(frozen=True)
class RasterParams(Parameters):
    """How fits and doubtful positions become pixels."""

    ignore_radius: float = parameter(
        3.0, meaning="radius of the disc around a doubtful position", unit="px", gt=0
    )
    weak_radius: float = parameter(
        2.0, meaning="radius of the disc around a weak reflection", unit="px", ge=0
    )


@dataclass(frozen=True)
class Positions:
    """Points on a frame.

    Attributes
    ----------
    panel : int64, (n,)
    ss, fs : float64, (n,)
        Pixels.
    radius : float
        Of the disc that each stands for, pixels.

    """

    panel: IntArray
    ss: Float64Array
    fs: Float64Array
    radius: float


def rasterize_labels(
    stack_shape: tuple[int, int, int],
    panel: npt.ArrayLike,
    profiles: Float64Array,
    *,
    ignore: tuple[Positions, ...] = (),
    bad_pixels: BoolArray,
) -> UInt8Array:
    """Draw one frame's label map.

    Parameters
    ----------
    stack_shape : (n_panels, ss, fs)
    panel : array_like of int, (n,)
    profiles : float64, (n, 11)
        Accepted fits in the order of ``profile.PROFILE_NAMES``, centres in panel pixels.
    ignore : tuple of Positions
        Doubtful positions, each set with its own disc.
    bad_pixels : bool, (n_panels, ss, fs)
        What teaches nothing in this frame: bad, unusable and saturated pixels.

    Returns
    -------
    uint8, (n_panels, ss, fs)
        0 background, 1 peak, 255 ignore.

    Raises
    ------
    LabelError
        A panel number or a profile doesn't fit the stack.

    """
    panels = np.asarray(panel, dtype=np.int64).reshape(-1)
    _check_profiles(stack_shape, panels, profiles, bad_pixels)
    labels = np.full(stack_shape, LABEL_BACKGROUND, dtype=np.uint8)
    for positions in ignore:
        _ignore_discs(labels, positions)
    peak = np.zeros(stack_shape, dtype=np.bool_)
    stamp_half_maximum(peak, panels, profiles)
    labels[peak] = LABEL_PEAK
    labels[bad_pixels] = LABEL_IGNORE
    return labels


def find_saturated(frame: FrameArray, saturation_adu: float | None) -> BoolArray | None:
    """Return which pixels reach the saturation value, or None when there is no such value."""
    return (
        None if saturation_adu is None else np.asarray(frame.astype(np.float64, copy=False) >= saturation_adu)
    )


def _check_profiles(
    stack_shape: tuple[int, int, int], panel: IntArray, profiles: Float64Array, bad_pixels: BoolArray
) -> None:
    if bad_pixels.shape != stack_shape:
        raise LabelError(
            "bad_pixels has another shape than the frame",
            where="rasterize_labels",
            expected=stack_shape,
            found=bad_pixels.shape,
        )
    if profiles.shape != (len(panel), N_PROFILE) or not np.isfinite(profiles).all():
        raise LabelError(
            "profiles must be finite, one row per panel number",
            where="rasterize_labels",
            expected=(len(panel), N_PROFILE),
            found=profiles.shape,
        )
    if len(panel) and (panel.min() < 0 or panel.max() >= stack_shape[0]):
        raise LabelError(
            "no such panel", where="rasterize_labels", expected=f"0 … {stack_shape[0] - 1}", found=panel.max()
        )


def _ignore_discs(labels: UInt8Array, positions: Positions) -> None:
    """Write 255 on every pixel within the radius; parts off the panel are cut."""
    reach = int(np.ceil(positions.radius)) + 1
    offset = np.arange(-reach, reach + 1)
    middle_ss, middle_fs = np.rint(positions.ss).astype(np.int64), np.rint(positions.fs).astype(np.int64)
    ss = middle_ss[:, None, None] + offset[None, :, None]
    fs = middle_fs[:, None, None] + offset[None, None, :]
    distance = np.hypot(ss - positions.ss[:, None, None], fs - positions.fs[:, None, None])
    inside = (
        (distance <= positions.radius)
        & (ss >= 0)
        & (ss < labels.shape[1])
        & (fs >= 0)
        & (fs < labels.shape[2])
    )
    panel = np.broadcast_to(np.asarray(positions.panel)[:, None, None], inside.shape)
    ss, fs = np.broadcast_to(ss, inside.shape), np.broadcast_to(fs, inside.shape)
    labels[panel[inside], ss[inside], fs[inside]] = LABEL_IGNORE
