"""Pseudo-Voigt + plane fits to reflections: parameters, start values, flags and the table of results."""

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import pandas as pd

from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.peaks.fit_lm import CONVERGED, solve_batch
from peaknet_pipeline.peaks.fit_patches import Patches
from peaknet_pipeline.profile import (
    AMPLITUDE,
    CENTRE_FS,
    CENTRE_SS,
    ETA,
    GAMMA_FS,
    GAMMA_SS,
    N_PROFILE,
    PLANE_A,
    PLANE_C,
    PROFILE_NAMES,
    SIGMA_FS,
    SIGMA_SS,
)
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import FITS, BoolArray, FitTable, Float64Array, IntArray, ReflectionTable


class FitFlag(IntFlag):
    """What went wrong in a fit; 0 = accepted."""

    NOT_CONVERGED = 1
    """The iterations ran out."""
    TOO_FEW_PIXELS = 2
    """Less than ``min_pixels`` good pixels; nothing was fitted."""
    NEGATIVE = 4
    """The spot is a hole."""
    INSIGNIFICANT = 8
    """The amplitude is below ``min_significance`` of its standard errors."""
    CENTRE_FAR = 16
    """The centre ran into its bound, ``max_shift`` from where it was expected."""
    WIDTH_AT_BOUND = 32
    """A width of a component that carries at least a tenth of the profile ran into its bound."""
    CHI2 = 64
    """The reduced χ² exceeds ``max_chi2``."""
    MASKED_CENTRE = 128
    """The pixel under the fitted centre is bad or off the panel."""


@dataclass(frozen=True)
class FitParams(Parameters):
    """How reflections are fitted and which fits are accepted."""

    half_size: int = parameter(4, meaning="pixels from a patch's middle to its edge", unit="px", ge=2, le=15)
    max_shift: float = parameter(2.5, meaning="largest shift from the expected position", unit="px", gt=0)
    min_width: float = parameter(0.25, meaning="least σ and γ", unit="px", gt=0)
    max_width: float = parameter(4.0, meaning="largest σ and γ", unit="px", gt=0)
    min_pixels: int = parameter(30, meaning="least good pixels in a patch", unit="px", ge=12)
    min_significance: float = parameter(4.0, meaning="least amplitude in standard errors", ge=0)
    max_chi2: float = parameter(2.0, meaning="largest reduced χ² of an accepted fit", gt=0)
    tied_widths: bool = parameter(
        True, meaning="Gaussian and Lorentzian share one half width per axis, γ = σ √(2 ln 2)"
    )
    max_iterations: int = parameter(300, meaning="most trial steps of a fit", ge=1)
    tolerance: float = parameter(1e-10, meaning="relative decrease of χ² that counts as none", gt=0)


@dataclass(frozen=True)
class FitResult:
    """Fits of many patches, centres relative to each patch's middle pixel, in photons.

    Attributes
    ----------
    values, errors : float64, (n, 11)
        Parameters and standard errors, in the order of ``PROFILE_NAMES``; an error is NaN for a parameter on
        its bound. Errors are those of the photon weights, not scaled by χ².
    chi2 : float64, (n,)
    n_pixels : int64, (n,)
    reduced_chi2 : float64, (n,)
        NaN where nothing was fitted.
    flags : int64, (n,)
        ``FitFlag`` bits.

    """

    values: Float64Array
    errors: Float64Array
    chi2: Float64Array
    n_pixels: IntArray
    reduced_chi2: Float64Array
    flags: IntArray

    @property
    def accepted(self) -> BoolArray:
        """Return which fits nothing is wrong with."""
        return np.asarray(self.flags == 0)


def photon_weights(patches: Patches) -> Float64Array:
    """Return 1/√(photons + 1) per pixel, 0 where the pixel doesn't count; shape as the patches."""
    return np.where(patches.good, 1.0 / np.sqrt(np.maximum(patches.data, 0.0) + 1.0), 0.0)


def start_parameters(patches: Patches, params: FitParams) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return start values, lower and upper bounds, each (n, 11), centres relative to the patch's middle
    pixel.

    The background starts at the median of the patch's rim, the centre at the brightest 3×3 neighbourhood
    within reach of the expected position.
    """
    n, size = len(patches), patches.data.shape[1]
    expected = patches.start - patches.centre
    background = _rim_median(patches)
    above = np.where(patches.good, patches.data - background[:, None, None], 0.0)
    start = np.zeros((n, N_PROFILE))
    start[:, [CENTRE_SS, CENTRE_FS]] = _brightest_position(above, expected, params.max_shift)
    near = np.clip(np.rint(start[:, [CENTRE_SS, CENTRE_FS]]).astype(np.int64) + size // 2, 0, size - 1)
    start[:, AMPLITUDE] = np.maximum(above[np.arange(n), near[:, 0], near[:, 1]], 1.0)
    start[:, SIGMA_SS : GAMMA_FS + 1] = np.clip(1.0, params.min_width, params.max_width)
    start[:, ETA], start[:, PLANE_C] = 0.3, background
    lower, upper = np.full((n, N_PROFILE), -np.inf), np.full((n, N_PROFILE), np.inf)
    for bound, sign in ((lower, -1.0), (upper, 1.0)):
        bound[:, [CENTRE_SS, CENTRE_FS]] = expected + sign * params.max_shift
    lower[:, SIGMA_SS : GAMMA_FS + 1], upper[:, SIGMA_SS : GAMMA_FS + 1] = params.min_width, params.max_width
    lower[:, ETA], upper[:, ETA] = 0.0, 1.0
    return start, lower, upper


def fit_patches(patches: Patches, params: FitParams | None = None) -> FitResult:
    """Fit the profile model to every patch by batched Levenberg–Marquardt and flag what went wrong.

    The slow equivalent is ``fit_lmfit.fit_patches_lmfit`` on the same patches.

    Parameters
    ----------
    patches : Patches
    params : FitParams, optional

    """
    params = params or FitParams()
    start, lower, upper = start_parameters(patches, params)
    n_pixels = patches.good.sum(axis=(1, 2)).astype(np.int64)
    enough = n_pixels >= params.min_pixels
    values, errors = np.full_like(start, np.nan), np.full_like(start, np.nan)
    chi2, ending = np.full(len(patches), np.nan), np.zeros(len(patches), dtype=np.int64)
    values[enough], variances, chi2[enough], ending[enough] = solve_batch(
        patches.data[enough],
        photon_weights(patches)[enough],
        start[enough],
        lower[enough],
        upper[enough],
        tied=params.tied_widths,
        max_iterations=params.max_iterations,
        tolerance=params.tolerance,
    )
    errors[enough] = np.sqrt(np.where(variances > 0, variances, np.nan))
    return judge_fits(patches, params, values, errors, chi2, ending == CONVERGED)


def judge_fits(
    patches: Patches,
    params: FitParams,
    values: Float64Array,
    errors: Float64Array,
    chi2: Float64Array,
    converged: BoolArray,
) -> FitResult:
    """Set the flags of fits, however they were made; rows of NaN are those that were not fitted."""
    n_pixels = patches.good.sum(axis=(1, 2)).astype(np.int64)
    reduced = chi2 / np.maximum(n_pixels - N_PROFILE, 1)
    fitted = np.isfinite(values).all(axis=1)
    shift = np.abs(values[:, [CENTRE_SS, CENTRE_FS]] - (patches.start - patches.centre))
    with np.errstate(invalid="ignore"):
        problems = {
            FitFlag.NOT_CONVERGED: ~converged,
            FitFlag.NEGATIVE: values[:, AMPLITUDE] <= 0,
            FitFlag.INSIGNIFICANT: ~(values[:, AMPLITUDE] >= params.min_significance * errors[:, AMPLITUDE]),
            FitFlag.CENTRE_FAR: (shift >= params.max_shift * (1 - 1e-6)).any(axis=1),
            FitFlag.WIDTH_AT_BOUND: _width_at_bound(values, params),
            FitFlag.CHI2: ~(reduced <= params.max_chi2),
            FitFlag.MASKED_CENTRE: ~_centre_is_good(patches, values),
        }
    flags = np.zeros(len(patches), dtype=np.int64)
    for flag, wrong in problems.items():
        flags[wrong & fitted] |= int(flag)
    flags[~fitted] = int(FitFlag.TOO_FEW_PIXELS)
    return FitResult(values, errors, chi2, n_pixels, np.where(fitted, reduced, np.nan), flags)


def fits_table(reflections: ReflectionTable, patches: Patches, result: FitResult) -> FitTable:
    """Return the fits as a FITS table in adu and panel pixels.

    Parameters
    ----------
    reflections : ReflectionTable or DataFrame
        One row per patch with ``frame, lattice, h, k, l, panel``.

    """
    gain = np.ones((len(patches), N_PROFILE))
    gain[:, [AMPLITUDE, *range(PLANE_A, PLANE_C + 1)]] = patches.adu_per_photon[:, None]
    values = result.values * gain
    values[:, [CENTRE_SS, CENTRE_FS]] += patches.centre
    errors = result.errors * gain
    columns: dict[str, object] = {
        n: reflections[n].to_numpy() for n in ("frame", "lattice", "h", "k", "l", "panel")
    }
    columns |= {name: _finite(values[:, i]) for i, name in enumerate(PROFILE_NAMES)}
    columns |= {f"{name}_error": _finite(errors[:, i]) for i, name in enumerate(PROFILE_NAMES)}
    columns |= {"reduced_chi2": _finite(result.reduced_chi2), "n_pixels": result.n_pixels}
    return make_table(FITS, {**columns, "flags": result.flags, "accepted": result.accepted})


def profile_values(fits: FitTable | pd.DataFrame) -> Float64Array:
    """Return the profile parameters of a FITS table, float64 (n, 11), centres in panel pixels."""
    return fits[list(PROFILE_NAMES)].to_numpy(dtype=np.float64)


def _finite(values: Float64Array) -> Float64Array:
    return np.where(np.abs(values) < 1e30, values, np.nan)


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
    near = (values <= params.min_width * (1 + 1e-4)) | (values >= params.max_width * (1 - 1e-4))
    sigma = near[:, SIGMA_SS : SIGMA_FS + 1].any(axis=1)
    gamma = near[:, GAMMA_SS : GAMMA_FS + 1].any(axis=1)
    if params.tied_widths:
        return np.asarray(sigma)
    return np.asarray(sigma & (values[:, ETA] <= 0.9) | gamma & (values[:, ETA] >= 0.1))


def _centre_is_good(patches: Patches, values: Float64Array) -> BoolArray:
    size = patches.data.shape[1]
    centre = np.nan_to_num(values[:, [CENTRE_SS, CENTRE_FS]])
    pixel = np.rint(centre).astype(np.int64) + size // 2
    inside = ((pixel >= 0) & (pixel < size)).all(axis=1)
    pixel = np.clip(pixel, 0, size - 1)
    return np.asarray(inside & patches.good[np.arange(len(patches)), pixel[:, 0], pixel[:, 1]])
