"""The reference fit: lmfit's bounded least squares on the same patches, and the audit of the fast path."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.peaks.fit import FitResult, fit_patches, freeing_pays, judge_fits
from peaknet_pipeline.peaks.fit_params import FitParams
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
    HALF_WIDTH_PER_SIGMA,
    N_PROFILE,
    PROFILE_NAMES,
    profile_half_widths,
    profile_model,
    profile_shape,
)
from peaknet_pipeline.types import BoolArray, Float64Array


def fit_patches_lmfit(
    patches: Patches, params: FitParams | None = None, *, careful: bool = False
) -> FitResult:
    """Fit every patch with lmfit: same weights, start values and bounds as ``fit.fit_patches``.

    Parameters
    ----------
    patches : Patches
    params : FitParams, optional
    careful : bool
        Try every start that ``fit.fit_patches`` tries, with tight tolerances, at six times the cost: lmfit
        keeps to bounds by a transformation that is flat at the bound, where its ordinary tolerance ends a fit
        early.

    """
    params = params or FitParams()
    weights, n = photon_weights(patches), len(patches)
    values, errors = np.full((n, N_PROFILE), np.nan), np.full((n, N_PROFILE), np.nan)
    chi2, significance, converged = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
    starts, lower, upper = start_parameters(patches, params)
    for i in np.flatnonzero(patches.good.sum(axis=(1, 2)) >= params.min_pixels):
        spot = _Spot(patches.data[i], weights[i], patches.good[i], starts[i], lower[i], upper[i])
        values[i], errors[i], chi2[i], converged[i] = _fit_spot(spot, params, careful)
        significance[i] = _fixed_shape_significance(values[i], chi2[i], patches.good[i], weights[i])
    return judge_fits(patches, params, values, errors, chi2, significance, converged)


@dataclass(frozen=True)
class _Spot:
    """One patch: data, weight and good (size, size); start values and bounds (11,)."""

    data: Float64Array
    weight: Float64Array
    good: BoolArray
    start: Float64Array
    lower: Float64Array
    upper: Float64Array


_Outcome = tuple[Float64Array, Float64Array, float, bool]
"""Values, errors, χ², and whether lmfit calls it a success."""


def _fit_spot(spot: _Spot, params: FitParams, careful: bool) -> _Outcome:
    """Fit with tied widths, and with free ones where they are wanted and pay."""
    first = spot.start[None]
    starts = [first, second_start(first, params)] if careful else [first]
    tied = _best_fit(spot, starts, True, careful)
    if params.tied_widths:
        return tied
    starts = [first, *crossed_starts(tied[0][None], params)] if careful else [first]
    free = _best_fit(spot, starts, False, careful)
    pixels = np.array([spot.good.sum()], dtype=np.int64)
    return free if freeing_pays(np.array([tied[2]]), np.array([free[2]]), pixels, params)[0] else tied


def _best_fit(spot: _Spot, starts: list[Float64Array], tied: bool, careful: bool) -> _Outcome:
    return min((_fit_one(spot, start[0], tied, careful) for start in starts), key=lambda fit: fit[2])


def _fit_one(spot: _Spot, start: Float64Array, tied: bool, careful: bool) -> _Outcome:
    import lmfit

    half = spot.data.shape[0] // 2
    ss, fs = (np.nonzero(spot.good)[axis].astype(np.float64) - half for axis in (0, 1))
    y, w = spot.data[spot.good], spot.weight[spot.good]

    def residual(p: "lmfit.Parameters") -> Float64Array:
        return w * (y - profile_model(np.array([p[n].value for n in PROFILE_NAMES]), ss, fs))

    guess = lmfit.Parameters()
    for name, value, low, high in zip(PROFILE_NAMES, start, spot.lower, spot.upper, strict=True):
        guess.add(name, value=value, min=low, max=high)
    for axis in ("ss", "fs") if tied else ():
        guess[f"gamma_{axis}"].set(expr=f"{HALF_WIDTH_PER_SIGMA!r} * sigma_{axis}", min=-np.inf, max=np.inf)
    limits = {"ftol": 1e-12, "xtol": 1e-12} if careful else {}
    result = lmfit.minimize(residual, guess, method="leastsq", scale_covar=True, max_nfev=20000, **limits)
    values = np.array([result.params[n].value for n in PROFILE_NAMES])
    errors = np.array([result.params[n].stderr or np.nan for n in PROFILE_NAMES])
    return values, errors, float(result.chisqr), bool(result.success)


def _fixed_shape_significance(
    values: Float64Array, chi2: float, good: BoolArray, weight: Float64Array
) -> float:
    """Return amplitude / error by linear least squares over the amplitude and the plane alone."""
    half = good.shape[0] // 2
    ss, fs = (np.nonzero(good)[axis].astype(np.float64) - half for axis in (0, 1))
    design = (
        np.column_stack([profile_shape(values, ss, fs), ss, fs, np.ones(len(ss))]) * weight[good][:, None]
    )
    variance = np.linalg.pinv(design.T @ design)[0, 0] * chi2 / max(len(ss) - N_PROFILE, 1)
    return float(values[AMPLITUDE] / np.sqrt(max(variance, 1e-300)))


@dataclass(frozen=True)
class FitAudit:
    """How far the batched fit and lmfit agree on the same patches.

    Shares are of the fits that the batched path accepts. Widths are compared as half widths at half maximum
    of the
    profile along each axis: σ of a component that carries nothing is not defined by the data.
    """

    n_patches: int
    n_accepted: int
    agreement: float
    centre_agree: float
    width_agree: float
    amplitude_agree: float
    chi2_agree: float
    accept_agree: float
    lower_chi2: float
    higher_chi2: float
    median_centre_difference: float
    largest_centre_difference: float

    def to_dict(self) -> dict[str, float | int]:
        """Return names and values, ready for JSON."""
        return asdict(self)


def audit_fits(
    patches: Patches, params: FitParams | None = None, *, n_sample: int = 50, seed: int = 0
) -> FitAudit:
    """Fit a random sample of patches both ways and report the agreement.

    Agreement: centres within 0.01 px, half widths and amplitude within 1 %, χ² within 1 %. Where lmfit's
    ordinary use disagrees it fits again with care, and its lower χ² counts.

    Parameters
    ----------
    patches : Patches
    params : FitParams, optional
    n_sample : int
        Patches compared; all when there are fewer.
    seed : int
        Of the sample.

    """
    rows = np.random.default_rng(seed).permutation(len(patches))[:n_sample]
    sample = patches.take(np.sort(rows))
    return compare_fits(fit_patches(sample, params), reference_fits(sample, params))


def reference_fits(patches: Patches, params: FitParams | None = None) -> FitResult:
    """Return lmfit's best answers: fitted again with care where the batched fit and it differ at first."""
    first = fit_patches_lmfit(patches, params)
    rows = np.flatnonzero(~_agreements(fit_patches(patches, params), first).all(axis=0))
    again = fit_patches_lmfit(patches.take(rows), params, careful=True)
    better = again.chi2 < first.chi2[rows]
    return first.replaced(rows[better], again.take(np.flatnonzero(better)))


def _agreements(fast: FitResult, reference: FitResult) -> BoolArray:
    """Return bool (4, n): centre, widths, amplitude and χ² agree; False where either has no fit."""
    a, b = fast.values, reference.values
    with np.errstate(invalid="ignore"):
        shift = np.abs(a - b)[:, [CENTRE_SS, CENTRE_FS]].max(axis=1)
        width = _relative(profile_half_widths(a), profile_half_widths(b)).max(axis=1)
        amplitude = _relative(a[:, AMPLITUDE], b[:, AMPLITUDE])
        chi2 = _relative(fast.chi2, reference.chi2)
        return np.stack([shift <= 0.01, width <= 0.01, amplitude <= 0.01, chi2 <= 0.01])


def compare_fits(fast: FitResult, reference: FitResult) -> FitAudit:
    """Compare two sets of fits of the same patches; shares are NaN when no fit is accepted."""
    rows = np.flatnonzero(fast.accepted)
    good = _agreements(fast, reference)[:, rows]
    signed = fast.chi2[rows] / reference.chi2[rows] - 1
    shift = np.abs(fast.values - reference.values)[rows][:, [CENTRE_SS, CENTRE_FS]].max(axis=1)
    return FitAudit(
        n_patches=len(fast.flags),
        n_accepted=len(rows),
        agreement=_mean(good.all(axis=0)),
        centre_agree=_mean(good[0]),
        width_agree=_mean(good[1]),
        amplitude_agree=_mean(good[2]),
        chi2_agree=_mean(good[3]),
        accept_agree=_mean(fast.accepted == reference.accepted),
        lower_chi2=_mean(signed < -1e-3),
        higher_chi2=_mean(signed > 1e-3),
        median_centre_difference=float(np.median(shift)) if len(rows) else float("nan"),
        largest_centre_difference=float(shift.max()) if len(rows) else float("nan"),
    )


def _relative(a: Float64Array, b: Float64Array) -> Float64Array:
    return np.asarray(np.abs(a - b) / np.maximum(np.abs(b), 1e-300), dtype=np.float64)


def _mean(values: npt.NDArray[np.bool_] | np.bool_) -> float:
    return float(np.mean(values)) if np.size(values) else float("nan")
