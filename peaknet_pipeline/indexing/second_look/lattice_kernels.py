"""The loops behind ``lattice_likelihood``, compiled: points near the Ewald sphere, sums of evidence, and the climb."""

from typing import Any, NamedTuple

import numba
import numpy as np

from peaknet_pipeline.indexing.second_look.diffraction_model import N_SHELLS
from peaknet_pipeline.indexing.second_look.flat_detector import UNCOVERED
from peaknet_pipeline.indexing.second_look.spot_likelihood import N_MEANS
from peaknet_pipeline.types import Float32Array, IntArray, UInt8Array

N_AMPLITUDES = 12
"""Brightnesses that are tried, factors of two apart."""

WIDTHS = 2.2
"""Reflections further from the Ewald sphere than so many widths are not counted."""

HALF_OCTAVE = 0.5 / np.log(2.0)
"""exp(−e² / 2w²) in factors of two: e² / w² times this."""


class LookUp(NamedTuple):
    """Evidence of a frame and the diffraction model in one; see ``FrameEvidence`` and ``ModelTable``."""

    seen: UInt8Array
    tables: Float32Array
    faintest: int
    wave: float
    distance: float
    half: int
    per_step: float
    width: Float32Array
    brightness: Float32Array
    ring: IntArray
    shell: IntArray


@numba.njit(cache=True, nogil=True)
def mean_of_exponentials(totals: Any) -> Any:
    """Return ln of the mean of exp over amplitudes and resolution limits; ``totals`` become sums up to each limit."""
    for shell in range(1, totals.shape[0]):
        totals[shell] += totals[shell - 1]
    top = totals.max()
    return top + np.log(np.exp(totals - top).mean())


@numba.njit(cache=True, nogil=True, fastmath=True)
def _row_intervals(
    base: Any,
    step: Any,
    deformation: Any,
    wave: Any,
    reach: Any,
    turn: Any,
    top: Any,
    vertex: Any,
    outer: Any,
    inner: Any,
) -> Any:
    """Fill, per row, the t at which f is least, and the distances from it between which |f| is small enough; outer < 0:
    nowhere.

    f = |s|² · (t − t₀)² + f₀ with f₀ = |b|² + 2k·b_z − |s|²·t₀², and |f| ≤ F means two intervals of t, one where a row
    only touches the sphere.
    """
    f = deformation
    sx = f[0, 0] * step[0] + f[0, 1] * step[1] + f[0, 2] * step[2]
    sy = f[1, 0] * step[0] + f[1, 1] * step[1] + f[1, 2] * step[2]
    sz = f[2, 0] * step[0] + f[2, 1] * step[1] + f[2, 2] * step[2]
    square = sx * sx + sy * sy + sz * sz
    most = 2.0 * wave * (reach + turn * top)
    for row in range(base.shape[1]):
        b0, b1, b2 = base[0, row], base[1, row], base[2, row]
        bx = f[0, 0] * b0 + f[0, 1] * b1 + f[0, 2] * b2
        by = f[1, 0] * b0 + f[1, 1] * b1 + f[1, 2] * b2
        bz = f[2, 0] * b0 + f[2, 1] * b1 + f[2, 2] * b2
        middle = -(bx * sx + by * sy + (bz + wave) * sz) / square
        lowest = bx * bx + by * by + (bz + 2.0 * wave) * bz - square * middle * middle
        vertex[row] = middle
        high = (most - lowest) / square
        outer[row] = np.sqrt(high) if high >= 0.0 else -1.0
        inner[row] = np.sqrt(max((-most - lowest) / square, 0.0))


@numba.njit(cache=True, nogil=True)
def near(
    base: Any, step: Any, first: Any, last: Any, top: Any, deformation: Any, wave: Any, reach: Any, turn: Any
) -> Any:
    """See :func:`near_points`; ``base`` is (3, n) here, ``top`` the largest |p|."""
    n_rows = base.shape[1]
    vertex, outer, inner = np.empty(n_rows), np.empty(n_rows), np.empty(n_rows)
    _row_intervals(base, step, deformation, wave, reach, turn, top, vertex, outer, inner)
    f = deformation
    capacity = 4096
    points = np.empty((capacity, 3))
    n = 0
    for row in range(n_rows):
        if outer[row] < 0.0:
            continue
        low = max(np.ceil(vertex[row] - outer[row]), first[row])
        high = min(np.floor(vertex[row] + outer[row]), last[row])
        t = low
        while t <= high:
            if abs(t - vertex[row]) < inner[row]:
                t = max(np.ceil(vertex[row] + inner[row]), t + 1.0)
                continue
            x, y, z = base[0, row] + t * step[0], base[1, row] + t * step[1], base[2, row] + t * step[2]
            qx = f[0, 0] * x + f[0, 1] * y + f[0, 2] * z
            qy = f[1, 0] * x + f[1, 1] * y + f[1, 2] * z
            qz = f[2, 0] * x + f[2, 1] * y + f[2, 2] * z
            g2 = qx * qx + qy * qy + qz * qz
            t += 1.0
            if g2 == 0.0 or abs(g2 + 2.0 * wave * qz) > 2.0 * wave * (reach + turn * np.sqrt(g2)):
                continue
            if n == capacity:
                capacity *= 2
                larger = np.empty((capacity, 3))
                larger[:n] = points
                points = larger
            points[n, 0], points[n, 1], points[n, 2] = x, y, z
            n += 1
    return points[:n].copy()


@numba.njit(cache=True, nogil=True, inline="always")
def _place(p: Any, f: Any, wave: Any, distance: Any, shift: Any) -> Any:
    """Return x and y on the flat detector, g² and the excitation error of one point; x is NaN behind the sample."""
    qx = f[0, 0] * p[0] + f[0, 1] * p[1] + f[0, 2] * p[2]
    qy = f[1, 0] * p[0] + f[1, 1] * p[1] + f[1, 2] * p[2]
    qz = f[2, 0] * p[0] + f[2, 1] * p[1] + f[2, 2] * p[2]
    g2 = qx * qx + qy * qy + qz * qz
    error = (g2 + 2.0 * wave * qz) / (2.0 * wave)
    ahead = qz + wave
    if ahead <= 0.0:
        return np.nan, 0.0, g2, error
    return qx / ahead * distance + shift[0], qy / ahead * distance + shift[1], g2, error


@numba.njit(cache=True, nogil=True)
def add_up(
    look: Any,
    points: Any,
    f: Any,
    shift: Any,
    totals: Any,
) -> Any:
    """Fill ``totals`` with the sum of evidence for each amplitude."""
    n_amplitudes = totals.shape[1]
    totals[:] = 0.0
    side = look.seen.shape[0]
    for i in range(points.shape[0]):
        x, y, g2, error = _place(points[i], f, look.wave, look.distance, shift)
        cell = int(g2 * look.per_step)
        if cell >= look.width.size or not np.isfinite(x):
            continue
        off = error / look.width[cell]
        if off > WIDTHS or off < -WIDTHS:
            continue
        column, row = int(np.floor(x)) + look.half, int(np.floor(y)) + look.half
        if column < 0 or row < 0 or column >= side or row >= side:
            continue
        value = look.seen[row, column]
        if value == UNCOVERED:
            continue
        # exp(−e² / 2w²) in steps of a factor of two: 1 / (2 ln 2) = 0.7213…
        m = int(np.floor(look.brightness[cell] - HALF_OCTAVE * off * off + 0.5)) + look.faintest
        line, total = look.tables[look.ring[cell], value], totals[look.shell[cell]]
        for a in range(n_amplitudes):
            k = m + a
            if k >= 0:
                total[a] += line[min(k, N_MEANS - 1)]


@numba.njit(cache=True, nogil=True)
def list_places(
    look: Any,
    points: Any,
    f: Any,
    shift: Any,
    amplitude: Any,
    out: Any,
) -> Any:
    side = look.seen.shape[0]
    n = 0
    for i in range(points.shape[0]):
        x, y, g2, error = _place(points[i], f, look.wave, look.distance, shift)
        cell = int(g2 * look.per_step)
        if cell >= look.width.size or not np.isfinite(x) or abs(error) > WIDTHS * look.width[cell]:
            continue
        column, row = int(np.floor(x)) + look.half, int(np.floor(y)) + look.half
        if column < 0 or row < 0 or column >= side or row >= side or look.seen[row, column] == UNCOVERED:
            continue
        off = error / look.width[cell]
        m = int(np.floor(look.brightness[cell] - HALF_OCTAVE * off * off + 0.5)) + look.faintest + amplitude
        value = look.tables[look.ring[cell], look.seen[row, column], min(m, N_MEANS - 1)] if m >= 0 else 0.0
        out[n, 0], out[n, 1], out[n, 2] = x, y, value
        n += 1
    return n


@numba.njit(cache=True, nogil=True)
def _turned(f: Any, axis: Any, angle: Any) -> Any:
    """Return F turned by a small angle about a laboratory axis (Rodrigues)."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn[a, a], turn[b, b], turn[a, b], turn[b, a] = c, c, -s, s
    return turn @ f


@numba.njit(cache=True, nogil=True)
def climb(
    look: Any,
    points: Any,
    deformation: Any,
    generators: Any,
    sigmas: Any,
    steps: Any,
    least: Any,
    shift: Any,
    result: Any,
) -> Any:
    """Try a step either way in each direction and keep what is better; halve the steps when nothing is."""
    n_strains = generators.shape[0]
    totals = np.zeros((N_SHELLS, N_AMPLITUDES))
    offsets = np.zeros(n_strains + 2)
    f = deformation.copy()
    add_up(look,
            points, f, shift, totals)  # fmt: skip
    score = mean_of_exponentials(totals)
    top = score
    scale = 1.0
    while scale >= least:
        moved = False
        for direction in range(3 + n_strains + 2):
            if direction >= 3 and sigmas[direction - 3] <= 0.0:
                continue
            for sign in (1.0, -1.0):
                step = sign * scale * steps[direction]
                trial, trial_shift, penalty = f, shift.copy(), 0.0
                if direction < 3:
                    trial = _turned(f, direction, step)
                elif direction < 3 + n_strains:
                    trial = f @ (np.eye(3) + step * generators[direction - 3])
                else:
                    trial_shift[direction - 3 - n_strains] += step
                for j in range(offsets.size):
                    if sigmas[j] > 0.0:
                        here = offsets[j] + (step if j == direction - 3 else 0.0)
                        penalty += 0.5 * (here / sigmas[j]) ** 2
                add_up(look,
                        points, trial, trial_shift, totals)  # fmt: skip
                value = mean_of_exponentials(totals)
                if value - penalty > top:
                    top, score = value - penalty, value
                    f, moved = trial, True
                    shift[:] = trial_shift
                    if direction >= 3:
                        offsets[direction - 3] += step
                    break
        if not moved:
            scale *= 0.5
    result[0] = score
    result[1:10] = f.copy().reshape(9)
    result[10:] = shift
