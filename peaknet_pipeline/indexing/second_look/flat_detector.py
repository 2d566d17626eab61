"""A flat detector that stands for the real one: all panels projected from the sample onto one plane across the beam.

Scoring an orientation means thousands of look-ups of "what was seen where this reflection falls". On one plane with square
cells such a look-up is two divisions and one byte, whatever the panels and their tilts.
"""

from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.maps import panel_shape, panel_table, peak_positions_m
from peaknet_pipeline.geometry.rays import project_rays
from peaknet_pipeline.types import BoolArray, Float64Array, Geometry, IntArray, UInt8Array

UNCOVERED = 255
"""Value of cells behind which there is no good pixel."""

MAX_HALF_SIDE = 6000
"""Half of the plane's side, cells; what lies further out is not looked at."""

STEEPEST = 20.0
"""Distance from the beam over distance along it that most panels stay below; 87° of scattering."""


@dataclass(frozen=True)
class FlatDetector:
    """A plane at the distance of ``distance`` cells, with (2 · half)² cells of about one pixel.

    ``template`` (y, x) uint8 is 0 where a good pixel lies behind the cell and ``UNCOVERED`` elsewhere. Cell (i, j) holds
    y from i − half to i − half + 1, x likewise.
    """

    distance: float
    half: int
    template: UInt8Array

    @property
    def covered(self) -> BoolArray:
        """Which cells have a good pixel behind them, (y, x)."""
        return np.asarray(self.template != UNCOVERED)


def make_flat_detector(geometry: Geometry, bad_pixels: BoolArray) -> FlatDetector:
    """Project a detector onto a plane across the beam.

    Parameters
    ----------
    geometry : Geometry
        With known camera length.
    bad_pixels : (n_panels, ss, fs) bool

    Raises
    ------
    GeometryError
        The camera length is so short that most panels reach beyond ``STEEPEST``: it is in another unit than the pixels.

    """
    table = panel_table(geometry)
    steepness = []
    for panel, (corner, fs_vec, ss_vec) in zip(geometry.panels, table, strict=True):
        height, width = panel_shape(panel)
        corners = [corner + f * fs_vec + s * ss_vec for f in (0, width) for s in (0, height)]
        steepness.append(max(float(np.abs(c[:2]).max() / max(c[2], 1e-9)) for c in corners))
    if float(np.median(steepness)) > STEEPEST:
        raise GeometryError(
            "the detector is far too near for its size",
            where=geometry.source,
            expected=f"a camera length of at least 1/{STEEPEST:g} of the panels' distance from the beam",
            found=f"{float(np.median([p.clen_m for p in geometry.panels])):g} m",
            remedy="Check clen and its unit in the geometry or in the run, and res (pixels per metre).",
        )
    reach = max(steepness)
    sizes = [np.linalg.norm(row[1]) / np.linalg.norm(row[0] + 0.5 * row[1]) for row in table]
    distance = 1.0 / float(np.median(sizes))
    centre = [p.clen_m / p.pixel_size_m for p in geometry.panels]
    distance = max(distance, float(np.median(centre)))
    half = min(int(reach * distance) + 3, MAX_HALF_SIDE)
    cell = (np.arange(2 * half) - half + 0.5) / distance
    template = np.full((2 * half, 2 * half), UNCOVERED, dtype=np.uint8)
    good = ~bad_pixels
    for begin in range(0, 2 * half, 256):
        y = cell[begin : begin + 256]
        rays = np.stack(np.broadcast_arrays(cell[None, :], y[:, None], 1.0), axis=-1).reshape(-1, 3)
        number, fs, ss = project_rays(geometry, rays)
        hit = np.flatnonzero(number >= 0)
        seen = good[number[hit], np.rint(ss[hit]).astype(int), np.rint(fs[hit]).astype(int)]
        template[begin : begin + 256].reshape(-1)[hit[seen]] = 0
    return FlatDetector(distance, half, template)


def flat_positions(
    flat: FlatDetector,
    geometry: Geometry,
    panel: IntArray,
    fs: Float64Array,
    ss: Float64Array,
    *,
    frame: int | None = None,
) -> Float64Array:
    """Return where positions in panels lie on the plane, x and y in cells from the beam, (n, 2).

    With ``frame`` the detector stands where it stood then.
    """
    frames = None if frame is None else np.full(len(panel), frame, dtype=np.int64)
    positions = peak_positions_m(geometry, panel, fs, ss, frames)
    return np.asarray(positions[:, :2] / positions[:, 2:] * flat.distance, dtype=np.float64)


def flat_vectors(flat: FlatDetector, places: Float64Array, wave: float) -> Float64Array:
    """Return the scattering vectors q, (n, 3) Å⁻¹, of places (n, 2) on the plane; ``wave`` is 1/λ."""
    rays = np.column_stack([places / flat.distance, np.ones(len(places))])
    rays *= wave / np.linalg.norm(rays, axis=1, keepdims=True)
    return np.asarray(rays - np.array([0.0, 0.0, wave]), dtype=np.float64)


def scrambled_places(
    flat: FlatDetector, places: Float64Array, generator: np.random.Generator, *, max_draws: int = 60
) -> Float64Array:
    """Return places (n, 2) turned about the beam by random angles, each until it lies on a good pixel.

    A place that finds none in ``max_draws`` draws stays where it was.
    """
    radius = np.hypot(places[:, 0], places[:, 1])
    turned = places.copy()
    left = np.arange(len(places))
    for _ in range(max_draws):
        angle = generator.uniform(0.0, 2.0 * np.pi, left.size)
        trial = radius[left, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        cell = np.floor(trial).astype(np.int64) + flat.half
        inside = ((cell >= 0) & (cell < 2 * flat.half)).all(axis=1)
        seen = np.zeros(left.size, dtype=np.bool_)
        seen[inside] = flat.template[cell[inside, 1], cell[inside, 0]] != UNCOVERED
        turned[left[seen]] = trial[seen]
        left = left[~seen]
        if not left.size:
            break
    return turned
