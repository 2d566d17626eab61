"""What reaches the pixels without being a reflection: rings, air, jet streak; and the beamstop's shadow."""

from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.geometry.maps import panel_shape
from peaknet_pipeline.simulate.compilation import compiled
from peaknet_pipeline.simulate.ewald import panel_matrices
from peaknet_pipeline.simulate.experiment import BackgroundParameters, BeamParameters, RunConditions
from peaknet_pipeline.types import Float32Array, Float64Array, Geometry, IntArray

ICE_RINGS = (
    (3.90, 1.0),
    (3.67, 0.9),
    (3.44, 0.8),
    (2.67, 0.35),
    (2.25, 0.4),
    (2.07, 0.3),
    (1.95, 0.25),
    (1.92, 0.25),
)
"""Spacing (Å) and relative height of hexagonal ice's rings."""

ICE_WIDTH = 0.0012
STREAK_REFERENCE_PX = 50.0
PROFILE_STEP = 0.0005
"""Step of the tabulated radial profile, Å⁻¹."""


@dataclass(frozen=True)
class BackgroundMaps:
    """What is the same in every shot, each (n_panels, ss, fs).

    ``scatter`` is photons at scale 1 without any shadow; ``transmission`` is what the beamstop lets through,
    0 to 1.
    """

    scatter: Float32Array
    transmission: Float32Array


def radial_profile(inv_d: Float64Array, background: BackgroundParameters) -> Float64Array:
    """Return the photons per pixel (n,) at 1/d (n,), before solid angle and polarisation.

    Air scatter falls off exponentially; water is two broad rings (3.2 and 2.1 Å), protein and
    solvent add a broad hump (4.5 Å), LCP one narrow ring (4.5 Å)
    with a diffuse foot; ice is hexagonal.
    """
    b = background
    total = b.flat_photons + b.air_photons * np.exp(-inv_d / b.air_decay)
    total = total + b.water_photons * (_ring(inv_d, 3.2, 0.045) + 0.35 * _ring(inv_d, 2.1, 0.06))
    total = total + b.diffuse_photons * _ring(inv_d, 4.5, 0.11)
    total = total + b.lcp_photons * (_ring(inv_d, 4.5, 0.012) + 0.25 * _ring(inv_d, 4.5, 0.05))
    total = total + b.ring_photons * _ring(inv_d, b.ring_d_angstrom, b.ring_width)
    for spacing, height in ICE_RINGS:
        total = total + b.ice_photons * height * _ring(inv_d, spacing, ICE_WIDTH)
    return np.asarray(total, dtype=np.float64)


def make_background_maps(
    geometry: Geometry, beam: BeamParameters, background: BackgroundParameters, conditions: RunConditions
) -> BackgroundMaps:
    """Compute the background maps of a run."""
    grid = np.arange(0.0, 2.0, PROFILE_STEP)
    profile = radial_profile(grid, background)
    profile += conditions.ring_photons * _ring(grid, conditions.ring_d_angstrom, background.ring_width)
    matrices, sizes = panel_matrices(geometry), panel_sizes(geometry)
    maps = np.zeros((2, *geometry.stack_shape), dtype=np.float32)
    arm = np.deg2rad(background.shadow_arm_deg)
    shadow = np.array([background.shadow_radius_px, background.shadow_arm_px, arm])
    optics = np.array([beam.wavelength_angstrom, beam.polarisation])
    _fill_maps(maps, matrices, sizes, profile, optics, shadow)
    return BackgroundMaps(maps[0], maps[1])


def add_streak(
    image: Float32Array, geometry: Geometry, *, photons: float, angle_deg: float, width_px: float
) -> None:
    """Add a jet's streak through the beam to ``image`` (n_panels, ss, fs), photons.

    It falls off as 1/distance and slowly widens; ``photons`` is its height 50 px from the beam.
    """
    if photons > 0:
        streak = np.array([photons, width_px, np.deg2rad(angle_deg)])
        _fill_streak(image, panel_matrices(geometry), panel_sizes(geometry), streak)


def panel_sizes(geometry: Geometry) -> IntArray:
    """Return (n_panels, 2): height (ss) and width (fs) of each panel."""
    return np.array([panel_shape(panel) for panel in geometry.panels], dtype=np.int64)


def _ring(inv_d: Float64Array, spacing: float, width: float) -> Float64Array:
    return np.asarray(np.exp(-0.5 * ((inv_d - 1 / spacing) / width) ** 2), dtype=np.float64)


@compiled
def _fill_maps(
    maps: Float32Array,
    matrices: Float64Array,
    sizes: IntArray,
    profile: Float64Array,
    optics: Float64Array,
    shadow: Float64Array,
) -> None:
    """Fill scatter and transmission (2, n_panels, ss, fs) pixel by pixel."""
    wavelength, polarisation = optics[0], optics[1]
    for p in range(len(matrices)):
        m = matrices[p]
        pixel = np.sqrt(m[0, 0] ** 2 + m[0, 1] ** 2 + m[0, 2] ** 2)
        for i in range(sizes[p, 0]):
            for j in range(sizes[p, 1]):
                x = m[2, 0] + j * m[0, 0] + i * m[1, 0]
                y = m[2, 1] + j * m[0, 1] + i * m[1, 1]
                z = m[2, 2] + j * m[0, 2] + i * m[1, 2]
                distance = np.sqrt(x * x + y * y + z * z)
                cosine = z / distance
                position = np.sqrt(max(2 - 2 * cosine, 0.0)) / wavelength / PROFILE_STEP
                index = min(int(position), len(profile) - 2)
                level = profile[index] + (position - index) * (profile[index + 1] - profile[index])
                plane = polarisation * (x / distance) ** 2 + (1 - polarisation) * (y / distance) ** 2
                maps[0, p, i, j] = level * (1 - plane) * cosine**3
                maps[1, p, i, j] = _transmitted(x / pixel, y / pixel, shadow)


@compiled
def _fill_streak(image: Float32Array, matrices: Float64Array, sizes: IntArray, streak: Float64Array) -> None:
    height, width, cosine, sine = streak[0], streak[1], np.cos(streak[2]), np.sin(streak[2])
    for p in range(len(matrices)):
        m = matrices[p] / np.sqrt(matrices[p, 0, 0] ** 2 + matrices[p, 0, 1] ** 2 + matrices[p, 0, 2] ** 2)
        for i in range(sizes[p, 0]):
            for j in range(sizes[p, 1]):
                x = m[2, 0] + j * m[0, 0] + i * m[1, 0]
                y = m[2, 1] + j * m[0, 1] + i * m[1, 1]
                along = abs(x * cosine + y * sine)
                spread = width + 0.01 * along
                ratio = (y * cosine - x * sine) / spread
                if abs(ratio) < 5.0:
                    level = height * width / spread * np.exp(-0.5 * ratio * ratio - along / 300.0)
                    image[p, i, j] += level * STREAK_REFERENCE_PX / max(along, 5.0)


@compiled
def _transmitted(x: float, y: float, shadow: Float64Array) -> float:
    radius, arm, angle = shadow[0], shadow[1], shadow[2]
    passed = 1.0
    if radius > 0.0:
        passed = min(max((np.sqrt(x * x + y * y) - radius) / 4.0 + 0.5, 0.0), 1.0)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = abs(y * np.cos(angle) - x * np.sin(angle))
    if arm > 0.0 and along > 0.0:
        passed = min(passed, min(max((across - arm) / 4.0 + 0.5, 0.0), 1.0))
    return passed
