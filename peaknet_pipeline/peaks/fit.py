"""Pseudo-Voigt + plane fits to reflections: the batched path, its verdicts, and the result."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from peaknet_pipeline.devices import choose_device, is_cpu
from peaknet_pipeline.peaks.fit_lm import CONVERGED, Solutions, solve_batch
from peaknet_pipeline.peaks.fit_params import FitFlag, FitParams
from peaknet_pipeline.peaks.fit_patches import Patches
from peaknet_pipeline.peaks.fit_starts import (
    crossed_starts,
    photon_weights,
    second_start,
    start_parameters,
)
from peaknet_pipeline.profile import (
    AMPLITUDE,
    CENTRE_FS,
    CENTRE_SS,
    ETA,
    GAMMA_FS,
    GAMMA_SS,
    HALF_WIDTH_PER_SIGMA,
    N_PROFILE,
    SIGMA_FS,
    SIGMA_SS,
)
from peaknet_pipeline.types import BoolArray, Float64Array, IntArray

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


def fit_patches(patches: Patches, params: FitParams | None = None) -> FitResult:
    """Fit the profile model to every patch by batched Levenberg–Marquardt and flag what went wrong.

    The slow equivalent is ``fit_lmfit.fit_patches_lmfit`` on the same patches.

    Parameters
    ----------
    patches : Patches
    params : FitParams, optional
        Its ``device`` says where: the CPU fits by compiled loops over all cores, a GPU all patches in step.

    """
    params = params or FitParams()
    n_pixels = patches.good.sum(axis=(1, 2)).astype(np.int64)
    enough = np.flatnonzero(n_pixels >= params.min_pixels)
    solved = _solve(patches.take(enough), params, _solver(params.device))
    values, errors = np.full((len(patches), N_PROFILE), np.nan), np.full((len(patches), N_PROFILE), np.nan)
    chi2, significance, converged = np.full((3, len(patches)), np.nan)
    reduced = solved.chi2 / np.maximum(n_pixels[enough] - N_PROFILE, 1)
    values[enough], chi2[enough], converged[enough] = solved.values, solved.chi2, solved.ending == CONVERGED
    errors[enough] = np.sqrt(np.where(solved.variances > 0, solved.variances, np.nan) * reduced[:, None])
    significance[enough] = _significance(solved, n_pixels[enough])
    return judge_fits(patches, params, values, errors, chi2, significance, converged == 1)


def _solver(name: str) -> Callable[..., Solutions]:
    if is_cpu(name):
        return solve_batch
    from peaknet_pipeline.peaks.fit_torch import solve_batch_torch

    return partial(solve_batch_torch, device=choose_device(name))


@dataclass(frozen=True)
class _Problem:
    """All patches to fit, and the solver; weights (n, size, size), bounds (n, 11)."""

    patches: Patches
    weights: Float64Array
    lower: Float64Array
    upper: Float64Array
    params: FitParams
    solver: Callable[..., Solutions]

    def solve(self, rows: IntArray, start: Float64Array, *, tied: bool) -> Solutions:
        """Fit the given rows from ``start`` (their start values)."""
        return self.solver(
            self.patches.data[rows],
            self.weights[rows],
            start,
            self.lower[rows],
            self.upper[rows],
            tied=tied,
            max_iterations=self.params.max_iterations,
            tolerance=self.params.tolerance,
        )


def _solve(patches: Patches, params: FitParams, solver: Callable[..., Solutions]) -> Solutions:
    """Fit with tied widths, from a second start as well where that is not sure, and free them where it pays."""
    start, lower, upper = start_parameters(patches, params)
    problem = _Problem(patches, photon_weights(patches), lower, upper, params, solver)
    rows, n_pixels = np.arange(len(patches)), patches.good.sum(axis=(1, 2))
    tied = problem.solve(rows, start, tied=True)
    unsure = np.flatnonzero(~(_significance(tied, n_pixels) >= SURE))
    tied = tied.improved(unsure, problem.solve(unsure, second_start(start[unsure], params), tied=True))
    if params.tied_widths:
        return tied
    free = problem.solve(rows, start, tied=False)
    for other in crossed_starts(tied.values, params):
        free = free.improved(rows, problem.solve(rows, other, tied=False))
    pays = np.flatnonzero(freeing_pays(tied.chi2, free.chi2, n_pixels, params))
    return tied.improved(pays, free.take(pays))


def freeing_pays(
    tied_chi2: Float64Array, free_chi2: Float64Array, n_pixels: IntArray, params: FitParams
) -> BoolArray:
    """Say which fits (n,) the data want with free widths: the decrease of χ² exceeds ``free_gain`` units of noise."""
    reduced = free_chi2 / np.maximum(n_pixels - N_PROFILE, 1)
    return np.asarray(tied_chi2 - free_chi2 > params.free_gain * reduced)


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


def _width_at_bound(values: Float64Array, params: FitParams) -> BoolArray:
    """Say which profiles are too wide in any direction, or as narrow as allowed in both: one pixel."""
    narrow = values <= params.min_width * (1 + 1e-4)
    wide = values >= params.max_width * (1 - 1e-4)
    sigma, gamma = slice(SIGMA_SS, SIGMA_FS + 1), slice(GAMMA_SS, GAMMA_FS + 1)
    at_sigma = narrow[:, sigma].all(axis=1) | wide[:, sigma].any(axis=1)
    at_gamma = narrow[:, gamma].all(axis=1) | wide[:, gamma].any(axis=1)
    tied = np.isclose(values[:, gamma], HALF_WIDTH_PER_SIGMA * values[:, sigma], rtol=1e-9).all(axis=1)
    free = at_sigma & (values[:, ETA] <= 0.9) | at_gamma & (values[:, ETA] >= 0.1)
    return np.where(tied, at_sigma, free)


def _centre_is_good(patches: Patches, values: Float64Array) -> BoolArray:
    size = patches.data.shape[1]
    centre = np.nan_to_num(values[:, [CENTRE_SS, CENTRE_FS]])
    pixel = np.rint(centre).astype(np.int64) + size // 2
    inside = ((pixel >= 0) & (pixel < size)).all(axis=1)
    pixel = np.clip(pixel, 0, size - 1)
    return np.asarray(inside & patches.good[np.arange(len(patches)), pixel[:, 0], pixel[:, 1]])
