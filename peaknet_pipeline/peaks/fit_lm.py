# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""The batched Levenberg–Marquardt: every patch its own bounded least squares, in parallel and without Python.

Marquardt's damping (1963) with the gain-ratio update of Nielsen (1999); bounds by projection: parameters that
sit on a bound with the gradient pointing outward leave the system of that iteration, steps are cut to the
box. The minimum is the one that any other bounded least squares finds from the same start (lmfit in
``fit_lmfit``).
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit

from peaknet_pipeline.peaks.fit_linear import factor_cholesky, solve_factored
from peaknet_pipeline.peaks.fit_model import (
    fill_jacobian,
    fill_normal_equations,
    fill_residuals,
    list_pixels,
    tie_widths,
)
from peaknet_pipeline.profile import HALF_WIDTH_PER_SIGMA, N_PROFILE
from peaknet_pipeline.types import Float64Array, IntArray

CONVERGED, MAX_ITERATIONS_REACHED, STUCK = 0, 1, 2
"""How a fit ended."""

_TIE = HALF_WIDTH_PER_SIGMA


@dataclass(frozen=True)
class Solutions:
    """Where the fits of a batch ended.

    Attributes
    ----------
    values : float64, (n, 11)
    variances : float64, (n, 11)
        Diagonal of the inverse of the weighted normal matrix over the parameters off their bounds; NaN
        elsewhere.
    chi2 : float64, (n,)
    fixed_shape : float64, (n,)
        Variance of the amplitude when centre, widths and η are held and only the plane moves with it.
    ending : int64, (n,)
        ``CONVERGED``, ``MAX_ITERATIONS_REACHED`` or ``STUCK``.

    """

    values: Float64Array
    variances: Float64Array
    chi2: Float64Array
    fixed_shape: Float64Array
    ending: IntArray

    def take(self, rows: IntArray) -> "Solutions":
        """Return the fits of the given rows."""
        return Solutions(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def improved(self, rows: IntArray, other: "Solutions") -> "Solutions":
        """Return these fits with those of ``other`` (made of ``rows``) wherever their χ² is lower."""
        better = other.chi2 < self.chi2[rows]
        merged = {name: getattr(self, name).copy() for name in self.__dataclass_fields__}
        for name, column in merged.items():
            column[rows[better]] = getattr(other, name)[better]
        return Solutions(**merged)


ROWS_AT_ONCE = 256
"""Patches that a thread takes at a time: small enough to share hard fits out evenly."""


def _shares(n: int) -> list[tuple[int, int]]:
    return [(first, min(first + ROWS_AT_ONCE, n)) for first in range(0, n, ROWS_AT_ONCE)]


def solve_batch(
    data: Float64Array,
    weight: Float64Array,
    start: Float64Array,
    lower: Float64Array,
    upper: Float64Array,
    *,
    tied: bool,
    max_iterations: int,
    tolerance: float,
) -> Solutions:
    """Fit the profile model to every patch.

    Parameters
    ----------
    data, weight : float64, (n, size, size)
        Photons, and 1/σ per pixel (0 leaves a pixel out).
    start, lower, upper : float64, (n, 11)
        Start values and bounds, centres relative to the patch's middle pixel.
    tied : bool
        Gaussian and Lorentzian share one half width per axis: γ = σ √(2 ln 2).
    max_iterations : int
        Most trial steps.
    tolerance : float
        Converged when a step promises less than this relative decrease of χ².

    """
    n = len(data)
    values, variances = start.copy(), np.full((n, N_PROFILE), np.nan)
    summary, ending = np.zeros((n, 2)), np.zeros(n, dtype=np.int64)
    arrays = (data.reshape(n, -1) if n else data[:, 0], weight.reshape(n, -1) if n else weight[:, 0])
    rest = (values, variances, lower, upper, summary, ending, tied, max_iterations, tolerance)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda rows: _solve_rows(*rows, *arrays, *rest), _shares(n)))  # type: ignore[call-arg]
    return Solutions(values, variances, summary[:, 0], summary[:, 1], ending)


@njit(nogil=True, cache=True)
def _list_free(p, gradient, lower, upper, scale, free):
    """List the parameters that may move: off their bounds or pulled inward, and with any influence."""
    n = 0
    for i in range(len(p)):
        held = (p[i] <= lower[i] and gradient[i] <= 0.0) or (p[i] >= upper[i] and gradient[i] >= 0.0)
        if not held and scale[i] > 0.0:
            free[n] = i
            n += 1
    return n


@njit(nogil=True, cache=True)
def _damped_step(normal, gradient, scale, free, n, damping, work, step):
    """Solve (N + damping·diag) step = gradient over the free parameters, scaled to a unit diagonal."""
    for a in range(n):
        i = free[a]
        for b in range(a + 1):
            work[a, b] = normal[i, free[b]] / (scale[i] * scale[free[b]])
        # Marquardt's scaling: with a unit diagonal one damping fits photons, pixels and η alike.
        work[a, a] += damping
        step[a] = gradient[i] / scale[i]
    if not factor_cholesky(work, n):
        return False
    solve_factored(work, step, n)
    for a in range(n):
        step[a] /= scale[free[a]]
    return True


@njit(nogil=True, cache=True)
def _promise(normal, gradient, p, trial):
    """Return the decrease of χ² that the quadratic model promises for the move from p to trial."""
    # χ²(p) - χ²(p + d) ≈ 2 gᵀd - dᵀ N d with N = JᵀJ, g = Jᵀr, r = weighted data minus model.
    n = len(p)
    total = 0.0
    for i in range(n):
        d = trial[i] - p[i]
        if d != 0.0:
            curved = 0.0
            for j in range(n):
                curved += normal[i, j] * (trial[j] - p[j])
            total += d * (2.0 * gradient[i] - curved)
    return total


@njit(nogil=True, cache=True)
def _solve_one(data, weight, p, variance, summary, lower, upper, tied, max_iterations, tolerance):
    n_parameters, n_pixels = len(p), data.size
    residual, jacobian = np.empty(n_pixels), np.empty((n_parameters, n_pixels))
    normal, work = np.empty((n_parameters, n_parameters)), np.empty((n_parameters, n_parameters))
    gradient, step, scale = np.empty(n_parameters), np.empty(n_parameters), np.empty(n_parameters)
    trial, free = np.empty(n_parameters), np.empty(n_parameters, dtype=np.int64)
    pixels, shapes = np.empty((2, n_pixels)), np.empty((4, n_pixels))
    tie_widths(p, tied)
    list_pixels(weight, pixels, jacobian)
    chi2 = fill_residuals(data, weight, p, pixels, shapes, residual)
    fill_jacobian(weight, p, shapes, jacobian, tied)
    fill_normal_equations(jacobian, residual, normal, gradient, tied)
    damping, growth, ending = 1e-3, 2.0, 1
    for _ in range(max_iterations):
        for i in range(n_parameters):
            scale[i] = math.sqrt(normal[i, i])
        n = _list_free(p, gradient, lower, upper, scale, free)
        if n == 0:
            ending = 0
            break
        solved = _damped_step(normal, gradient, scale, free, n, damping, work, step)
        promised, gained, new_chi2 = -1.0, -1.0, chi2
        if solved:
            trial[:] = p
            for a in range(n):
                i = free[a]
                trial[i] = min(max(p[i] + step[a], lower[i]), upper[i])
            promised = _promise(normal, gradient, p, trial)
            tie_widths(trial, tied)
            new_chi2 = fill_residuals(data, weight, trial, pixels, shapes, residual)
            gained = chi2 - new_chi2
            negligible = tolerance * (chi2 + 1e-3)
            if damping <= 1.0 and max(math.fabs(promised), math.fabs(gained)) <= negligible:
                ending = 0
                break
        if gained > 0.0:
            p[:] = trial
            chi2 = new_chi2
            fill_jacobian(weight, p, shapes, jacobian, tied)
            fill_normal_equations(jacobian, residual, normal, gradient, tied)
            ratio = gained / promised if promised > 0.0 else 0.0
            # Nielsen's update: where the quadratic model holds (ratio near 1) the damping falls to a third, where it
            # hardly does (ratio near 0) it doubles; failed steps in a row raise it ever faster.
            damping = max(damping * max(1.0 / 3.0, 1.0 - (2.0 * ratio - 1.0) ** 3), 1e-12)
            growth = 2.0
        else:
            damping *= growth
            growth *= 2.0
            if damping > 1e12:
                ending = 2
                break
    _fill_variance(normal, p, lower, upper, variance, work, step, free)
    if tied:
        variance[5:7] = _TIE * _TIE * variance[3:5]
    summary[0], summary[1] = chi2, _fixed_shape_variance(normal, work, step)
    return ending


@njit(nogil=True, cache=True)
def _fixed_shape_variance(normal, work, column):
    """Return the amplitude's variance with only the plane free beside it; NaN when that is singular."""
    # Parameters 0 (amplitude) and 8, 9, 10 (the plane): their block of N, scaled to a unit diagonal.
    for a in range(4):
        i = 0 if a == 0 else 7 + a
        for b in range(a + 1):
            j = 0 if b == 0 else 7 + b
            product = normal[i, i] * normal[j, j]
            if not product > 0.0:
                return math.nan
            work[a, b] = normal[i, j] / math.sqrt(product)
    if not factor_cholesky(work, 4):
        return math.nan
    column[:4] = 0.0
    column[0] = 1.0
    solve_factored(work, column, 4)
    return column[0] / normal[0, 0]


@njit(nogil=True, cache=True)
def _fill_variance(normal, p, lower, upper, variance, work, column, free):
    n = 0
    for i in range(len(p)):
        if lower[i] < p[i] < upper[i] and normal[i, i] > 0.0:
            free[n] = i
            n += 1
    for a in range(n):
        for b in range(n):
            work[a, b] = normal[free[a], free[b]] / math.sqrt(
                normal[free[a], free[a]] * normal[free[b], free[b]]
            )
    if not factor_cholesky(work, n):
        return
    # One column of N⁻¹ at a time; its diagonal element is the variance.
    for a in range(n):
        column[:n] = 0.0
        column[a] = 1.0
        solve_factored(work, column, n)
        variance[free[a]] = column[a] / normal[free[a], free[a]]


@njit(nogil=True, cache=True)
def _solve_rows(
    first,
    last,
    data,
    weight,
    values,
    variances,
    lower,
    upper,
    summary,
    ending,
    tied,
    max_iterations,
    tolerance,
):
    for i in range(first, last):
        ending[i] = _solve_one(
            data[i],
            weight[i],
            values[i],
            variances[i],
            summary[i],
            lower[i],
            upper[i],
            tied,
            max_iterations,
            tolerance,
        )
