# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""The batched Levenberg–Marquardt: every patch its own bounded least squares, in parallel and without Python.

Marquardt's damping (1963) with the gain-ratio update of Nielsen (1999); bounds by projection: parameters that
sit on a bound with the gradient pointing outward leave the system of that iteration, steps are cut to the
box. The minimum is the one that any other bounded least squares finds from the same start (lmfit in
``fit_lmfit``).
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from peaknet_pipeline.peaks.fit_linear import factor_cholesky, solve_factored
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

    def improved(self, rows: IntArray, other: "Solutions") -> "Solutions":
        """Return these fits with those of ``other`` (made of ``rows``) wherever their χ² is lower."""
        better = other.chi2 < self.chi2[rows]
        merged = {name: getattr(self, name).copy() for name in self.__dataclass_fields__}
        for name, column in merged.items():
            column[rows[better]] = getattr(other, name)[better]
        return Solutions(**merged)


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
    _solve_all(
        data, weight, values, variances, lower, upper, summary, ending, tied, max_iterations, tolerance
    )
    return Solutions(values, variances, summary[:, 0], summary[:, 1], ending)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def _evaluate(data, weight, p, residual, jacobian, tied, with_jacobian):
    """Fill weighted residuals (and the Jacobian of the model times weight); return χ²."""
    size = data.shape[0]
    half = size // 2
    amplitude, eta = p[0], p[7]
    inv_s2_ss, inv_s2_fs = 1.0 / (p[3] * p[3]), 1.0 / (p[4] * p[4])
    inv_g2_ss, inv_g2_fs = 1.0 / (p[5] * p[5]), 1.0 / (p[6] * p[6])
    gauss_fs = np.empty(size)
    for column in range(size):
        dv = column - half - p[2]
        gauss_fs[column] = math.exp(-0.5 * dv * dv * inv_s2_fs)
    chi2 = 0.0
    for row in range(size):
        du = row - half - p[1]
        gauss_ss = math.exp(-0.5 * du * du * inv_s2_ss)
        lorentz_ss = 1.0 + du * du * inv_g2_ss
        for column in range(size):
            k = row * size + column
            dv = column - half - p[2]
            w = weight[row, column]
            gauss = gauss_ss * gauss_fs[column]
            lorentz = 1.0 / (lorentz_ss + dv * dv * inv_g2_fs)
            shape = gauss + eta * (lorentz - gauss)
            plane = p[8] * (row - half) + p[9] * (column - half) + p[10]
            r = w * (data[row, column] - amplitude * shape - plane)
            residual[k] = r
            chi2 += r * r
            if with_jacobian:
                g = w * amplitude * (1.0 - eta) * gauss
                l2 = 2.0 * w * amplitude * eta * lorentz * lorentz
                jacobian[0, k] = w * shape
                jacobian[1, k] = du * (g * inv_s2_ss + l2 * inv_g2_ss)
                jacobian[2, k] = dv * (g * inv_s2_fs + l2 * inv_g2_fs)
                jacobian[3, k] = g * du * du * inv_s2_ss / p[3]
                jacobian[4, k] = g * dv * dv * inv_s2_fs / p[4]
                jacobian[5, k] = l2 * du * du * inv_g2_ss / p[5]
                jacobian[6, k] = l2 * dv * dv * inv_g2_fs / p[6]
                jacobian[7, k] = w * amplitude * (lorentz - gauss)
                jacobian[8, k] = w * (row - half)
                jacobian[9, k] = w * (column - half)
                jacobian[10, k] = w
    if with_jacobian and tied:
        for k in range(size * size):
            for axis in range(2):
                jacobian[3 + axis, k] += _TIE * jacobian[5 + axis, k]
                jacobian[5 + axis, k] = 0.0
    return chi2


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def _normal_equations(jacobian, residual, normal, gradient):
    n, m = jacobian.shape
    for i in range(n):
        total = 0.0
        for k in range(m):
            total += jacobian[i, k] * residual[k]
        gradient[i] = total
        for j in range(i + 1):
            total = 0.0
            for k in range(m):
                total += jacobian[i, k] * jacobian[j, k]
            normal[i, j] = total
            normal[j, i] = total


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
def _tie_widths(p, tied):
    if tied:
        p[5], p[6] = _TIE * p[3], _TIE * p[4]


@njit(nogil=True, cache=True)
def _solve_one(data, weight, p, variance, summary, lower, upper, tied, max_iterations, tolerance):
    n_parameters, n_pixels = len(p), data.size
    residual, jacobian = np.empty(n_pixels), np.empty((n_parameters, n_pixels))
    normal, work = np.empty((n_parameters, n_parameters)), np.empty((n_parameters, n_parameters))
    gradient, step, scale = np.empty(n_parameters), np.empty(n_parameters), np.empty(n_parameters)
    trial, free = np.empty(n_parameters), np.empty(n_parameters, dtype=np.int64)
    _tie_widths(p, tied)
    chi2 = _evaluate(data, weight, p, residual, jacobian, tied, True)
    _normal_equations(jacobian, residual, normal, gradient)
    damping, growth, ending = 1e-3, 2.0, 1
    for _ in range(max_iterations):
        for i in range(n_parameters):
            scale[i] = math.sqrt(normal[i, i])
        n = _list_free(p, gradient, lower, upper, scale, free)
        if n == 0:
            ending = 0
            break
        solved = _damped_step(normal, gradient, scale, free, n, damping, work, step)
        promised, gained = -1.0, -1.0
        if solved:
            trial[:] = p
            for a in range(n):
                i = free[a]
                trial[i] = min(max(p[i] + step[a], lower[i]), upper[i])
            promised = _promise(normal, gradient, p, trial)
            _tie_widths(trial, tied)
            new_chi2 = _evaluate(data, weight, trial, residual, jacobian, tied, False)
            gained = chi2 - new_chi2
            negligible = tolerance * (chi2 + 1e-3)
            if damping <= 1.0 and max(math.fabs(promised), math.fabs(gained)) <= negligible:
                ending = 0
                break
        if gained > 0.0:
            p[:] = trial
            chi2 = _evaluate(data, weight, p, residual, jacobian, tied, True)
            _normal_equations(jacobian, residual, normal, gradient)
            ratio = gained / promised if promised > 0.0 else 0.0
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
    for a in range(n):
        column[:n] = 0.0
        column[a] = 1.0
        solve_factored(work, column, n)
        variance[free[a]] = column[a] / normal[free[a], free[a]]


@njit(parallel=True, nogil=True, cache=True)
def _solve_all(
    data, weight, values, variances, lower, upper, summary, ending, tied, max_iterations, tolerance
):
    for i in prange(len(data)):
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
