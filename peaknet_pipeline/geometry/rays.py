"""Where scattered rays hit the detector."""

import numba
import numpy as np

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.distance import clen_changes_m
from peaknet_pipeline.geometry.maps import panel_shape, panel_table
from peaknet_pipeline.types import Float64Array, Geometry, IntArray


def project_rays(
    geometry: Geometry, directions: Float64Array, *, frame: int | None = None
) -> tuple[IntArray, Float64Array, Float64Array]:
    """Find the pixel that each ray from the sample hits.

    Parameters
    ----------
    geometry : Geometry
        With known camera length.
    directions : (n, 3) float
        Directions in the laboratory frame, of any length: ``s_out``, or ``s_in + λ q``.
    frame : int, optional
        The rays' frame, for runs whose camera length changes; without it the run's typical one counts.

    Returns
    -------
    panel : (n,) int64
        Panel number in the stack, −1 for a miss; of several panels in the way the nearest.
    fs, ss : (n,) float64
        Position in the panel, pixels, centre of the first pixel = 0.0; NaN for a miss.

    Notes
    -----
    With the matrix M = [fs_vec ss_vec corner] of a panel, M·(fs, ss, 1) = t·direction; so one 3×3 product per
    ray and panel.

    """
    directions = np.ascontiguousarray(directions, dtype=np.float64).reshape(-1, 3)
    table = panel_table(geometry)
    if frame is not None:
        table[:, 0, 2] += clen_changes_m(geometry, np.array([frame]))
    matrices = np.stack([table[:, 1], table[:, 2], table[:, 0]], axis=-1)
    sizes = np.array([panel_shape(p)[::-1] for p in geometry.panels], dtype=np.float64)
    return _project(directions, _invert(matrices, geometry), sizes)


def _invert(matrices: Float64Array, geometry: Geometry) -> Float64Array:
    scale = np.linalg.norm(matrices, axis=1).prod(axis=1)
    flat = np.abs(np.linalg.det(matrices)) <= 1e-12 * scale
    if flat.any():
        names = ", ".join(geometry.panels[i].name for i in np.flatnonzero(flat)[:5])
        raise GeometryError("panels lie in a plane through the sample", where=geometry.source, found=names)
    return np.ascontiguousarray(np.linalg.inv(matrices))


@numba.njit(cache=True, nogil=True)
def _project(
    directions: Float64Array, inverses: Float64Array, sizes: Float64Array
) -> tuple[IntArray, Float64Array, Float64Array]:
    n = directions.shape[0]
    panel = np.full(n, -1, dtype=np.int64)
    fs = np.full(n, np.nan)
    ss = np.full(n, np.nan)
    for i in range(n):
        x, y, z = directions[i, 0], directions[i, 1], directions[i, 2]
        nearest = 0.0
        for k in range(inverses.shape[0]):
            m = inverses[k]
            inverse_t = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z
            if inverse_t <= nearest:
                continue
            a = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z) / inverse_t
            b = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z) / inverse_t
            if 0.0 <= a < sizes[k, 0] and 0.0 <= b < sizes[k, 1]:
                nearest = inverse_t
                panel[i] = k
                fs[i] = a - 0.5
                ss[i] = b - 0.5
    return panel, fs, ss
