"""Pseudo-Voigt + plane fits to reflections: parameters, start values, flags and the table of results."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from functools import partial

import numpy as np

from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.peaks.fit_lm import CONVERGED, Solutions, solve_batch
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
    SIGMA_FS,
    SIGMA_SS,
)
from peaknet_pipeline.types import BoolArray, Float64Array, IntArray


class FitFlag(IntFlag):
    """What went wrong in a fit; 0 = accepted."""

    NOT_CONVERGED = 1
    """The iterations ran out."""
    TOO_FEW_PIXELS = 2
    """Less than ``min_pixels`` good pixels; nothing was fitted."""
    NEGATIVE = 4
    """The spot is a hole."""
    INSIGNIFICANT = 8
    """The significance is below ``min_significance``: the patch may well be background."""
    CENTRE_FAR = 16
    """The centre ran into its bound, ``max_shift`` from where it was expected."""
    WIDTH_AT_BOUND = 32
    """The profile is as wide as allowed, or as narrow as allowed in both directions (a single pixel)."""
    CHI2 = 64
    """The reduced χ² exceeds ``max_chi2`` and the misfit ``max_misfit`` of the spot."""
    MASKED_CENTRE = 128
    """The pixel under the fitted centre is bad or off the panel."""


@dataclass(frozen=True)
class FitParams(Parameters):
    """How reflections are fitted and which fits are accepted."""

    half_size: int = parameter(4, meaning="pixels from a patch's middle to its edge", unit="px", ge=2, le=15)
    max_shift: float = parameter(2.5, meaning="largest shift from the expected position", unit="px", gt=0)
    min_width: float = parameter(0.4, meaning="least σ and γ", unit="px", gt=0)
    max_width: float = parameter(4.0, meaning="largest σ and γ", unit="px", gt=0)
    min_pixels: int = parameter(30, meaning="least good pixels in a patch", unit="px", ge=12)
    min_significance: float = parameter(4.5, meaning="least amplitude over its error at fixed shape", ge=0)
    max_chi2: float = parameter(2.0, meaning="largest reduced χ² of an accepted fit", gt=0)
    max_misfit: float = parameter(
        0.3, meaning="misfit that is forgiven beyond max_chi2, as a share of the spot", ge=0, le=1
    )
    tied_widths: bool = parameter(
        True, meaning="Gaussian and Lorentzian share one half width per axis, γ = σ √(2 ln 2)"
    )
    max_iterations: int = parameter(300, meaning="most trial steps of a fit", ge=1)
    tolerance: float = parameter(1e-8, meaning="relative decrease of χ² that counts as none", gt=0)


START_SHAPE, SECOND_SHAPE = (1.3, 0.3), (0.6, 0.5)
"""σ and η that fits start from."""

SURE = 10.0
"""Significance below which the second start is tried as well: weak spots have more than one minimum."""


@dataclass(frozen=True)
class FitResult:
    """Fits of many patches, centres relative to each patch's middle pixel, in photons.

    Attributes
    ----------
    values, errors : float64, (n, 11)
        Parameters and standard errors, in the order of ``PROFILE_NAMES``; an error is NaN for a parameter on
        its bound. Errors are scaled by the root of the reduced χ² (lmfit's default): at few photons the
        weights 1/√(photons + 1) overstate the noise.
    chi2 : float64, (n,)
    n_pixels : int64, (n,)
    reduced_chi2 : float64, (n,)
        NaN where nothing was fitted.
    significance : float64, (n,)
        Amplitude over its standard error with centre, widths and η held: how sure it is that there is a spot.
    flags : int64, (n,)
        ``FitFlag`` bits.

    """

    values: Float64Array
    errors: Float64Array
    chi2: Float64Array
    n_pixels: IntArray
    reduced_chi2: Float64Array
    significance: Float64Array
    flags: IntArray

    @property
    def accepted(self) -> BoolArray:
        """Return which fits nothing is wrong with."""
        return np.asarray(self.flags == 0)

    def take(self, rows: IntArray) -> "FitResult":
        """Return the fits of the given rows."""
        return FitResult(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def replaced(self, rows: IntArray, other: "FitResult") -> "FitResult":
        """Return these fits with the given rows taken from ``other``, in order."""
        columns = {name: getattr(self, name).copy() for name in self.__dataclass_fields__}
        for name, column in columns.items():
            column[rows] = getattr(other, name)
        return FitResult(**columns)


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


def fit_patches(patches: Patches, params: FitParams | None = None, *, device: str = "cpu") -> FitResult:
    """Fit the profile model to every patch by batched Levenberg–Marquardt and flag what went wrong.

    The slow equivalent is ``fit_lmfit.fit_patches_lmfit`` on the same patches.

    Parameters
    ----------
    patches : Patches
    params : FitParams, optional
    device : str
        ``cpu`` fits by compiled loops over all cores, any other torch device in step on that device.

    """
    params = params or FitParams()
    n_pixels = patches.good.sum(axis=(1, 2)).astype(np.int64)
    enough = np.flatnonzero(n_pixels >= params.min_pixels)
    solved = _solve(patches.take(enough), params, _solver(device))
    values, errors = np.full((len(patches), N_PROFILE), np.nan), np.full((len(patches), N_PROFILE), np.nan)
    chi2, significance, converged = np.full((3, len(patches)), np.nan)
    reduced = solved.chi2 / np.maximum(n_pixels[enough] - N_PROFILE, 1)
    values[enough], chi2[enough], converged[enough] = solved.values, solved.chi2, solved.ending == CONVERGED
    errors[enough] = np.sqrt(np.where(solved.variances > 0, solved.variances, np.nan) * reduced[:, None])
    significance[enough] = _significance(solved, n_pixels[enough])
    return judge_fits(patches, params, values, errors, chi2, significance, converged == 1)


def _solver(device: str) -> Callable[..., Solutions]:
    if device == "cpu":
        return solve_batch
    from peaknet_pipeline.peaks.fit_torch import solve_batch_torch

    return partial(solve_batch_torch, device=device)


def _solve(patches: Patches, params: FitParams, solver: Callable[..., Solutions]) -> Solutions:
    """Fit every patch from the first start and those that are not sure from the second as well."""
    weights, (start, lower, upper) = photon_weights(patches), start_parameters(patches, params)

    def solve(rows: IntArray, begin: Float64Array) -> Solutions:
        return solver(
            patches.data[rows],
            weights[rows],
            begin,
            lower[rows],
            upper[rows],
            tied=params.tied_widths,
            max_iterations=params.max_iterations,
            tolerance=params.tolerance,
        )

    solved = solve(np.arange(len(patches)), start)
    unsure = np.flatnonzero(~(_significance(solved, patches.good.sum(axis=(1, 2))) >= SURE))
    return solved.improved(unsure, solve(unsure, second_start(start[unsure], params)))


def _significance(solved: Solutions, n_pixels: IntArray) -> Float64Array:
    reduced = solved.chi2 / np.maximum(n_pixels - N_PROFILE, 1)
    error = np.sqrt(np.maximum(solved.fixed_shape * reduced, 1e-300))
    return np.asarray(solved.values[:, AMPLITUDE] / error, dtype=np.float64)


def judge_fits(
    patches: Patches,
    params: FitParams,
    values: Float64Array,
    errors: Float64Array,
    chi2: Float64Array,
    significance: Float64Array,
    converged: BoolArray,
) -> FitResult:
    """Set the flags of fits, however they were made; rows of NaN are those that were not fitted."""
    n_pixels = patches.good.sum(axis=(1, 2)).astype(np.int64)
    reduced = chi2 / np.maximum(n_pixels - N_PROFILE, 1)
    fitted = np.isfinite(values).all(axis=1)
    shift = np.abs(values[:, [CENTRE_SS, CENTRE_FS]] - (patches.start - patches.centre))
    # (significance² · reduced χ²) is the spot's own share of χ²: no profile fits ten thousand photons to
    # within their noise.
    forgiven = params.max_misfit**2 * significance**2 * reduced / np.maximum(n_pixels - N_PROFILE, 1)
    with np.errstate(invalid="ignore"):
        problems = {
            FitFlag.NOT_CONVERGED: ~converged,
            FitFlag.NEGATIVE: values[:, AMPLITUDE] <= 0,
            FitFlag.INSIGNIFICANT: ~(significance >= params.min_significance),
            FitFlag.CENTRE_FAR: (shift >= params.max_shift * (1 - 1e-6)).any(axis=1),
            FitFlag.WIDTH_AT_BOUND: _width_at_bound(values, params),
            FitFlag.CHI2: ~(reduced <= params.max_chi2 + forgiven),
            FitFlag.MASKED_CENTRE: ~_centre_is_good(patches, values),
        }
    flags = np.zeros(len(patches), dtype=np.int64)
    for flag, wrong in problems.items():
        flags[wrong & fitted] |= int(flag)
    flags[~fitted] = int(FitFlag.TOO_FEW_PIXELS)
    reduced = np.where(fitted, reduced, np.nan)
    return FitResult(values, errors, chi2, n_pixels, reduced, np.where(fitted, significance, np.nan), flags)


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


def _width_at_bound(values: Float64Array, params: FitParams) -> BoolArray:
    """Say which profiles are too wide in any direction, or as narrow as allowed in both: one pixel."""
    narrow = values <= params.min_width * (1 + 1e-4)
    wide = values >= params.max_width * (1 - 1e-4)
    sigma, gamma = slice(SIGMA_SS, SIGMA_FS + 1), slice(GAMMA_SS, GAMMA_FS + 1)
    at_sigma = narrow[:, sigma].all(axis=1) | wide[:, sigma].any(axis=1)
    at_gamma = narrow[:, gamma].all(axis=1) | wide[:, gamma].any(axis=1)
    if params.tied_widths:
        return np.asarray(at_sigma)
    return np.asarray(at_sigma & (values[:, ETA] <= 0.9) | at_gamma & (values[:, ETA] >= 0.1))


def _centre_is_good(patches: Patches, values: Float64Array) -> BoolArray:
    size = patches.data.shape[1]
    centre = np.nan_to_num(values[:, [CENTRE_SS, CENTRE_FS]])
    pixel = np.rint(centre).astype(np.int64) + size // 2
    inside = ((pixel >= 0) & (pixel < size)).all(axis=1)
    pixel = np.clip(pixel, 0, size - 1)
    return np.asarray(inside & patches.good[np.arange(len(patches)), pixel[:, 0], pixel[:, 1]])
