"""Assemble a stack into one image for looking at."""

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.maps import panel_shape
from peaknet_pipeline.types import Float64Array, Geometry

MAX_IMAGE_PIXELS = 2**28


def assemble(
    stack: npt.NDArray[np.generic], geometry: Geometry, fill: float = np.nan
) -> npt.NDArray[np.generic]:
    """Place the panels of a stack in one image, +x to the right, +y up (row 0 is the highest y), z left out.

    Every image pixel takes the panel pixel that its centre falls into: values are neither interpolated nor
    lost in holes.

    Parameters
    ----------
    stack : (n_panels, ss, fs)
        Any dtype.
    geometry : Geometry
    fill : float
        Value where there is no panel; NaN makes the image floating.

    Returns
    -------
    (rows, columns), of the stack's dtype if it holds ``fill``, else float32 or float64.

    Raises
    ------
    GeometryError
        The stack does not have the geometry's shape, or the image would be absurdly large.

    """
    if stack.shape != geometry.stack_shape:
        raise GeometryError("the stack does not fit", expected=geometry.stack_shape, found=stack.shape)
    left, right, bottom, top = image_extent(geometry)
    rows, columns = round(top - bottom), round(right - left)
    if rows * columns > MAX_IMAGE_PIXELS:
        raise GeometryError("the assembled image is absurdly large", found=f"{rows} × {columns}")
    image = np.full((rows, columns), fill, dtype=_image_dtype(stack.dtype, fill))
    table = panel_table_px(geometry)
    for number, panel in enumerate(geometry.panels):
        _place(image, stack[number], table[number], panel_shape(panel), (left, top))
    return image


def image_extent(geometry: Geometry) -> tuple[float, float, float, float]:
    """Return (left, right, bottom, top) of the assembled image in laboratory pixels (the first panel's).

    As ``extent`` of matplotlib's ``imshow``, it lets peaks be drawn at ``peak_positions_m(…) /
    pixel_size_m``.
    """
    corners = np.concatenate(
        [
            _outline(row, panel_shape(panel))
            for row, panel in zip(panel_table_px(geometry), geometry.panels, strict=True)
        ]
    )
    low = np.floor(corners.min(axis=0) + 1e-6)
    high = np.ceil(corners.max(axis=0) - 1e-6)
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def panel_table_px(geometry: Geometry) -> Float64Array:
    """Return x and y of each panel's corner, fs and ss step, (n_panels, 3, 2), first panel's pixels."""
    rows = [[[p.corner_x, p.corner_y], p.fs_vec[:2], p.ss_vec[:2]] for p in geometry.panels]
    sizes = np.array([p.pixel_size_m for p in geometry.panels]) / geometry.panels[0].pixel_size_m
    scaled: Float64Array = np.array(rows, dtype=np.float64) * sizes[:, None, None]
    return scaled


def _image_dtype(dtype: np.dtype[np.generic], fill: float) -> np.dtype[np.generic]:
    if dtype.kind in "ui" and float(fill).is_integer() and np.can_cast(np.min_scalar_type(int(fill)), dtype):
        return dtype
    return np.result_type(dtype, np.float32)


def _outline(row: Float64Array, shape: tuple[int, int]) -> Float64Array:
    height, width = shape
    steps = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64)
    corners: Float64Array = row[0] + steps @ row[1:]
    return corners


def _place(
    image: npt.NDArray[np.generic],
    frame: npt.NDArray[np.generic],
    row: Float64Array,
    shape: tuple[int, int],
    origin: tuple[float, float],
) -> None:
    corners = _outline(row, shape) - np.array(origin)
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    columns = np.arange(max(int(low[0]), 0), min(int(high[0]), image.shape[1]))
    rows = np.arange(max(int(-high[1]), 0), min(int(-low[1]), image.shape[0]))[:, None]
    x = origin[0] + columns + 0.5 - row[0, 0]
    y = origin[1] - rows - 0.5 - row[0, 1]
    inverse = np.linalg.inv(row[1:].T)
    fs = np.floor(inverse[0, 0] * x + inverse[0, 1] * y + 1e-9).astype(np.int64)
    ss = np.floor(inverse[1, 0] * x + inverse[1, 1] * y + 1e-9).astype(np.int64)
    inside = (fs >= 0) & (fs < shape[1]) & (ss >= 0) & (ss < shape[0])
    window = image[rows[0, 0] : rows[-1, 0] + 1, columns[0] : columns[-1] + 1] if inside.any() else None
    if window is not None:
        window[inside] = frame[ss[inside], fs[inside]]
