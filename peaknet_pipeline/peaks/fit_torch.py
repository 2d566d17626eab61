"""The batched Levenberg–Marquardt in torch, for patches on a GPU: ``fit_lm``'s algorithm, all patches in step."""

from dataclasses import dataclass

import numpy as np
import torch

from peaknet_pipeline.peaks.fit_lm import CONVERGED, MAX_ITERATIONS_REACHED, STUCK, Solutions
from peaknet_pipeline.profile import AMPLITUDE, HALF_WIDTH_PER_SIGMA, N_PROFILE, PLANE_A
from peaknet_pipeline.types import Float64Array


def solve_batch_torch(
    data: Float64Array,
    weight: Float64Array,
    start: Float64Array,
    lower: Float64Array,
    upper: Float64Array,
    *,
    tied: bool,
    max_iterations: int,
    tolerance: float,
    device: str | torch.device = "cuda",
    at_once: int = 131072,
) -> Solutions:
    """Fit the profile model to every patch on a torch device; arguments and result as ``fit_lm.solve_batch``.

    Parameters
    ----------
    data, weight, start, lower, upper, tied, max_iterations, tolerance
        As in ``fit_lm.solve_batch``.
    device : str or torch.device
    at_once : int
        Patches in memory at a time; each takes about 20 kB.

    """
    parts = []
    for first in range(0, max(len(data), 1), at_once):
        rows = slice(first, first + at_once)
        pixels, weights, begin, low, high = (
            torch.from_numpy(a[rows]).to(device) for a in (data, weight, start, lower, upper)
        )
        batch = _Batch(pixels, weights, begin, low, high, tied)
        parts.append(_solve_part(batch, max_iterations, tolerance))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Solutions(*columns)


@dataclass(frozen=True)
class _Batch:
    """Patches on a device: data and weight (n, size, size); start and bounds (n, 11), float64."""

    data: torch.Tensor
    weight: torch.Tensor
    start: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    tied: bool

    def take(self, rows: torch.Tensor) -> "_Batch":
        """Return the patches of the given rows."""
        return _Batch(
            self.data[rows],
            self.weight[rows],
            self.start[rows],
            self.lower[rows],
            self.upper[rows],
            self.tied,
        )


@dataclass(frozen=True)
class _System:
    """Normal equations at a point: chi2 (n,), normal (n, 11, 11), gradient (n, 11)."""

    chi2: torch.Tensor
    normal: torch.Tensor
    gradient: torch.Tensor


def _solve_part(
    batch: _Batch, max_iterations: int, tolerance: float
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.generic]], ...]:
    n = len(batch.data)
    p = _tie(batch.start.clone(), batch.tied)
    damping, growth = torch.full_like(p[:, 0], 1e-3), torch.full_like(p[:, 0], 2.0)
    ending = torch.full((n,), MAX_ITERATIONS_REACHED, dtype=torch.int64, device=p.device)
    rows = torch.arange(n, device=p.device)
    for _ in range(max_iterations):
        if not len(rows):
            break
        some = batch.take(rows)
        p[rows], damping[rows], growth[rows], state = _advance(
            some, p[rows], damping[rows], growth[rows], tolerance
        )
        ending[rows] = state
        rows = rows[state == MAX_ITERATIONS_REACHED]
    system = _linearize(batch, p)
    variances, fixed = _variances(system, p, batch)
    return tuple(x.cpu().numpy() for x in (p, variances, system.chi2, fixed, ending))


def _advance(
    batch: _Batch, p: torch.Tensor, damping: torch.Tensor, growth: torch.Tensor, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Try one step everywhere; return parameters, damping, growth, and which fits ended and how."""
    system = _linearize(batch, p)
    step, solved, movable = _damped_step(system, p, batch, damping)
    trial = _tie(torch.minimum(torch.maximum(p + step, batch.lower), batch.upper), batch.tied)
    d = trial - p
    promised = (d * (2 * system.gradient - (system.normal @ d[:, :, None])[:, :, 0])).sum(1)
    gained = system.chi2 - _chi2(batch, trial)
    gained = torch.where(solved & torch.isfinite(gained), gained, -1.0)
    negligible = tolerance * (system.chi2 + 1e-3)
    done = solved & (damping <= 1) & (torch.maximum(promised.abs(), gained.abs()) <= negligible) | ~movable
    better = (gained > 0) & ~done
    ratio = torch.where(promised > 0, gained / promised, torch.zeros_like(gained))
    shrink = torch.clamp(1 - (2 * ratio - 1) ** 3, min=1 / 3)
    new_damping = torch.where(better, torch.clamp(damping * shrink, min=1e-12), damping * growth)
    state = torch.full_like(growth, MAX_ITERATIONS_REACHED, dtype=torch.int64)
    state[new_damping > 1e12] = STUCK
    state[done] = CONVERGED
    return (
        torch.where(better[:, None], trial, p),
        new_damping,
        torch.where(better, torch.full_like(growth, 2.0), growth * 2),
        state,
    )


def _damped_step(
    system: _System, p: torch.Tensor, batch: _Batch, damping: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Solve the damped normal equations over the parameters that may move; held ones get a unit row."""
    held = (p <= batch.lower) & (system.gradient <= 0) | (p >= batch.upper) & (system.gradient >= 0)
    scale = system.normal.diagonal(dim1=1, dim2=2).sqrt()
    free = ~held & (scale > 0)
    inverse = torch.where(free, 1 / torch.where(scale > 0, scale, torch.ones_like(scale)), 0.0)
    matrix = system.normal * inverse[:, :, None] * inverse[:, None, :]
    matrix = matrix + torch.diag_embed(torch.where(free, damping[:, None], 1.0))
    factor, failure = torch.linalg.cholesky_ex(matrix)
    step = torch.cholesky_solve((system.gradient * inverse)[:, :, None], factor)[:, :, 0] * inverse
    solved = (failure == 0) & torch.isfinite(step).all(1)
    return torch.where(solved[:, None], step, 0.0), solved, free.any(1)


def _tie(p: torch.Tensor, tied: bool) -> torch.Tensor:
    if tied:
        p[:, 5:7] = HALF_WIDTH_PER_SIGMA * p[:, 3:5]
    return p


def _offsets(batch: _Batch, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pixel offsets from the middle, (size,), and from the centres, (n, size, 1) and (n, 1, size)."""
    size = batch.data.shape[1]
    middle = torch.arange(size, dtype=p.dtype, device=p.device) - size // 2
    return middle, (middle - p[:, 1:2])[:, :, None], (middle - p[:, 2:3])[:, None, :]


def _parts(p: torch.Tensor, du: torch.Tensor, dv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Gaussian and the Lorentzian, (n, size, size)."""
    s_ss, s_fs, g_ss, g_fs = (p[:, i, None, None] for i in range(3, 7))
    gauss = torch.exp(-0.5 * (du / s_ss) ** 2) * torch.exp(-0.5 * (dv / s_fs) ** 2)
    return gauss, 1 / (1 + (du / g_ss) ** 2 + (dv / g_fs) ** 2)


def _residual(
    batch: _Batch, p: torch.Tensor, gauss: torch.Tensor, lorentz: torch.Tensor, middle: torch.Tensor
) -> torch.Tensor:
    q = p[:, :, None, None]
    plane = q[:, 8] * middle[:, None] + q[:, 9] * middle + q[:, 10]
    return batch.weight * (batch.data - q[:, 0] * (gauss + q[:, 7] * (lorentz - gauss)) - plane)


def _chi2(batch: _Batch, p: torch.Tensor) -> torch.Tensor:
    middle, du, dv = _offsets(batch, p)
    return (_residual(batch, p, *_parts(p, du, dv), middle) ** 2).sum((1, 2))


def _linearize(batch: _Batch, p: torch.Tensor) -> _System:
    middle, du, dv = _offsets(batch, p)
    gauss, lorentz = _parts(p, du, dv)
    residual = _residual(batch, p, gauss, lorentz, middle)
    a, s_ss, s_fs, g_ss, g_fs, eta = (p[:, i, None, None] for i in (0, 3, 4, 5, 6, 7))
    g, l2 = a * (1 - eta) * gauss, 2 * a * eta * lorentz**2
    one = torch.ones_like(gauss)
    rows = [
        gauss + eta * (lorentz - gauss),
        du * (g / s_ss**2 + l2 / g_ss**2),
        dv * (g / s_fs**2 + l2 / g_fs**2),
        g * du**2 / s_ss**3,
        g * dv**2 / s_fs**3,
        l2 * du**2 / g_ss**3,
        l2 * dv**2 / g_fs**3,
        a * (lorentz - gauss),
        one * middle[:, None],
        one * middle,
        one,
    ]
    if batch.tied:
        rows[3], rows[4] = (rows[3 + i] + HALF_WIDTH_PER_SIGMA * rows[5 + i] for i in range(2))
        rows[5] = rows[6] = torch.zeros_like(one)
    jacobian = (torch.stack(rows, 1) * batch.weight[:, None]).flatten(2)
    flat = residual.flatten(1)
    return _System((flat**2).sum(1), jacobian @ jacobian.mT, (jacobian @ flat[:, :, None])[:, :, 0])


def _variances(system: _System, p: torch.Tensor, batch: _Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the parameters' variances off their bounds, (n, 11), and the amplitude's at fixed shape, (n,)."""
    diagonal = system.normal.diagonal(dim1=1, dim2=2)
    free = (p > batch.lower) & (p < batch.upper) & (diagonal > 0)
    variances = _inverse_diagonal(system.normal, free)
    if batch.tied:
        variances[:, 5:7] = HALF_WIDTH_PER_SIGMA**2 * variances[:, 3:5]
    linear = torch.zeros(N_PROFILE, dtype=torch.bool, device=p.device)
    linear[[AMPLITUDE, *range(PLANE_A, N_PROFILE)]] = True
    return variances, _inverse_diagonal(system.normal, linear & (diagonal > 0))[:, AMPLITUDE]


def _inverse_diagonal(normal: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    scale = normal.diagonal(dim1=1, dim2=2).sqrt()
    inverse = torch.where(free, 1 / torch.where(free, scale, torch.ones_like(scale)), 0.0)
    matrix = normal * inverse[:, :, None] * inverse[:, None, :] + torch.diag_embed((~free).to(normal.dtype))
    factor, failure = torch.linalg.cholesky_ex(matrix)
    eye = torch.eye(N_PROFILE, dtype=normal.dtype, device=normal.device).expand_as(matrix)
    diagonal = torch.cholesky_solve(eye, factor).diagonal(dim1=1, dim2=2) * inverse**2
    return torch.where(free & (failure == 0)[:, None], diagonal, torch.nan)
