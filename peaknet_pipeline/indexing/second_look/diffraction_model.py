"""What a still of a crystal is expected to show: how near the Ewald sphere a reflection must be, and how bright it is on
average.

A reciprocal-lattice point diffracts within a width w of the Ewald sphere. Crystal size makes a constant part of it, mosaicity
and divergence one that grows with the point's distance g from the origin, bandwidth one that grows with g²:
w² = size² + (mosaicity · g)² + (bandwidth · g² / 2k)², k = 1/λ. With the excitation error e the expected intensity falls as
exp(−e² / 2w²), and with resolution as exp(−B · g² / 2) / w.
"""

from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.indexing.second_look.spot_likelihood import LEAST_MEAN, Rings
from peaknet_pipeline.indexing.target import lattice_points
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import Float32Array, Float64Array, IntArray

REFERENCE_INV_D = 0.25
"""Resolution, Å⁻¹, at which amplitudes are given."""

TABLE_CELLS = 1024
"""Steps of g² in which width, brightness and ring are kept."""


SHELL_LIMITS = (0.4, 0.6, 0.8, 1.0)
"""Shares of the model's resolution at which a crystal may stop to diffract."""

N_SHELLS = len(SHELL_LIMITS)


@dataclass(frozen=True)
class DiffractionModel(Parameters):
    """Widths and fall-off of a run's crystals; estimated from its indexed frames where there are enough."""

    size_inv_angstrom: float = parameter(
        0.0003, meaning="half width of a lattice point of a perfect crystal", unit="Å⁻¹", gt=0.0, le=0.01
    )
    mosaicity_rad: float = parameter(
        0.001, meaning="mosaicity and divergence together", unit="rad", ge=0.0, le=0.05
    )
    bandwidth: float = parameter(0.001, meaning="relative bandwidth of the beam", ge=0.0, le=0.1)
    b_factor: float = parameter(25.0, meaning="overall temperature factor B", unit="Å²", ge=-50.0, le=300.0)
    max_inv_d: float = parameter(
        0.5, meaning="resolution up to which reflections are counted", unit="Å⁻¹", gt=0.02, le=1.5
    )


@dataclass(frozen=True)
class ModelTable:
    """A diffraction model over g², in ``TABLE_CELLS`` steps of 1 / ``per_step`` Å⁻².

    ``width`` Å⁻¹; ``brightness`` log2 of the mean photons at excitation error 0 and amplitude 1, in steps above
    ``LEAST_MEAN``; ``ring`` number of the likelihood ring; ``shell`` number of the first of ``SHELL_LIMITS`` that includes it.
    """

    per_step: float
    width: Float32Array
    brightness: Float32Array
    ring: IntArray
    shell: IntArray


@dataclass(frozen=True)
class LatticeRows:
    """All reciprocal-lattice points within a resolution, as rows along the shortest reciprocal axis.

    ``base`` (3, n) and ``step`` (3,) Å⁻¹, crystal frame: a row's points are base + t · step for whole t from ``first`` to
    ``last`` (n,); ``max_inv_d`` Å⁻¹ is how far they reach.
    """

    base: Float64Array
    step: Float64Array
    first: IntArray
    last: IntArray
    max_inv_d: float


def reflection_width(model: DiffractionModel, inv_d: Float64Array, wave: float) -> Float64Array:
    """Return the width w, Å⁻¹, of reflections at 1/d = ``inv_d`` (n,)."""
    chromatic = model.bandwidth * inv_d**2 / (2.0 * wave)
    return np.asarray(
        np.sqrt(model.size_inv_angstrom**2 + (model.mosaicity_rad * inv_d) ** 2 + chromatic**2),
        dtype=np.float64,
    )


def make_model_table(
    model: DiffractionModel, rings: Rings, *, wave: float, distance: float, margin: float = 1.02
) -> ModelTable:
    """Tabulate a model for one photon energy and camera length (``distance``, cells of the flat detector)."""
    top = (model.max_inv_d * margin) ** 2
    square = (np.arange(TABLE_CELLS) + 0.5) * top / TABLE_CELLS
    inv_d = np.sqrt(square)
    width = reflection_width(model, inv_d, wave)
    reference = reflection_width(model, np.array([REFERENCE_INV_D]), wave)[0]
    falloff = -0.5 * model.b_factor * (square - REFERENCE_INV_D**2) / np.log(2.0)
    brightness = falloff + np.log2(reference / width) - np.log2(LEAST_MEAN)
    two_theta = 2.0 * np.arcsin(np.clip(0.5 * inv_d / wave, 0.0, 0.999))
    radius = np.where(two_theta < 1.5, np.tan(np.minimum(two_theta, 1.5)) * distance, np.inf)
    ring = np.minimum(np.searchsorted(rings.edges, radius, side="left"), len(rings.edges) - 1)
    shell = np.searchsorted(np.array(SHELL_LIMITS) * model.max_inv_d, inv_d, side="left")
    return ModelTable(
        TABLE_CELLS / top,
        width.astype(np.float32),
        brightness.astype(np.float32),
        ring.astype(np.int64),
        np.minimum(shell, N_SHELLS - 1).astype(np.int64),
    )


def make_rows(primitive: Float64Array, max_inv_d: float) -> LatticeRows:
    """Arrange the points of a primitive reciprocal basis (3, 3), columns, Å⁻¹, within ``max_inv_d`` in rows."""
    along = int(np.argmin(np.linalg.norm(primitive, axis=0)))
    points = lattice_points(primitive, max_inv_d).astype(np.int64)
    across = [axis for axis in range(3) if axis != along]
    keys, inverse = np.unique(points[:, across], axis=0, return_inverse=True)
    first = np.full(len(keys), np.iinfo(np.int64).max)
    last = np.full(len(keys), np.iinfo(np.int64).min)
    np.minimum.at(first, inverse.reshape(-1), points[:, along])
    np.maximum.at(last, inverse.reshape(-1), points[:, along])
    index = np.zeros((len(keys), 3), dtype=np.int64)
    index[:, across] = keys
    return LatticeRows(
        np.ascontiguousarray(primitive @ index.T),
        np.ascontiguousarray(primitive[:, along]),
        first,
        last,
        max_inv_d,
    )
