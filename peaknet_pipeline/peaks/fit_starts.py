"""Where fits start: weights, start values and bounds, all from the patches themselves."""

import numpy as np

from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.fit_patches import Patches
from peaknet_pipeline.profile import (
    AMPLITUDE,
    CENTRE_FS,
    CENTRE_SS,
    ETA,
    GAMMA_FS,
    GAMMA_SS,
    N_PROFILE,
    PLANE_C,
    SIGMA_SS,
)
from peaknet_pipeline.types import Float64Array

START_SHAPE, SECOND_SHAPE = (1.3, 0.3), (0.6, 0.5)
"""σ and η that fits start from."""

CROSSED, CROSSED_ETA = (2.0, 0.6), 0.3
"""Factors on γ of one axis and the other, and η, of the starts that take a tied fit apart."""


def photon_weights(patches: Patches) -> Float64Array:
    """Return 1/√(photons + 1) per pixel, 0 where the pixel doesn't count; shape as the patches."""
    return np.where(patches.good, 1.0 / np.sqrt(np.maximum(patches.data, 0.0) + 1.0), 0.0)


def start_parameters(patches: Patches, params: FitParams) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return start values, lower and upper bounds, each (n, 11).

    Centres are relative to the patch's middle pixel. The background starts at the median of the patch's rim,
    the centre at the brightest 3×3 neighbourhood within reach of the expected position.
    """
    n, size = len(patches), patches.data.shape[1]
    expected = patches.start - patches.centre
    background = _rim_median(patches)
    above = np.where(patches.good, patches.data - background[:, None, None], 0.0)
    start = np.zeros((n, N_PROFILE))
    start[:, [CENTRE_SS, CENTRE_FS]] = _brightest_position(above, expected, params.max_shift)
    near = np.clip(np.rint(start[:, [CENTRE_SS, CENTRE_FS]]).astype(np.int64) + size // 2, 0, size - 1)
    start[:, AMPLITUDE] = np.maximum(above[np.arange(n), near[:, 0], near[:, 1]], 1.0)
    start[:, SIGMA_SS : GAMMA_FS + 1] = np.clip(START_SHAPE[0], params.min_width, params.max_width)
    start[:, ETA], start[:, PLANE_C] = START_SHAPE[1], background
    lower, upper = np.full((n, N_PROFILE), -np.inf), np.full((n, N_PROFILE), np.inf)
    for bound, sign in ((lower, -1.0), (upper, 1.0)):
        bound[:, [CENTRE_SS, CENTRE_FS]] = expected + sign * params.max_shift
    lower[:, SIGMA_SS : GAMMA_FS + 1], upper[:, SIGMA_SS : GAMMA_FS + 1] = params.min_width, params.max_width
    lower[:, ETA], upper[:, ETA] = 0.0, 1.0
    return start, lower, upper


def second_start(start: Float64Array, params: FitParams) -> Float64Array:
    """Return the start values with the narrower, more Lorentzian shape."""
    other = start.copy()
    other[:, SIGMA_SS : GAMMA_FS + 1] = np.clip(SECOND_SHAPE[0], params.min_width, params.max_width)
    other[:, ETA] = SECOND_SHAPE[1]
    return other


def crossed_starts(tied: Float64Array, params: FitParams) -> tuple[Float64Array, Float64Array]:
    """Return two starts for free widths from tied fits (n, 11): the Lorentzian long along one axis, or the other.

    With the first start they find the lowest minimum of 98 % of the spots that need free widths; any one start
    finds it of 86 % at most.
    """
    low, high = 1.02 * params.min_width, 0.98 * params.max_width
    starts = []
    for factors in (CROSSED, CROSSED[::-1]):
        start = tied.copy()
        start[:, GAMMA_SS : GAMMA_FS + 1] *= factors
        start[:, SIGMA_SS : GAMMA_FS + 1] = np.clip(start[:, SIGMA_SS : GAMMA_FS + 1], low, high)
        start[:, ETA] = CROSSED_ETA
        starts.append(start)
    return starts[0], starts[1]


def _rim_median(patches: Patches) -> Float64Array:
    rim = np.ones(patches.data.shape[1:], dtype=np.bool_)
    rim[1:-1, 1:-1] = False
    values = np.where(patches.good, patches.data, np.nan)
    background = np.zeros(len(patches))
    for chosen in (np.ones_like(rim), rim):
        pixels = values[:, chosen]
        some = np.isfinite(pixels).any(axis=1)
        background[some] = np.nanmedian(pixels[some], axis=1)
    return background


def _brightest_position(above: Float64Array, expected: Float64Array, max_shift: float) -> Float64Array:
    """Return the middle of the brightest 3×3 neighbourhood within reach, pulled inside the centre's box."""
    n, size, _ = above.shape
    padded = np.pad(above, ((0, 0), (1, 1), (1, 1)))
    smooth = sum(padded[:, i : i + size, j : j + size] for i in range(3) for j in range(3))
    offset = np.arange(size) - size // 2
    reach = 0.8 * max_shift
    near_ss = np.abs(offset[None, :] - expected[:, :1]) <= reach + 0.5
    near_fs = np.abs(offset[None, :] - expected[:, 1:]) <= reach + 0.5
    score = np.where(near_ss[:, :, None] & near_fs[:, None, :], smooth, -np.inf).reshape(n, size * size)
    best = np.column_stack(np.unravel_index(np.argmax(score, axis=1), (size, size))) - size // 2
    return np.asarray(np.clip(best, expected - reach, expected + reach), dtype=np.float64)
