"""Which reflections of a turned crystal are excited, how much of them, and where they meet the detector."""

from dataclasses import dataclass, replace

import numpy as np

from peaknet_pipeline.geometry.maps import panel_table
from peaknet_pipeline.geometry.rays import project_rays
from peaknet_pipeline.simulate.compilation import compiled
from peaknet_pipeline.simulate.crystal import StructureFactors
from peaknet_pipeline.simulate.experiment import BeamParameters, CrystalParameters
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float64Array, Geometry, IntArray

REFERENCE_INV_D = 0.25
"""1/d (Å⁻¹) at which ``spot_photons`` is stated: 4 Å."""

MAX_EXCITATION = 4.0
"""Reflections farther from the Ewald sphere than this many widths are left out (recorded: < 0.04 %)."""

FINITE_SIZE_SIGMA = 0.376
"""Width of a Gaussian with the full width at half maximum of a finite crystal's sinc² (0.886 / edge)."""


@dataclass(frozen=True)
class Spots:
    """Reflections that meet the detector, as columns of equal length.

    ``row`` is the reflection's row in the structure factors; ``fs`` and ``ss`` are in pixels of ``panel``;
    ``photons`` is the expected number before any shadow; ``cov_*`` (px²) is the covariance of the profile in
    the panel's own axes.
    """

    row: IntArray
    panel: IntArray
    fs: Float64Array
    ss: Float64Array
    inv_d: Float64Array
    excitation_error: Float64Array
    photons: Float64Array
    cov_ff: Float64Array
    cov_fs: Float64Array
    cov_ss: Float64Array


def excite(
    factors: StructureFactors,
    axes: Float64Array,
    *,
    photon_energy_ev: float,
    beam: BeamParameters,
    crystal: CrystalParameters,
) -> tuple[IntArray, Float64Array, Float64Array, Float64Array]:
    """Find the reflections near the Ewald sphere.

    Parameters
    ----------
    factors : StructureFactors
        All reflections of the crystal.
    axes : float64 (3, 3), Å⁻¹
        a*, b*, c* as rows, laboratory frame.
    photon_energy_ev : float
        Photon energy of the shot.
    beam, crystal : BeamParameters, CrystalParameters
        What broadens a reciprocal-lattice point.

    Returns
    -------
    rows (n,), q (n, 3) Å⁻¹, excitation error (n,) Å⁻¹, recorded fraction (n,)
        The fraction is a Gaussian of the excitation error, 1 on the sphere, times the width at 4 Å over the
        width here: a broader point is recorded more often but less at a time.

    """
    k = photon_energy_ev / HC_EV_ANGSTROM
    size = FINITE_SIZE_SIGMA / crystal.size_angstrom
    angular = np.hypot(crystal.mosaicity_rad, beam.divergence_rad)
    chromatic = beam.bandwidth / (2 * k)
    rows, q, error, width = _near_sphere(factors.hkl, axes, k, size, angular, chromatic, MAX_EXCITATION)
    reference = rlp_width(REFERENCE_INV_D, size, angular, chromatic)
    fraction = np.exp(-0.5 * (error / width) ** 2) * reference / width
    return rows, q, error, fraction


def rlp_width(inv_d: float, size: float, angular: float, chromatic: float) -> float:
    """Return the rms width of a reciprocal-lattice point, Å⁻¹: size, angles and spectrum in quadrature."""
    return float(np.sqrt(size**2 + (angular * inv_d) ** 2 + (chromatic * inv_d**2) ** 2))


@compiled
def _near_sphere(
    hkl: IntArray,
    axes: Float64Array,
    k: float,
    size: float,
    angular: float,
    chromatic: float,
    n_widths: float,
) -> tuple[IntArray, Float64Array, Float64Array, Float64Array]:
    rows, n = np.empty(len(hkl), np.int64), 0
    vectors = np.empty((len(hkl), 3))
    errors, widths = np.empty(len(hkl)), np.empty(len(hkl))
    for i in range(len(hkl)):
        h, kk, ll = hkl[i]
        x = h * axes[0, 0] + kk * axes[1, 0] + ll * axes[2, 0]
        y = h * axes[0, 1] + kk * axes[1, 1] + ll * axes[2, 1]
        z = h * axes[0, 2] + kk * axes[1, 2] + ll * axes[2, 2]
        q2 = x * x + y * y + z * z
        if q2 == 0.0 or z > 0.1 * k:
            continue
        error = np.sqrt(x * x + y * y + (z + k) ** 2) - k
        width = np.sqrt(size**2 + angular**2 * q2 + (chromatic * q2) ** 2)
        if abs(error) < n_widths * width:
            rows[n], errors[n], widths[n] = i, error, width
            vectors[n, 0], vectors[n, 1], vectors[n, 2] = x, y, z
            n += 1
    return rows[:n].copy(), vectors[:n].copy(), errors[:n].copy(), widths[:n].copy()


def scattered_directions(q: Float64Array, photon_energy_ev: float) -> Float64Array:
    """Return unit vectors (n, 3) from the Ewald sphere's centre through each reciprocal vector."""
    beam = q + np.array([0.0, 0.0, photon_energy_ev / HC_EV_ANGSTROM])
    return np.asarray(beam / np.linalg.norm(beam, axis=1, keepdims=True), dtype=np.float64)


def panel_matrices(geometry: Geometry) -> Float64Array:
    """Return (n_panels, 3, 3) matrices: rows fs step, ss step, centre of pixel (0, 0); in metres."""
    table = panel_table(geometry)
    corner, fs, ss = table[:, 0], table[:, 1], table[:, 2]
    return np.stack([fs, ss, corner + (fs + ss) / 2], axis=1)


def polarisation_factor(directions: Float64Array, polarisation: float) -> Float64Array:
    """Return the share (n,) of intensity left by polarisation, of which ``polarisation`` is along x."""
    along_x, along_y = 1 - directions[:, 0] ** 2, 1 - directions[:, 1] ** 2
    return polarisation * along_x + (1 - polarisation) * along_y


def diffract(
    factors: StructureFactors,
    axes: Float64Array,
    geometry: Geometry,
    *,
    photon_energy_ev: float,
    beam: BeamParameters,
    crystal: CrystalParameters,
    brightness: float,
) -> Spots:
    """Diffract one crystal onto the detector; ``axes`` as in :func:`excite`."""
    rows, q, error, fraction = excite(
        factors, axes, photon_energy_ev=photon_energy_ev, beam=beam, crystal=crystal
    )
    directions = scattered_directions(q, photon_energy_ev)
    panel, fs, ss = project_rays(geometry, directions)
    inv_d = factors.inv_d[rows]
    falloff = np.exp(-0.5 * crystal.b_factor * (inv_d**2 - REFERENCE_INV_D**2))
    photons = (
        factors.intensity[rows] * fraction * falloff * polarisation_factor(directions, beam.polarisation)
    )
    hit = panel >= 0
    matrices = panel_matrices(geometry)
    covariance = profile_covariance(directions[hit], panel[hit], matrices, beam, crystal)
    return Spots(
        rows[hit], panel[hit], fs[hit], ss[hit], inv_d[hit], error[hit],
        photons[hit] * crystal.spot_photons * brightness, *covariance.T,
    )  # fmt: skip


def vary_widths(spots: Spots, spread: float, generator: np.random.Generator) -> Spots:
    """Return the spots, each one's width times its own factor; ``spread`` is the rms of its logarithm."""
    factor = np.exp(2 * spread * generator.standard_normal(len(spots.row)))
    return replace(
        spots, cov_ff=spots.cov_ff * factor, cov_fs=spots.cov_fs * factor, cov_ss=spots.cov_ss * factor
    )


def profile_covariance(
    directions: Float64Array,
    panel: IntArray,
    matrices: Float64Array,
    beam: BeamParameters,
    crystal: CrystalParameters,
) -> Float64Array:
    """Return the covariance (n, 3: fs·fs, fs·ss, ss·ss; px²) of each spot's profile.

    A round spot (crystal, divergence, point spread) is drawn out along the radius by the bandwidth, Δ(2θ) = 2
    tanθ·Δλ/λ, and across it by the mosaicity, which turns the lattice about the beam.
    """
    pixel = np.linalg.norm(matrices[panel, 0], axis=1)
    distance = matrices[panel, 2, 2] / pixel
    two_theta = np.arccos(np.clip(directions[:, 2], -1, 1))
    radial = distance * 2 * np.tan(two_theta / 2) * beam.bandwidth / np.cos(two_theta) ** 2
    tangential = distance * np.tan(two_theta) * crystal.mosaicity_rad
    across = directions[:, :2] / np.maximum(np.linalg.norm(directions[:, :2], axis=1, keepdims=True), 1e-12)
    r_fs = np.einsum("ij,ij->i", across, matrices[panel, 0, :2]) / pixel
    r_ss = np.einsum("ij,ij->i", across, matrices[panel, 1, :2]) / pixel
    round_ = crystal.spot_sigma_px**2 + (beam.divergence_rad * distance) ** 2
    long_, wide = round_ + radial**2, round_ + tangential**2
    return np.stack(
        [long_ * r_fs**2 + wide * r_ss**2, (long_ - wide) * r_fs * r_ss, long_ * r_ss**2 + wide * r_fs**2],
        axis=1,
    )
