"""Where each pixel is: radius and resolution maps, positions of peaks, bad regions.

In memory the centre of pixel (0, 0) of a panel is (0.0, 0.0); CrystFEL's corner of that pixel is the corner
of the panel, so a position in memory plus 0.5 is a position in CrystFEL's coordinates.
"""

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.distance import clen_changes_m
from peaknet_pipeline.types import (
    HC_EV_ANGSTROM,
    BadRegion,
    BoolArray,
    Float32Array,
    Float64Array,
    Geometry,
    IntArray,
    Panel,
)


def pixel_radius(geometry: Geometry) -> Float32Array:
    """Return peakfinder8's radius of each pixel, (n_panels, ss, fs), pixels.

    The laboratory x and y of the pixel's corner, z left out, are each truncated toward zero to a whole number
    before r = √(x² + y²) (Barty et al. 2014, as in Cheetah and CrystFEL). 0 outside the panel, which is bad
    anyway.
    """
    radius = np.zeros(geometry.stack_shape, dtype=np.float32)
    for number, panel in enumerate(geometry.panels):
        x, y = _corners_px(panel)
        height, width = x.shape
        radius[number, :height, :width] = np.sqrt(np.trunc(x) ** 2 + np.trunc(y) ** 2)
    return radius


def resolution_map(geometry: Geometry, photon_energy_ev: float) -> Float32Array:
    """Return the resolution 1/d at the centre of each pixel, (n_panels, ss, fs), Å⁻¹; 0 outside the panel."""
    result = np.zeros(geometry.stack_shape, dtype=np.float32)
    for number, panel in enumerate(geometry.panels):
        height, width = panel_shape(panel)
        ss, fs = np.mgrid[0:height, 0:width].astype(np.float64)
        result[number, :height, :width] = _inv_d(*_positions_m(panel, fs, ss), photon_energy_ev)
    return result


def peak_positions_m(
    geometry: Geometry,
    panel: IntArray,
    fs: Float64Array,
    ss: Float64Array,
    frame: IntArray | None = None,
) -> Float64Array:
    """Return laboratory positions, (n, 3), metres from the sample, of positions in panels.

    Parameters
    ----------
    geometry : Geometry
        With known camera length.
    panel : (n,) int
        Panel number in the stack.
    fs, ss : (n,) float
        Position in the panel, pixels, centre of the first pixel = 0.0.
    frame : (n,) int, optional
        Frame of each, for runs whose camera length changes; z is NaN where a frame has none. Without it, the run's typical
        one counts.

    Raises
    ------
    GeometryError
        A panel number is out of range, or the camera length is still open.

    """
    table = panel_table(geometry)
    panel = np.asarray(panel, dtype=np.int64)
    if panel.size and not (panel.min() >= 0 and panel.max() < len(geometry.panels)):
        found = f"{panel.min()} … {panel.max()}"
        raise GeometryError(
            "panel number out of range", expected=f"0 … {len(geometry.panels) - 1}", found=found
        )
    corner, fs_vec, ss_vec = table[panel, 0], table[panel, 1], table[panel, 2]
    fs, ss = (np.asarray(v, dtype=np.float64)[:, None] + 0.5 for v in (fs, ss))
    positions: Float64Array = corner + fs * fs_vec + ss * ss_vec
    if frame is not None:
        positions[:, 2] += clen_changes_m(geometry, frame)
    return positions


def peak_inv_d(
    geometry: Geometry,
    panel: IntArray,
    fs: Float64Array,
    ss: Float64Array,
    photon_energy_ev: float | Float64Array,
    frame: IntArray | None = None,
) -> Float64Array:
    """Return the resolution 1/d, (n,), Å⁻¹, of positions in panels; see :func:`peak_positions_m`.

    ``photon_energy_ev`` is one value or one per position.
    """
    x, y, z = peak_positions_m(geometry, panel, fs, ss, frame).T
    return _inv_d(x, y, z, photon_energy_ev)


def geometry_bad_pixels(geometry: Geometry) -> BoolArray:
    """Return the pixels that the geometry rules out, (n_panels, ss, fs), True = bad.

    These are the bad regions, ignored panels and edges, and the part of the stack that a smaller panel
    doesn't fill. Regions in fs/ss count in the data set's coordinates (as ``min_fs`` does) and are inclusive;
    regions in x/y are tested at pixel centres, limits inclusive.
    """
    bad = np.ones(geometry.stack_shape, dtype=np.bool_)
    for number, panel in enumerate(geometry.panels):
        height, width = panel_shape(panel)
        window = bad[number, :height, :width]
        window[:] = False
        for region in geometry.bad_regions:
            if region.panel in (None, panel.name):
                _mark_region(window, region, panel)
    return bad


def panel_shape(panel: Panel) -> tuple[int, int]:
    """Return a panel's shape (ss, fs)."""
    return panel.max_ss - panel.min_ss + 1, panel.max_fs - panel.min_fs + 1


def panel_table(geometry: Geometry) -> Float64Array:
    """Return corner, fs step and ss step of each panel, (n_panels, 3, 3), metres.

    Raises
    ------
    GeometryError
        A panel's camera length is still open.

    """
    rows = [
        [[p.corner_x, p.corner_y, p.clen_m / p.pixel_size_m], p.fs_vec, p.ss_vec] for p in geometry.panels
    ]
    sizes = np.array([p.pixel_size_m for p in geometry.panels])
    table: Float64Array = np.array(rows, dtype=np.float64) * sizes[:, None, None]
    if not np.isfinite(table).all():
        raise GeometryError(
            "the camera length is not known",
            where=geometry.source,
            expected="a number",
            found=geometry.clen_path,
            remedy="Open the run with this geometry, which reads it, or call resolve_geometry(…, clen_m=…).",
        )
    return table


def _corners_px(panel: Panel) -> tuple[Float64Array, Float64Array]:
    height, width = panel_shape(panel)
    fs = np.arange(width, dtype=np.float64)
    ss = np.arange(height, dtype=np.float64)[:, None]
    x = fs * panel.fs_vec[0] + ss * panel.ss_vec[0] + panel.corner_x
    y = fs * panel.fs_vec[1] + ss * panel.ss_vec[1] + panel.corner_y
    return x, y


def _positions_m(
    panel: Panel, fs: Float64Array, ss: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    corner = (panel.corner_x, panel.corner_y, panel.clen_m / panel.pixel_size_m)
    x, y, z = (
        panel.pixel_size_m * (corner[i] + (fs + 0.5) * panel.fs_vec[i] + (ss + 0.5) * panel.ss_vec[i])
        for i in range(3)
    )
    return x, y, z


def _inv_d(
    x: Float64Array, y: Float64Array, z: Float64Array, photon_energy_ev: float | npt.NDArray[np.float64]
) -> Float64Array:
    """1/d = 2 sin θ / λ, with 2θ the angle from +z."""
    theta = 0.5 * np.arctan2(np.hypot(x, y), z)
    inv_d: Float64Array = 2.0 * np.sin(theta) * (photon_energy_ev / HC_EV_ANGSTROM)
    return inv_d


def _mark_region(window: BoolArray, region: BadRegion, panel: Panel) -> None:
    if region.is_fsss:
        a, b = panel.min_fs, panel.min_ss
        fs = slice(max(int(region.min_a) - a, 0), max(int(region.max_a) - a + 1, 0))
        ss = slice(max(int(region.min_b) - b, 0), max(int(region.max_b) - b + 1, 0))
        window[ss, fs] = True
        return
    x, y = _corners_px(panel)
    x += 0.5 * (panel.fs_vec[0] + panel.ss_vec[0])
    y += 0.5 * (panel.fs_vec[1] + panel.ss_vec[1])
    window |= (x >= region.min_a) & (x <= region.max_a) & (y >= region.min_b) & (y <= region.max_b)
