"""What merged data are judged by: simulated crystals with known |F|², and two independent ways to merge them."""

import numpy as np
import pandas as pd

from peaknet_pipeline.merging.symmetry import Symmetry, asymmetric_keys
from peaknet_pipeline.schemas import REFLECTIONS, ReflectionTable
from peaknet_pipeline.simulate.crystal import draw_rotation, draw_structure_factors, reciprocal_axes
from peaknet_pipeline.simulate.detectors import make_detector
from peaknet_pipeline.simulate.draw import find_sample
from peaknet_pipeline.simulate.ewald import diffract
from peaknet_pipeline.simulate.experiment import BeamParameters, CrystalParameters
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float64Array, IntArray

B_FACTOR = 20.0
PROFILE_RADIUS = 0.0015
ORIENTATION_ERROR = 2e-4
"""Radians, rms: what indexing leaves."""


class Crystals:
    """Integrated reflections of ``n`` simulated crystals (``table``), without frames, and their true intensities.

    Recorded shares, counting noise, a background of its own for each crystal and errors of orientation are drawn; with
    ``settings``, (n_settings, 3, 3), each crystal is indexed in one of them (``setting``, (n,)).
    """

    def __init__(
        self,
        sample: str,
        n: int,
        *,
        seed: int,
        photons: float = 300.0,
        noise: float = 20.0,
        brightness: float = 0.7,
        settings: IntArray | None = None,
        min_d: float = 2.4,
        orientation_error: float = ORIENTATION_ERROR,
    ) -> None:
        self.sample = find_sample(sample)
        self.generator = np.random.default_rng(seed)
        self.factors = draw_structure_factors(self.sample, min_d_angstrom=min_d, seed=seed)
        self.beam = BeamParameters()
        self.geometry = make_detector("demo", 0.12, self.beam.photon_energy_ev)
        self.crystal = CrystalParameters(spot_photons=photons, b_factor=B_FACTOR, mosaicity_rad=1e-3)
        self.noise, self.brightness, self.orientation_error = noise, brightness, orientation_error
        self.setting = np.zeros(n, dtype=np.int64)
        if settings is not None:
            self.setting = self.generator.integers(len(settings), size=n)
        rows = [self._one(c, None if settings is None else settings[self.setting[c]]) for c in range(n)]
        joined = pd.concat(rows, ignore_index=True)
        self.table: ReflectionTable = make_table(REFLECTIONS, {str(name): joined[name] for name in joined})

    def _one(self, number: int, setting: IntArray | None) -> pd.DataFrame:
        axes = np.ascontiguousarray(reciprocal_axes(self.sample.cell) @ draw_rotation(self.generator).T)
        brightness = float(np.exp(self.brightness * self.generator.standard_normal()))
        spots = diffract(
            self.factors, axes, self.geometry, photon_energy_ev=self.beam.photon_energy_ev, beam=self.beam,
            crystal=self.crystal, brightness=brightness,
        )  # fmt: skip
        hkl = self.factors.hkl[spots.row]
        q = hkl @ axes
        q = q + np.cross(self.generator.normal(0.0, self.orientation_error, 3), q)
        wave = self.beam.photon_energy_ev / HC_EV_ANGSTROM
        error = np.linalg.norm(q + np.array([0.0, 0.0, wave]), axis=1) - wave
        near = np.abs(error) < PROFILE_RADIUS
        noise = self.noise * (0.3 + self.generator.exponential())
        value = self.generator.poisson(spots.photons) + self.generator.normal(0.0, np.sqrt(noise), len(error))
        if setting is not None:
            hkl = hkl @ setting
        columns = {n: hkl[:, i] for i, n in enumerate("hkl")} | {
            "inv_d": spots.inv_d, "excitation_error": error, "intensity": value, "panel": spots.panel, "fs": spots.fs,
            "ss": spots.ss, "sigma": np.sqrt(noise + np.maximum(value, 0.0)), "peak": value, "background": noise / 20,
        }  # fmt: skip
        frame: pd.DataFrame = pd.DataFrame(columns)[near].assign(frame=number, lattice=0)
        return frame

    def true_intensity(
        self, keys: IntArray, symmetry: Symmetry, setting: IntArray | None = None
    ) -> Float64Array:
        """Return the true |F|² with its fall-off for unique reflections, in one of the settings; NaN where there is none."""
        hkl = self.factors.hkl if setting is None else self.factors.hkl @ setting
        value = self.factors.intensity * np.exp(-0.5 * B_FACTOR * self.factors.inv_d**2)
        known = pd.Series(value, index=asymmetric_keys(hkl, symmetry.rotations))
        return np.asarray(known[~known.index.duplicated()].reindex(keys), dtype=np.float64)


def plain_mean(table: ReflectionTable, symmetry: Symmetry) -> "pd.Series[float]":
    """Merge as process_hkl does without options: the mean of all observations of a reflection, nothing else."""
    keys = asymmetric_keys(table[["h", "k", "l"]].to_numpy(), symmetry.rotations)
    return table.groupby(keys)["intensity"].mean()


def scaled_mean(table: ReflectionTable, symmetry: Symmetry, *, n_iterations: int = 10) -> "pd.Series[float]":
    """Merge as partialator --model=unity does: scale and B factor per crystal by ln I, then means weighted by those.

    Rules of CrystFEL's scaling: a line through ln(I_ref / I) against s² over the reflections with I > 3 σ, weights by
    their number of measurements; the mean over crystals with weights 1 / scale², crystals with |B| > 40 Å² left out.
    """
    keys = asymmetric_keys(table[["h", "k", "l"]].to_numpy(), symmetry.rotations)
    unique, row = np.unique(keys, return_inverse=True)
    value, sigma = table["intensity"].to_numpy(float), table["sigma"].to_numpy(float)
    s2 = table["inv_d"].to_numpy(float) ** 2
    correction, weight = np.ones(len(value)), np.ones(len(value))
    groups = [np.asarray(r, dtype=np.int64) for r in table.groupby("frame").indices.values()]
    for _ in range(n_iterations):
        below = np.bincount(row, weights=weight)
        reference = np.bincount(row, weights=weight * correction * value) / np.maximum(below, 1e-12)
        for rows in groups:
            good = rows[(value[rows] > 3.0 * sigma[rows]) & (reference[row[rows]] > 0)]
            if len(good) < 3:
                weight[rows] = 0.0
                continue
            ratio = np.log(reference[row[good]] / value[good])
            slope, level = np.polyfit(s2[good], ratio, 1)
            slope = 0.0 if abs(2.0 * slope) > 40.0 else slope
            level = np.mean(ratio - slope * s2[good])
            correction[rows] = np.exp(level + slope * s2[rows])
            weight[rows] = correction[rows] ** -2.0
        scale = np.median([correction[rows[0]] for rows in groups])
        correction, weight = correction / scale, weight * scale**2
    below = np.bincount(row, weights=weight)
    return pd.Series(
        np.bincount(row, weights=weight * correction * value) / np.maximum(below, 1e-12), index=unique
    )
