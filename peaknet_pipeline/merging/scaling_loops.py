"""The compiled loops of scaling: sums over observations, and each crystal's scale and B factor."""

import numba
import numpy as np

from peaknet_pipeline.types import Float64Array, IntArray

GN_STEPS = 3
"""Gauss-Newton steps of a crystal's ln scale and B factor per round."""


@numba.njit(cache=True, nogil=True)
def sum_observations(
    row: IntArray,
    intensity: Float64Array,
    variance: Float64Array,
    shell: IntArray,
    excitation: IntArray,
    starts: IntArray,
    s2: Float64Array,
    log_scale: Float64Array,
    b_factor: Float64Array,
    accepted: IntArray,
    curve: Float64Array,
    spread2: Float64Array,
    reference: Float64Array,
    reference_variance: Float64Array,
    gain: float,
    outlier: float,
    sums: Float64Array,
) -> int:
    """Add each observation to its reflection's sums; return how many were left out.

    ``sums`` is (2, 4, n_unique), per half of the crystals: Σ w G², Σ w G I, Σ w I², Σ 1. The weight is
    w = 1/(v + g m + η² m²), where m = G R is what the reference leads to expect and G = k exp(−B s²/2) p.
    """
    left_out = 0
    for c in range(len(starts) - 1):
        if not accepted[c]:
            continue
        half = c % 2
        for i in range(starts[c], starts[c + 1]):
            r = row[i]
            g = np.exp(log_scale[c] - 0.5 * b_factor[c] * s2[r]) * curve[shell[i], excitation[i]]
            m = g * reference[r]
            v = variance[i] + gain * m + spread2[shell[i], excitation[i]] * m * m
            away = intensity[i] - m
            if away * away > outlier * outlier * (v + g * g * reference_variance[r]):
                left_out += 1
                continue
            w = 1.0 / v
            sums[half, 0, r] += w * g * g
            sums[half, 1, r] += w * g * intensity[i]
            sums[half, 2, r] += w * intensity[i] * intensity[i]
            sums[half, 3, r] += 1.0
    return left_out


@numba.njit(cache=True, nogil=True)
def scale_crystals(
    row: IntArray,
    intensity: Float64Array,
    variance: Float64Array,
    shell: IntArray,
    excitation: IntArray,
    starts: IntArray,
    s2: Float64Array,
    log_scale: Float64Array,
    b_factor: Float64Array,
    accepted: IntArray,
    curve: Float64Array,
    spread2: Float64Array,
    reference: Float64Array,
    sums: Float64Array,
    prior: Float64Array,
    gain: float,
    b_weight: float,
    bins: Float64Array,
    correlation: Float64Array,
) -> None:
    """Fit ln k and B of every crystal, in place, against the reflections merged from all the others.

    The reference without the crystal's own share is the mean of its Wilson prior, of mean and standard deviation ``prior`` (the
    mean intensity at that resolution), and of the others' observations. ``b_weight`` is the precision of B about 0. ``bins``,
    (4, n_shells, n_excitations), gains what the curve of the recorded share and the model's error are found from;
    ``correlation`` (n_crystals,) becomes that of the crystal with the others.
    """
    longest = 0
    for c in range(len(starts) - 1):
        longest = max(longest, starts[c + 1] - starts[c])
    expected, unknown = np.empty(longest), np.empty(longest)
    for c in range(len(starts) - 1):
        n = starts[c + 1] - starts[c]
        for j in range(n):
            i = starts[c] + j
            r = row[i]
            p = curve[shell[i], excitation[i]]
            g = np.exp(log_scale[c] - 0.5 * b_factor[c] * s2[r]) * p
            m = g * reference[r]
            w = accepted[c] / (variance[i] + gain * m + spread2[shell[i], excitation[i]] * m * m)
            s0 = max(sums[0, r] - w * g * g, 0.0) + 1.0 / (prior[r] * prior[r])
            s1 = sums[1, r] - w * g * intensity[i] + 1.0 / prior[r]
            expected[j] = p * max(s1 / s0, 0.0)
            unknown[j] = p * p / s0
        a, b = log_scale[c], b_factor[c]
        for _ in range(GN_STEPS):
            h_aa, h_ab, h_bb, g_a, g_b = 1e-12, 0.0, b_weight, 0.0, -b_weight * b
            for j in range(n):
                i = starts[c] + j
                f = np.exp(a - 0.5 * b * s2[row[i]])
                m = f * expected[j]
                v = variance[i] + gain * m + spread2[shell[i], excitation[i]] * m * m + f * f * unknown[j]
                away = intensity[i] - m
                w = 1.0 / v
                if away * away > 16.0 * v:  # Huber's weight beyond 4 σ
                    w *= 4.0 * np.sqrt(v) / abs(away)
                d_b = -0.5 * s2[row[i]] * m
                h_aa += w * m * m
                h_ab += w * m * d_b
                h_bb += w * d_b * d_b
                g_a += w * m * away
                g_b += w * d_b * away
            determinant = h_aa * h_bb - h_ab * h_ab
            if b_weight > 1e6 or determinant <= 0.0:
                a += min(max(g_a / h_aa, -1.0), 1.0)
            else:
                a += min(max((h_bb * g_a - h_ab * g_b) / determinant, -1.0), 1.0)
                b += min(max((h_aa * g_b - h_ab * g_a) / determinant, -20.0), 20.0)
        log_scale[c], b_factor[c] = a, b
        correlation[c] = _tell(
            c, row, intensity, variance, shell, excitation, starts, s2, a, b, expected, unknown, spread2, prior,
            gain, accepted[c], bins, curve,
        )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _tell(
    c: int,
    row: IntArray,
    intensity: Float64Array,
    variance: Float64Array,
    shell: IntArray,
    excitation: IntArray,
    starts: IntArray,
    s2: Float64Array,
    a: float,
    b: float,
    expected: Float64Array,
    unknown: Float64Array,
    spread2: Float64Array,
    prior: Float64Array,
    gain: float,
    accepted: int,
    bins: Float64Array,
    curve: Float64Array,
) -> float:
    """Add a crystal to the bins, and return its correlation with the reference, each over the mean at its resolution."""
    sw, sx, sy, sxx, syy, sxy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(starts[c], starts[c + 1]):
        j = i - starts[c]
        r = row[i]
        f = np.exp(a - 0.5 * b * s2[r])
        m = f * expected[j]
        noise = variance[i] + gain * m + f * f * unknown[j]
        v = noise + spread2[shell[i], excitation[i]] * m * m
        away = intensity[i] - m
        unit = f * curve[shell[i], excitation[i]] * prior[r]
        x, y, w = intensity[i] / unit, m / unit, unit * unit / v
        sw, sx, sy = sw + w, sx + w * x, sy + w * y
        sxx, syy, sxy = sxx + w * x * x, syy + w * y * y, sxy + w * x * y
        if accepted and away * away < 36.0 * v:
            u, u2 = 1.0 / v, 1.0 / (v * v)
            bins[0, shell[i], excitation[i]] += u * intensity[i] * m
            bins[1, shell[i], excitation[i]] += u * m * m
            bins[2, shell[i], excitation[i]] += u2 * (away * away - noise) * m * m
            bins[3, shell[i], excitation[i]] += u2 * m * m * m * m
    if sw <= 0.0:
        return 0.0
    mx, my = sx / sw, sy / sw
    vx, vy = sxx / sw - mx * mx, syy / sw - my * my
    if vx <= 0.0 or vy <= 0.0:
        return 0.0
    return float((sxy / sw - mx * my) / np.sqrt(vx * vy))
