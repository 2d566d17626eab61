"""Scale, B factor, recorded share and error of every crystal of a run, and the sums that its merged set is made from.

An observation I of reflection h in crystal c is modelled as

    I = k exp(−B s²/2) p(ε) R_h,   variance v + g m + η(ε)² m²,

with s = 1/d, the crystal's scale k and B factor, the recorded share p of an excitation error ε, the merged intensity R,
background variance v, gain g and the model's value m. p and η are no assumed curves: both are found from the run itself, in
bins of resolution and of ε over the largest ε predicted for the crystal. Where ε tells nothing, p comes out flat and η near
that of unscaled partials, and the merged set is the Monte-Carlo mean (Kirian et al., Acta Cryst. A67, 131, 2011) weighted by
noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peaknet_pipeline.merging.observations import N_EXCITATIONS, N_SHELLS, Observations
from peaknet_pipeline.merging.parameters import MergeParams
from peaknet_pipeline.merging.scaling_loops import scale_crystals, sum_observations
from peaknet_pipeline.types import BoolArray, Float64Array

N_SUMS = 4
"""Sums per half and unique reflection; see ``scaling_loops.sum_observations``."""


@dataclass
class Scaling:
    """The state of scaling one run: per crystal, per bin, and per unique reflection.

    ``log_scale``, ``b_factor`` (Å²), ``correlation``, ``accepted`` are (n_crystals,); ``curve`` and ``spread2`` are
    (n_shells, n_excitations); ``sums`` is (2, 4, n_unique).
    """

    log_scale: Float64Array
    b_factor: Float64Array
    correlation: Float64Array
    accepted: BoolArray
    curve: Float64Array
    spread2: Float64Array
    prior: Float64Array
    reference: Float64Array
    reference_variance: Float64Array
    sums: Float64Array
    n_left_out: int = 0
    reasons: list[str] = field(default_factory=list)


def scale_run(observations: Observations, params: MergeParams) -> Scaling:
    """Scale a run's crystals against each other; see the module."""
    state = _start(observations)
    for cycle in range(params.n_cycles):
        _scale(observations, state, params, last=cycle == params.n_cycles - 1)
    _sum(observations, state, params)
    return state


def _start(obs: Observations) -> Scaling:
    """Start from crystals that are scaled to the mean intensity at each resolution, which needs no common reflection."""
    n, m = obs.n_crystals, len(obs.keys)
    shape = (N_SHELLS, N_EXCITATIONS)
    total = np.bincount(obs.shell, weights=obs.intensity, minlength=N_SHELLS)
    mean = np.maximum(
        total / np.maximum(np.bincount(obs.shell, minlength=N_SHELLS), 1), 1e-3 * total.max() / len(obs.row)
    )
    own = np.add.reduceat(obs.intensity.astype(np.float64), obs.starts[:-1])
    usual = np.add.reduceat(mean[obs.shell], obs.starts[:-1])
    log_scale = np.log(np.clip(own / usual, 1e-3, 1e3))
    prior = _on_reflections(obs, mean)
    return Scaling(
        log_scale, np.zeros(n), np.ones(n), np.ones(n, dtype=bool), np.ones(shape), np.ones(shape), prior,
        prior.copy(), prior**2, np.zeros((2, N_SUMS, m)),
    )  # fmt: skip


def _on_reflections(obs: Observations, by_shell: Float64Array) -> Float64Array:
    """Return a value per unique reflection, (n_unique,), drawn through those of the shells on a logarithmic scale."""
    s2 = obs.inv_d**2
    centres = np.bincount(obs.shell, weights=s2[obs.row], minlength=N_SHELLS)
    counts = np.bincount(obs.shell, minlength=N_SHELLS)
    known = (counts > 0) & (by_shell > 0)
    if not known.any():
        return np.ones(len(s2))
    return np.asarray(np.exp(np.interp(s2, centres[known] / counts[known], np.log(by_shell[known]))))


def _scale(obs: Observations, state: Scaling, params: MergeParams, *, last: bool) -> None:
    _sum(obs, state, params)
    bins = np.zeros((4, N_SHELLS, N_EXCITATIONS))
    b_weight = 1.0 / params.b_spread**2 if params.scale_b else 1e12
    scale_crystals(
        *_columns(obs), obs.inv_d**2, state.log_scale, state.b_factor, state.accepted.astype(np.int64), state.curve,
        state.spread2, state.reference, state.sums[:, :2].sum(axis=0), state.prior, obs.gain, b_weight, bins,
        state.correlation,
    )  # fmt: skip
    _judge_crystals(obs, state, params)
    good = state.accepted
    state.log_scale -= np.median(state.log_scale[good]) if good.any() else 0.0
    state.b_factor -= np.median(state.b_factor[good]) if good.any() else 0.0
    if not last:
        _update_curves(obs, state, bins)


def _update_curves(obs: Observations, state: Scaling, bins: Float64Array) -> None:
    """Find the recorded share and the model's error anew; bins with little signal take their neighbours' values."""
    counts = np.zeros((N_SHELLS, N_EXCITATIONS))
    np.add.at(counts, (obs.shell, obs.excitation), 1.0)
    smooth = [_smoothed(bins[n]) for n in (0, 1)]
    ratio = np.divide(smooth[0], smooth[1], out=np.ones_like(counts), where=smooth[1] > 0)
    state.curve *= np.clip(ratio, 0.3, 3.0)
    mean = (state.curve * counts).sum(axis=1) / np.maximum(counts.sum(axis=1), 1.0)
    state.curve = np.clip(state.curve / np.maximum(mean, 1e-6)[:, None], 0.02, 50.0)
    top, bottom = _smoothed(bins[2]), _smoothed(bins[3])
    spread2 = np.divide(top, bottom, out=np.ones_like(counts), where=bottom > 0)
    state.spread2 = np.clip(spread2, 0.01, 9.0)


def _smoothed(values: Float64Array) -> Float64Array:
    """Return the bins summed with their neighbours in resolution, (1, 2, 3, 2, 1) deep, so that none is empty."""
    padded = np.pad(values, ((2, 2), (0, 0)), mode="edge")
    n = len(values)
    return np.asarray(sum(w * padded[k : k + n] for k, w in enumerate((1.0, 2.0, 3.0, 2.0, 1.0))))


def _sum(obs: Observations, state: Scaling, params: MergeParams) -> None:
    """Merge with the present scales: sums, the mean curve of intensity, and each reflection's expectation with its variance."""
    state.sums = np.zeros((2, N_SUMS, len(obs.keys)))
    state.n_left_out = sum_observations(
        *_columns(obs), obs.inv_d**2, state.log_scale, state.b_factor, state.accepted.astype(np.int64), state.curve,
        state.spread2, state.reference, state.reference_variance, obs.gain, params.outlier_sigma, state.sums,
    )  # fmt: skip
    s0, s1 = state.sums[:, :2].sum(axis=0)
    state.prior = _mean_curve(obs, state.prior, s0, s1)
    precision = s0 + 1.0 / state.prior**2
    state.reference = np.maximum((s1 + 1.0 / state.prior) / precision, 0.0)
    state.reference_variance = 1.0 / precision


def _mean_curve(obs: Observations, before: Float64Array, s0: Float64Array, s1: Float64Array) -> Float64Array:
    """Return the mean intensity at each reflection's resolution: means of S1/S0, weighted by 1/(1/S0 + mean²)."""
    shell = np.zeros(len(obs.keys), dtype=np.int64)
    shell[obs.row] = obs.shell
    seen = s0 > 0
    value = np.divide(s1, s0, out=np.zeros_like(s0), where=seen)
    weight = np.where(seen, 1.0 / (np.divide(1.0, s0, out=np.ones_like(s0), where=seen) + before**2), 0.0)
    total = np.bincount(shell, weights=weight, minlength=N_SHELLS)
    mean = np.bincount(shell, weights=weight * value, minlength=N_SHELLS) / np.maximum(total, 1e-300)
    floor = 1e-3 * mean.max() if mean.max() > 0 else 1e-6
    return _on_reflections(obs, np.where(total > 0, np.maximum(mean, floor), 0.0))


def _judge_crystals(obs: Observations, state: Scaling, params: MergeParams) -> None:
    """Say which crystals take part, and why the others don't."""
    n = np.diff(obs.starts)
    enough = n >= params.min_crystal_reflections
    typical = np.median(state.log_scale[enough]) if enough.any() else 0.0
    far = np.abs(state.log_scale - typical) > np.log(params.max_scale_ratio)
    far |= np.abs(state.b_factor) > 6.0 * params.b_spread
    unlike = state.correlation + 1.0 / np.sqrt(n) < params.min_crystal_cc
    state.accepted = enough & ~far & ~unlike
    state.reasons = list(_reasons(enough, far, unlike))


def _reasons(enough: BoolArray, far: BoolArray, unlike: BoolArray) -> Iterator[str]:
    for has, is_far, is_unlike in zip(enough, far, unlike, strict=True):
        told = [
            text
            for text, holds in (
                ("too few reflections", not has),
                ("scale or B factor far from the others", is_far),
                ("no correlation with the others", is_unlike),
            )
            if holds
        ]
        yield "; ".join(told)


def _columns(obs: Observations) -> tuple[Any, Any, Any, Any, Any, Any]:
    return obs.row, obs.intensity, obs.variance, obs.shell, obs.excitation, obs.starts
