# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""The profile model of ``profile`` compiled for one patch: residuals, analytic Jacobian, normal equations.

Parameters are in the order of ``profile.PROFILE_NAMES``, centres relative to the patch's middle pixel; pixels
are flat.
"""

import math

from numba import njit

from peaknet_pipeline.profile import HALF_WIDTH_PER_SIGMA


@njit(nogil=True, cache=True)
def tie_widths(p, tied):
    if tied:
        p[5], p[6] = HALF_WIDTH_PER_SIGMA * p[3], HALF_WIDTH_PER_SIGMA * p[4]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def fill_residuals(data, weight, p, pixels, shapes, residual):
    """Fill the Gaussian, the Lorentzian and the weighted residuals at p; return χ².

    ``pixels`` holds each pixel's (ss, fs) offset from the patch's middle, ``shapes`` gets Gaussian,
    Lorentzian and the offsets from the centre.
    """
    size = round(math.sqrt(data.size))
    inv_s2_ss, inv_s2_fs = 1.0 / (p[3] * p[3]), 1.0 / (p[4] * p[4])
    inv_g2_ss, inv_g2_fs = 1.0 / (p[5] * p[5]), 1.0 / (p[6] * p[6])
    gauss, lorentz, du, dv = shapes[0], shapes[1], shapes[2], shapes[3]
    for row in range(size):
        along = math.exp(-0.5 * (row - size // 2 - p[1]) ** 2 * inv_s2_ss)
        for column in range(size):
            gauss[row * size + column] = along
    for column in range(size):
        across = math.exp(-0.5 * (column - size // 2 - p[2]) ** 2 * inv_s2_fs)
        for row in range(size):
            gauss[row * size + column] *= across
    chi2 = 0.0
    for k in range(data.size):
        du[k] = pixels[0, k] - p[1]
        dv[k] = pixels[1, k] - p[2]
        lorentz[k] = 1.0 / (1.0 + du[k] * du[k] * inv_g2_ss + dv[k] * dv[k] * inv_g2_fs)
        plane = p[8] * pixels[0, k] + p[9] * pixels[1, k] + p[10]
        shape = gauss[k] + p[7] * (lorentz[k] - gauss[k])
        r = weight[k] * (data[k] - p[0] * shape - plane)
        residual[k] = r
        chi2 += r * r
    return chi2


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def fill_jacobian(weight, p, shapes, jacobian, tied):
    """Fill the rows of the Jacobian that move; those of the plane are constant."""
    gauss, lorentz, du, dv = shapes[0], shapes[1], shapes[2], shapes[3]
    inv_s2_ss, inv_s2_fs = 1.0 / (p[3] * p[3]), 1.0 / (p[4] * p[4])
    inv_g2_ss, inv_g2_fs = 1.0 / (p[5] * p[5]), 1.0 / (p[6] * p[6])
    for k in range(weight.size):
        w = weight[k]
        g = w * p[0] * (1.0 - p[7]) * gauss[k]
        l2 = 2.0 * w * p[0] * p[7] * lorentz[k] * lorentz[k]
        jacobian[0, k] = w * (gauss[k] + p[7] * (lorentz[k] - gauss[k]))
        jacobian[1, k] = du[k] * (g * inv_s2_ss + l2 * inv_g2_ss)
        jacobian[2, k] = dv[k] * (g * inv_s2_fs + l2 * inv_g2_fs)
        jacobian[3, k] = g * du[k] * du[k] * inv_s2_ss / p[3]
        jacobian[4, k] = g * dv[k] * dv[k] * inv_s2_fs / p[4]
        jacobian[5, k] = l2 * du[k] * du[k] * inv_g2_ss / p[5]
        jacobian[6, k] = l2 * dv[k] * dv[k] * inv_g2_fs / p[6]
        jacobian[7, k] = w * p[0] * (lorentz[k] - gauss[k])
    if tied:
        for axis in range(2):
            for k in range(weight.size):
                jacobian[3 + axis, k] += HALF_WIDTH_PER_SIGMA * jacobian[5 + axis, k]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def fill_normal_equations(jacobian, residual, normal, gradient, tied):
    n, m = jacobian.shape
    for i in range(n):
        skipped = tied and (i == 5 or i == 6)
        total = 0.0
        if not skipped:
            for k in range(m):
                total += jacobian[i, k] * residual[k]
        gradient[i] = total
        for j in range(i + 1):
            total = 0.0
            if not (skipped or (tied and (j == 5 or j == 6))):
                for k in range(m):
                    total += jacobian[i, k] * jacobian[j, k]
            normal[i, j] = total
            normal[j, i] = total


@njit(nogil=True, cache=True)
def list_pixels(weight, pixels, jacobian):
    """Fill the pixels' offsets from the middle and the plane's constant rows of the Jacobian."""
    size = round(math.sqrt(weight.size))
    for k in range(weight.size):
        pixels[0, k], pixels[1, k] = k // size - size // 2, k % size - size // 2
        jacobian[8, k], jacobian[9, k] = weight[k] * pixels[0, k], weight[k] * pixels[1, k]
        jacobian[10, k] = weight[k]
