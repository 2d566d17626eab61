"""Which of the settings that a lattice cannot tell apart each crystal has, by correlation with the others.

After Brehm and Diederichs (Acta Cryst. D70, 101, 2014), as CrystFEL's ambigator: crystals in one setting correlate more with
each other than with those in another. Here each crystal is compared with the mean of all others in their present settings,
which costs one pass over the observations per round. The start is greedy, from the best measured crystal on, and is repeated
in other orders.
"""

import numba
import numpy as np

from peaknet_pipeline.merging.observations import Observations
from peaknet_pipeline.merging.scaling import Scaling
from peaknet_pipeline.merging.symmetry import Symmetry, asymmetric_keys
from peaknet_pipeline.types import Float64Array, IntArray

N_STARTS, N_SWEEPS = 4, 12
LARGEST_INTENSITY = 6.0
"""Intensities over the mean at their resolution are cut here, so that no single reflection decides."""


def resolve_settings(observations: Observations, scaling: Scaling, symmetry: Symmetry) -> IntArray:
    """Return each crystal's setting, (n_crystals,), as a row of ``symmetry.settings``; all 0 where there is no ambiguity.

    Which of the settings is called 0 is free: the largest group of crystals is.
    """
    n_settings = len(symmetry.settings)
    if n_settings == 1:
        return np.zeros(observations.n_crystals, dtype=np.int64)
    rows = _rows_by_setting(observations, symmetry)
    value, weight = _normalised(observations, scaling)
    information = np.add.reduceat(weight, observations.starts[:-1])
    best, best_score = np.zeros(observations.n_crystals, dtype=np.int64), -np.inf
    for start in range(N_STARTS):
        jitter = np.random.default_rng(start).exponential(size=len(information)) if start else 1.0
        order = np.argsort(-information * jitter, kind="stable")
        setting = np.full(len(information), -1, dtype=np.int64)
        score = _assign(rows, value, weight, observations.starts, order, setting, N_SWEEPS)
        if score > best_score:
            best, best_score = setting, score
    return _largest_first(best, symmetry)


def _rows_by_setting(obs: Observations, symmetry: Symmetry) -> IntArray:
    keys = np.stack(
        [asymmetric_keys(obs.hkl.astype(np.int64) @ s, symmetry.rotations) for s in symmetry.settings]
    )
    return np.unique(keys, return_inverse=True)[1].reshape(keys.shape)


def _normalised(obs: Observations, scaling: Scaling) -> tuple[Float64Array, Float64Array]:
    """Return each observation's intensity over what is usual for crystal, resolution and excitation, − 1; and its weight."""
    of = np.repeat(np.arange(obs.n_crystals), np.diff(obs.starts))
    s2 = obs.inv_d[obs.row] ** 2
    usual = np.exp(scaling.log_scale[of] - 0.5 * scaling.b_factor[of] * s2) * scaling.prior[obs.row]
    usual *= scaling.curve[obs.shell, obs.excitation]
    noise = (obs.variance + obs.gain * usual) / usual**2 + scaling.spread2[obs.shell, obs.excitation]
    value = np.clip(obs.intensity / usual, -LARGEST_INTENSITY, LARGEST_INTENSITY) - 1.0
    return value, 1.0 / (1.0 + noise)


def _largest_first(setting: IntArray, symmetry: Symmetry) -> IntArray:
    """Rename the settings so that the largest group has the identity: S₀⁻¹·S for all."""
    largest = int(np.argmax(np.bincount(setting, minlength=len(symmetry.settings))))
    if largest == 0:
        return setting
    back = np.rint(np.linalg.inv(symmetry.settings[largest])).astype(np.int64)
    own = {r.tobytes() for rotation in symmetry.rotations for r in (rotation, -rotation)}
    names = np.zeros(len(symmetry.settings), dtype=np.int64)
    for number, one in enumerate(symmetry.settings):
        moved = one @ back
        for other, target in enumerate(symmetry.settings):
            if (moved @ np.rint(np.linalg.inv(target)).astype(np.int64)).tobytes() in own:
                names[number] = other
    return names[setting]


@numba.njit(cache=True, nogil=True)
def _assign(
    rows: IntArray,
    value: Float64Array,
    weight: Float64Array,
    starts: IntArray,
    order: IntArray,
    setting: IntArray,
    n_sweeps: int,
) -> float:
    """Give each crystal the setting that correlates best with the others, until none changes; return the summed score."""
    total, weights = np.zeros(rows.max() + 1), np.zeros(rows.max() + 1)
    score = 0.0
    for _ in range(n_sweeps):
        changed, score = 0, 0.0
        for c in order:
            before = setting[c]
            if before >= 0:
                for i in range(starts[c], starts[c + 1]):
                    total[rows[before, i]] -= weight[i] * value[i]
                    weights[rows[before, i]] -= weight[i]
            best, best_value = 0, -1e300
            for s in range(rows.shape[0]):
                product, square = 0.0, 1e-12
                for i in range(starts[c], starts[c + 1]):
                    r = rows[s, i]
                    mean = total[r] / (weights[r] + 1.0)
                    product += weight[i] * value[i] * mean
                    square += weight[i] * mean * mean
                found = product / np.sqrt(square)
                if found > best_value:
                    best, best_value = s, found
            score += best_value
            changed += best != before
            setting[c] = best
            for i in range(starts[c], starts[c + 1]):
                total[rows[best, i]] += weight[i] * value[i]
                weights[rows[best, i]] += weight[i]
        if changed == 0:
            break
    return score
