# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""The profile of a Bragg spot, defined once: an elliptical pseudo-Voigt on a plane.

::

    model = A · [(1 − η) · G + η · L] + a · (ss − ss0) + b · (fs − fs0) + c
    G = exp(−½ [(Δss/σ_ss)² + (Δfs/σ_fs)²])          height 1
    L = 1 / (1 + (Δss/γ_ss)² + (Δfs/γ_fs)²)          height 1

with Δ the distance from the spot's centre and (ss0, fs0) the centre of the patch. The parameters' order is
``PROFILE_NAMES``; the columns of the ``FITS`` table carry the same names.
"""

import math

import numpy as np
from numba import njit

from peaknet_pipeline.types import BoolArray, Float64Array

PROFILE_NAMES = (
    "amplitude",
    "centre_ss",
    "centre_fs",
    "sigma_ss",
    "sigma_fs",
    "gamma_ss",
    "gamma_fs",
    "eta",
    "plane_a",
    "plane_b",
    "plane_c",
)
"""The parameters of the model, in the order of every parameter vector."""

N_PROFILE = len(PROFILE_NAMES)
AMPLITUDE, CENTRE_SS, CENTRE_FS, SIGMA_SS, SIGMA_FS, GAMMA_SS, GAMMA_FS, ETA, PLANE_A, PLANE_B, PLANE_C = (
    range(11)
)

HALF_WIDTH_PER_SIGMA = math.sqrt(2 * math.log(2))
"""Half width at half maximum of a Gaussian of σ = 1."""


def profile_shape(parameters: Float64Array, ss: Float64Array, fs: Float64Array) -> Float64Array:
    """Evaluate the pseudo-Voigt of height 1, without amplitude and plane.

    Parameters
    ----------
    parameters : float64, (11,)
        In the order of ``PROFILE_NAMES``.
    ss, fs : float64, broadcastable
        Positions, pixels, in the frame of the centre.

    """
    _, centre_ss, centre_fs, sigma_ss, sigma_fs, gamma_ss, gamma_fs, eta, *_ = parameters
    d_ss, d_fs = ss - centre_ss, fs - centre_fs
    gauss = np.exp(-0.5 * ((d_ss / sigma_ss) ** 2 + (d_fs / sigma_fs) ** 2))
    lorentz = 1.0 / (1.0 + (d_ss / gamma_ss) ** 2 + (d_fs / gamma_fs) ** 2)
    return np.asarray((1 - eta) * gauss + eta * lorentz, dtype=np.float64)


def profile_model(
    parameters: Float64Array, ss: Float64Array, fs: Float64Array, *, origin: tuple[float, float] = (0.0, 0.0)
) -> Float64Array:
    """Evaluate the whole model; ``origin`` is the patch centre (ss0, fs0) that the plane refers to."""
    a, b, c = parameters[PLANE_A], parameters[PLANE_B], parameters[PLANE_C]
    plane = a * (ss - origin[0]) + b * (fs - origin[1]) + c
    return np.asarray(parameters[AMPLITUDE] * profile_shape(parameters, ss, fs) + plane, dtype=np.float64)


def profile_half_widths(parameters: Float64Array) -> Float64Array:
    """Return the half widths at half maximum along ss and fs.

    Parameters
    ----------
    parameters : float64, (n, 11)

    Returns
    -------
    float64, (n, 2)
        Half widths (ss, fs), pixels: between the Gaussian's and the Lorentzian's own.

    """
    values = np.ascontiguousarray(parameters, dtype=np.float64).reshape(-1, N_PROFILE)
    ss = _half_widths(values[:, SIGMA_SS], values[:, GAMMA_SS], values[:, ETA])
    fs = _half_widths(values[:, SIGMA_FS], values[:, GAMMA_FS], values[:, ETA])
    return np.column_stack([ss, fs])


def stamp_half_maximum(
    label: BoolArray, panel: np.ndarray[tuple[int], np.dtype[np.int64]], parameters: Float64Array
) -> None:
    """Set True in ``label`` wherever a profile reaches half of its height; stamps are OR-ed.

    A profile too narrow to reach any pixel centre still marks the pixel that its centre lies in.

    Parameters
    ----------
    label : bool, (n_panels, ss, fs)
        Written in place: the one output buffer of a frame.
    panel : int64, (n,)
    parameters : float64, (n, 11)
        Profiles; centres in panel pixels.

    """
    values = np.ascontiguousarray(parameters, dtype=np.float64).reshape(-1, N_PROFILE)
    _stamp(label, np.ascontiguousarray(panel, dtype=np.int64), values, profile_half_widths(values))


def _half_widths(sigma: Float64Array, gamma: Float64Array, eta: Float64Array) -> Float64Array:
    """Bisect for the half width at half maximum of one-dimensional pseudo-Voigts, to 2⁻⁴⁰ of the bracket."""
    gauss = sigma * HALF_WIDTH_PER_SIGMA
    low, high = np.minimum(gauss, gamma), np.maximum(gauss, gamma)
    for _ in range(40):
        middle = 0.5 * (low + high)
        shape = (1 - eta) * np.exp(-0.5 * (middle / sigma) ** 2) + eta / (1 + (middle / gamma) ** 2)
        low, high = np.where(shape > 0.5, middle, low), np.where(shape > 0.5, high, middle)
    return np.asarray(0.5 * (low + high), dtype=np.float64)


@njit(nogil=True, cache=True)
def _stamp(label, panel, values, half_width):
    _, n_ss, n_fs = label.shape
    for i in range(len(panel)):
        p = values[i]
        ss_near, fs_near = round(p[1]), round(p[2])
        if 0 <= ss_near < n_ss and 0 <= fs_near < n_fs:
            label[panel[i], ss_near, fs_near] = True
        for ss in range(max(0, int(p[1] - half_width[i, 0])), min(n_ss, int(p[1] + half_width[i, 0]) + 2)):
            for fs in range(
                max(0, int(p[2] - half_width[i, 1])), min(n_fs, int(p[2] + half_width[i, 1]) + 2)
            ):
                d_ss, d_fs = ss - p[1], fs - p[2]
                gauss = math.exp(-0.5 * ((d_ss / p[3]) ** 2 + (d_fs / p[4]) ** 2))
                lorentz = 1.0 / (1.0 + (d_ss / p[5]) ** 2 + (d_fs / p[6]) ** 2)
                if (1.0 - p[7]) * gauss + p[7] * lorentz >= 0.5:
                    label[panel[i], ss, fs] = True
