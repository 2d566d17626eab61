"""From shapes that somebody drew on a frame to a mask file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.path import Path as Outline

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.runs.masks import MaskSource, write_mask
from peaknet_pipeline.types import BoolArray, Float64Array
from peaknet_pipeline.view.scene import Scene

DRAWN = "drawn"
MAX_SHAPES, MAX_CORNERS = 1000, 1000


def draw_mask(scene: Scene, shapes: Sequence[Mapping[str, Any]]) -> BoolArray:
    """Return the pixels, (n_panels, ss, fs), whose place in the assembled image lies in one of the shapes.

    Parameters
    ----------
    scene : Scene
    shapes : sequence of mapping
        ``{"kind": "polygon", "points": [[x, y], …]}``, ``{"kind": "circle", "points": [[x, y]], "radius": r}`` or
        ``{"kind": "pixel", "points": [[x, y]]}``, in pixels of the assembled image, its upper left corner = (0, 0).

    Raises
    ------
    ParameterError
        A shape is none of these.

    """
    rows, columns = scene.layout.shape
    chosen = np.zeros((rows, columns), dtype=np.bool_)
    if len(shapes) > MAX_SHAPES:
        raise ParameterError("too many shapes", expected=f"≤ {MAX_SHAPES}", found=len(shapes))
    for shape in shapes:
        kind, points = _read(shape)
        radius = float(shape.get("radius", 0.0)) if kind == "circle" else 0.0
        low = np.floor(points.min(axis=0) - radius).clip(0, [columns - 1, rows - 1]).astype(int)
        high = np.ceil(points.max(axis=0) + radius + 1).clip(1, [columns, rows]).astype(int)
        window = chosen[low[1] : high[1], low[0] : high[0]]
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
        if kind == "polygon":
            inside = Outline(points).contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape)
        elif kind == "circle":
            inside = np.hypot(x - points[0, 0], y - points[0, 1]) <= radius
        else:
            inside = (np.floor(x) == np.floor(points[0, 0])) & (np.floor(y) == np.floor(points[0, 1]))
        window |= inside
    mask = np.zeros(scene.bad_pixels.size + 1, dtype=np.bool_)
    mask[scene.layout[chosen]] = True
    return mask[1:].reshape(scene.bad_pixels.shape)


def save_mask(scene: Scene, shapes: Sequence[Mapping[str, Any]], folder: Path) -> tuple[Path, int]:
    """Write the drawn pixels as a mask that ``--mask`` and ``mask: {mask_files: …}`` take; return its path and their number.

    It is named after the run. A file that is there already is left alone: the name gets a number.
    """
    mask = draw_mask(scene, shapes)
    n = int(mask.sum())
    if not n:
        raise ParameterError(
            "nothing is drawn on the detector", remedy="Draw a polygon, a circle or a pixel."
        )
    path = folder / f"{Path(scene.name).stem}-{DRAWN}.h5"
    names = (path, *(path.with_stem(f"{path.stem}-{k}") for k in range(2, 10_000)))
    free = next(name for name in names if not name.exists())
    write_mask(mask, free, sources=[MaskSource(DRAWN, n, n)], layers={DRAWN: mask}, geometry=scene.geometry)
    return free, n


def _read(shape: Mapping[str, Any]) -> tuple[str, Float64Array]:
    kind = shape.get("kind")
    try:
        points = np.array(shape.get("points"), dtype=np.float64)
        finite = points.ndim == 2 and points.shape[1] == 2 and bool(np.isfinite(points).all())
    except (TypeError, ValueError):
        finite = False
    least = {"polygon": 3, "circle": 1, "pixel": 1}.get(str(kind), 0)
    if not finite or not least or not least <= len(points) <= MAX_CORNERS or np.abs(points).max() > 1e6:
        raise ParameterError("not a shape", expected="a polygon, circle or pixel with its points", found=kind)
    radius = shape.get("radius", 0.0)
    if not isinstance(radius, int | float) or not 0 <= radius <= 1e5:
        raise ParameterError("not a radius", expected="0 to 100,000 pixels", found=radius)
    return str(kind), points
