"""Spots of crystals in known orientations, made from the Ewald construction alone (no code of the indexer's)."""

import numpy as np

from peaknet_pipeline.indexing.cell import reciprocal_matrix
from peaknet_pipeline.indexing.qvectors import SpotBatch, batch_spots
from peaknet_pipeline.types import HC_EV_ANGSTROM, Geometry, Panel, UnitCell

ENERGY_EV = 9500.0
WAVE = ENERGY_EV / HC_EV_ANGSTROM
LYSOZYME = UnitCell(79.1, 79.1, 37.9, 90.0, 90.0, 90.0, "tetragonal", "P", "c")


def random_rotation(generator: np.random.Generator) -> np.ndarray:
    """Return a uniformly random rotation, (3, 3), from a normal quaternion."""
    w, x, y, z = (v := generator.normal(size=4)) / np.linalg.norm(v)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def lattice_spots(
    axes: np.ndarray,
    generator: np.random.Generator,
    *,
    n: int,
    max_inv_d: float = 0.4,
    width: float = 0.001,
    noise: float = 0.0002,
    forbidden=lambda h: np.zeros(len(h), dtype=bool),
) -> np.ndarray:
    """Return at most n spots, (n, 3) Å⁻¹, on the Ewald sphere, nearest to points within a normal width of it."""
    limit = np.ceil(max_inv_d * np.linalg.norm(np.linalg.inv(axes), axis=1)).astype(int)
    grids = np.meshgrid(*[np.arange(-m, m + 1) for m in limit], indexing="ij")
    h = np.stack(grids, axis=-1).reshape(-1, 3)
    h = h[np.any(h != 0, axis=1) & ~forbidden(h)]
    points = h @ axes.T
    points = points[np.linalg.norm(points, axis=1) < max_inv_d]
    out = points + np.array([0.0, 0.0, WAVE])
    error = np.linalg.norm(out, axis=1) - WAVE
    near = np.flatnonzero(np.abs(error) < np.abs(generator.normal(0.0, width, len(error))))
    chosen = generator.permutation(near)[:n]
    direction = out[chosen] / np.linalg.norm(out[chosen], axis=1, keepdims=True)
    direction += generator.normal(0.0, noise / WAVE, direction.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return WAVE * (direction - [0.0, 0.0, 1.0])


def false_spots(generator: np.random.Generator, n: int, *, max_inv_d: float = 0.4) -> np.ndarray:
    """Return n spots uniform over a flat detector, (n, 3) Å⁻¹."""
    two_theta = 2.0 * np.arcsin(max_inv_d / (2.0 * WAVE))
    radius = np.tan(two_theta) * np.sqrt(generator.uniform(0.01, 1.0, n))
    azimuth = generator.uniform(0.0, 2.0 * np.pi, n)
    direction = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), np.ones(n)], axis=1)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return WAVE * (direction - [0.0, 0.0, 1.0])


def simulated_frames(
    cell: UnitCell, *, n_frames: int, n_true: int, n_false: int, seed: int, **spots
) -> tuple[SpotBatch, list[np.ndarray]]:
    """Return spots of one crystal per frame with false ones among them, and the true bases."""
    generator = np.random.default_rng(seed)
    frames, vectors, truth = [], [], []
    for frame in range(n_frames):
        axes = random_rotation(generator) @ reciprocal_matrix(cell)
        q = lattice_spots(axes, generator, n=n_true, **spots)
        q = np.concatenate([q, false_spots(generator, n_false)])
        frames.append(np.full(len(q), frame))
        vectors.append(q)
        truth.append(axes)
    batch = batch_spots(np.concatenate(frames), np.concatenate(vectors), photon_energy_ev=ENERGY_EV)
    return batch, truth


def flat_geometry(n: int = 1200, *, distance_m: float = 0.1, pixel_m: float = 1e-4) -> Geometry:
    """Return two panels side by side, one of them turned by 180°, that together see n × n pixels about the beam."""
    half = n / 2
    common = {"pixel_size_m": pixel_m, "clen_m": distance_m, "min_fs": 0, "max_fs": n // 2 - 1}
    left = Panel(
        "left",
        min_ss=0,
        max_ss=n - 1,
        corner_x=-half,
        corner_y=-half,
        fs_vec=(1.0, 0.0, 0.0),
        ss_vec=(0.0, 1.0, 0.0),
        **common,
    )
    right = Panel(
        "right",
        min_ss=n,
        max_ss=2 * n - 1,
        corner_x=half,
        corner_y=half,
        fs_vec=(-1.0, 0.0, 0.0),
        ss_vec=(0.0, -1.0, 0.0),
        **common,
    )
    return Geometry((left, right), photon_energy_ev=ENERGY_EV)
