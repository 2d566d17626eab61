"""Weak frames made directly as spot lists: reflections of a known lattice with exponential intensities, among noise."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from peaknet_pipeline.indexing.second_look.diffraction_model import DiffractionModel
from peaknet_pipeline.indexing.second_look.flat_detector import UNCOVERED, FlatDetector
from peaknet_pipeline.indexing.second_look.frame_search import SecondLook
from peaknet_pipeline.indexing.second_look.lattice_likelihood import near_points
from peaknet_pipeline.indexing.second_look.spot_likelihood import N_RINGS
from peaknet_pipeline.indexing.second_look.weak_frame import SecondLookParams, WeakFrame
from peaknet_pipeline.types import UnitCell

LYSOZYME = UnitCell(79.1, 79.1, 37.9, 90.0, 90.0, 90.0, "tetragonal", "P", "c")
WAVE = 1.0 / 1.3
MODEL = DiffractionModel(size_inv_angstrom=0.0005, mosaicity_rad=0.002, b_factor=20.0, max_inv_d=0.4)
FAST = SecondLookParams(n_spots=96, max_pairs=2500, n_turns=400, n_refined=300, n_climbed=16)


def flat_square(half: int = 400, distance: float = 900.0) -> FlatDetector:
    """A square detector with a beamstop in its middle."""
    template = np.zeros((2 * half, 2 * half), dtype=np.uint8)
    template[half - 12 : half + 12, half - 12 : half + 12] = UNCOVERED
    return FlatDetector(distance, half, template)


@dataclass(frozen=True)
class Scene:
    """A frame, and the rotation of the lattice that is in it."""

    frame: WeakFrame
    rotation: np.ndarray


def random_rotation(seed: int) -> np.ndarray:
    return Rotation.random(random_state=seed).as_matrix()


def noise_spots(flat: FlatDetector, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places of noise, and the upper tail from 2σ of a normal distribution."""
    places = generator.uniform(-flat.half, flat.half, (n, 2))
    return places, 2.0 + generator.exponential(0.4, n)


def make_scene(look: SecondLook, strength: float, seed: int, *, n_noise: int = 3000) -> Scene:
    """Draw a lattice whose reflections have a mean of ``strength`` σ at the reference resolution."""
    generator = np.random.default_rng(seed)
    rotation = random_rotation(seed)
    points = near_points(look.rows, rotation, WAVE, 0.004, 0.0) @ rotation.T
    inv_d = np.linalg.norm(points, axis=1)
    error = (inv_d**2 + 2.0 * WAVE * points[:, 2]) / (2.0 * WAVE)
    width = np.sqrt(MODEL.size_inv_angstrom**2 + (MODEL.mosaicity_rad * inv_d) ** 2)
    mean = strength * np.exp(-0.5 * (error / width) ** 2 - 0.5 * MODEL.b_factor * (inv_d**2 - 0.0625))
    seen = generator.exponential(mean) + generator.standard_normal(len(mean))
    places = points[:, :2] / (points[:, 2:] + WAVE) * look.flat.distance
    cell = np.floor(places).astype(int) + look.flat.half
    good = (seen > 2.0) & ((cell >= 0) & (cell < 2 * look.flat.half)).all(axis=1)
    noise, height = noise_spots(look.flat, n_noise, generator)
    where = np.concatenate([places[good] + generator.normal(0.0, 0.3, (good.sum(), 2)), noise])
    how = np.concatenate([seen[good], height]).astype(np.float32)
    return Scene(WeakFrame(where, how, np.full(N_RINGS, 9.0), WAVE), rotation)


def noise_frame(flat: FlatDetector, seed: int, n_noise: int = 3000) -> WeakFrame:
    places, height = noise_spots(flat, n_noise, np.random.default_rng(seed))
    return WeakFrame(places, height.astype(np.float32), np.full(N_RINGS, 9.0), WAVE)
