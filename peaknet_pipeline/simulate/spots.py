"""Spots drawn into pixels, and what their signal-to-noise ratio is worth."""

import math

import numpy as np

from peaknet_pipeline.simulate.background import panel_sizes
from peaknet_pipeline.simulate.compilation import compiled
from peaknet_pipeline.simulate.ewald import Spots
from peaknet_pipeline.types import Float32Array, Float64Array, Geometry, IntArray

MIN_DRAWN_PHOTONS = 0.02
PIXEL_VARIANCE = 1 / 12
"""Variance (px²) that the pixel's own width adds to a profile."""

WINDOW = 4.5
"""Half width of the drawn window, in rms widths of the profile."""

NODE = 0.3872983346207417
"""Gauss-Legendre nodes on a pixel are −NODE, 0, NODE, with weights 5/18, 8/18, 5/18."""


def draw_spots(image: Float32Array, spots: Spots, geometry: Geometry) -> None:
    """Add the expected photons of all spots to ``image`` (n_panels, ss, fs), photons.

    Each profile is a bivariate Gaussian, integrated over every pixel by 3 × 3 Gauss-Legendre points,
    normalised over the window and cut at the panel's edges.
    """
    drawn = spots.photons > MIN_DRAWN_PHOTONS
    positions = np.stack([spots.fs, spots.ss, spots.photons], axis=1)[drawn]
    covariance = np.stack([spots.cov_ff, spots.cov_fs, spots.cov_ss], axis=1)[drawn]
    _draw(image, spots.panel[drawn], positions, covariance, panel_sizes(geometry))


def spot_area(spots: Spots) -> Float64Array:
    """Return the noise-equivalent area (n,), px², of each profile: 4π σ₁ σ₂ with the pixel's own width."""
    determinant = (spots.cov_ff + PIXEL_VARIANCE) * (spots.cov_ss + PIXEL_VARIANCE) - spots.cov_fs**2
    return np.asarray(4 * np.pi * np.sqrt(determinant), dtype=np.float64)


def expected_snr(
    photons: Float64Array, area: Float64Array, background: Float64Array, read_noise_photons: float
) -> Float64Array:
    """Return the signal-to-noise ratio (n,) that fitting a known profile attains.

    S / √(S + A (b + r²)) with photons S, noise-equivalent area A (King, PASP 95, 163, 1983), background b per
    pixel and read noise r, both in photons. Exact for a spot on much background and for one on none.
    """
    noise = photons + area * (background + read_noise_photons**2)
    return photons / np.sqrt(np.maximum(noise, 1e-12))


@compiled
def _draw(
    image: Float32Array, panel: IntArray, positions: Float64Array, covariance: Float64Array, sizes: IntArray
) -> None:
    for n in range(len(panel)):
        p, fs, ss = panel[n], positions[n, 0], positions[n, 1]
        c_ff, c_fs, c_ss = covariance[n]
        determinant = c_ff * c_ss - c_fs * c_fs
        a, b, c = c_ss / determinant, -c_fs / determinant, c_ff / determinant
        half_f, half_s = math.ceil(WINDOW * math.sqrt(c_ff)), math.ceil(WINDOW * math.sqrt(c_ss))
        j0, i0 = round(fs) - half_f, round(ss) - half_s
        patch = np.empty((2 * half_s + 1, 2 * half_f + 1))
        total = 0.0
        for i in range(patch.shape[0]):
            for j in range(patch.shape[1]):
                patch[i, j] = _pixel_mean(j0 + j - fs, i0 + i - ss, a, b, c)
                total += patch[i, j]
        for i in range(max(0, -i0), min(patch.shape[0], sizes[p, 0] - i0)):
            for j in range(max(0, -j0), min(patch.shape[1], sizes[p, 1] - j0)):
                image[p, i0 + i, j0 + j] += positions[n, 2] * patch[i, j] / total


@compiled
def _pixel_mean(x: float, y: float, a: float, b: float, c: float) -> float:
    mean = 0.0
    for s in range(3):
        dy = y + (s - 1) * NODE
        weight = 8.0 / 18.0 if s == 1 else 5.0 / 18.0
        for f in range(3):
            dx = x + (f - 1) * NODE
            value = math.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy))
            mean += weight * (8.0 / 18.0 if f == 1 else 5.0 / 18.0) * value
    return mean
