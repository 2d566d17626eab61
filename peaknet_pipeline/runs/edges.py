"""Pixels at the edges of panels and chips: they collect charge from the gap beside them."""

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.maps import panel_shape
from peaknet_pipeline.types import BoolArray, Float32Array, Geometry


def edge_pixels(geometry: Geometry, width: int = 1) -> BoolArray:
    """Return the outermost ``width`` rows and columns of every panel, (n_panels, ss, fs), True = edge."""
    edge: BoolArray = np.zeros(geometry.stack_shape, dtype=np.bool_)
    for number, panel in enumerate(geometry.panels):
        height, length = panel_shape(panel)
        edge[number, :height, :length] = True
        edge[number, width : height - width, width : length - width] = False
    return edge


def chip_edge_pixels(
    stack_shape: tuple[int, int, int], chip_shape: tuple[int, int], width: int = 1
) -> BoolArray:
    """Return ``width`` pixels on both sides of every border between chips, (n_panels, ss, fs).

    Parameters
    ----------
    stack_shape : (n_panels, ss, fs)
    chip_shape : (ss, fs)
        Size of a readout chip in pixels: 256×256 for JUNGFRAU and EIGER, 176×192 for ePix10k.
    width : int
        Pixels on each side.

    Raises
    ------
    RunError
        A chip is empty or larger than the panel.

    """
    if not all(0 < c <= n for c, n in zip(chip_shape, stack_shape[1:], strict=True)):
        raise RunError("chips do not fit the panel", expected=f"at most {stack_shape[1:]}", found=chip_shape)
    near: list[BoolArray] = []
    for size, chip in zip(stack_shape[1:], chip_shape, strict=True):
        position = np.arange(size)
        border = np.arange(chip, size, chip)
        distance = position[:, None] - border
        near.append(np.any((distance >= -width) & (distance < width), axis=1))
    grid: BoolArray = np.logical_or.outer(near[0], near[1])
    return np.broadcast_to(grid, stack_shape).copy()


def find_wide_pixels(mean: Float32Array, bad_pixels: BoolArray, *, min_ratio: float = 1.3) -> BoolArray:
    """Find whole rows and columns of larger pixels: they count more than their neighbours everywhere.

    Parameters
    ----------
    mean : (n_panels, ss, fs) float32
        Mean image of a run.
    bad_pixels : (n_panels, ss, fs) bool
        Left out.
    min_ratio : float
        Median ratio of a line to the lines up to three beside it, from which it counts as wide.

    """
    image = np.where(bad_pixels, np.nan, mean).astype(np.float64)
    wide: BoolArray = np.zeros(mean.shape, dtype=np.bool_)
    for panel in range(mean.shape[0]):
        wide[panel] |= _wide_lines(image[panel], min_ratio)[:, None]
        wide[panel] |= _wide_lines(image[panel].T, min_ratio)
    return wide


def _wide_lines(image: np.ndarray[tuple[int, int], np.dtype[np.float64]], min_ratio: float) -> BoolArray:
    size = image.shape[0]
    wide: BoolArray = np.zeros(size, dtype=np.bool_)
    for line in range(size):
        beside = [i for i in range(max(line - 3, 0), min(line + 4, size)) if abs(i - line) > 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = image[line] / np.mean(image[beside], axis=0)
        known = ratio[np.isfinite(ratio)]
        wide[line] = known.size > 0.2 * image.shape[1] and float(np.median(known)) >= min_ratio
    return wide
