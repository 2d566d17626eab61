"""Light that spreads before it is recorded, noise included, as in a CCD behind a phosphor."""

import math

import numpy as np

from peaknet_pipeline.simulate.compilation import compiled
from peaknet_pipeline.types import Float32Array, Float64Array, IntArray


def blur_panels(image: Float32Array, sizes: IntArray, sigma_px: float) -> Float32Array:
    """Return the image (n_panels, ss, fs) convolved with a Gaussian; what leaves a panel is lost.

    ``sizes`` (n_panels, 2) are the panels' heights and widths. The same as ``scipy.ndimage.convolve1d`` along
    both axes with :func:`gaussian_taps` and zeros outside.
    """
    if sigma_px <= 0:
        return image
    blurred = np.zeros_like(image)
    _blur(blurred, image, sizes, gaussian_taps(sigma_px))
    return blurred


def gaussian_taps(sigma_px: float) -> Float64Array:
    """Return the weights (2·r + 1,) of a Gaussian integrated over pixels, r = ⌈4σ⌉, sum 1."""
    reach = math.ceil(4 * sigma_px)
    edges = (np.arange(2 * reach + 2) - reach - 0.5) / (sigma_px * math.sqrt(2))
    steps = np.diff([math.erf(edge) for edge in edges])
    return np.asarray(steps / steps.sum(), dtype=np.float64)


@compiled
def _blur(blurred: Float32Array, image: Float32Array, sizes: IntArray, taps: Float64Array) -> None:
    reach = len(taps) // 2
    for p in range(len(sizes)):
        height, width = sizes[p, 0], sizes[p, 1]
        row = np.zeros(width + 2 * reach)
        for i in range(height):
            row[:] = 0.0
            for k in range(max(-reach, -i), min(reach, height - 1 - i) + 1):
                weight = taps[k + reach]
                for j in range(width):
                    row[reach + j] += weight * image[p, i + k, j]
            for j in range(width):
                total = 0.0
                for k in range(len(taps)):
                    total += taps[k] * row[j + k]
                blurred[p, i, j] = total
