"""Frames with known truth on which finders are compared: simulated experiments, and files of an independent program.

The simulated experiments are spread evenly over spot width, background and detector, so that no class rests on chance. Each
true spot has an expected significance z, which a matched filter of the spot's own shape would see: with n photons on
B = A (b + r²) expected ones in the spot's noise-equivalent area A (King, PASP 95, 163, 1983) it is the root of the Poisson
deviance, √(2 ((n + B) ln(1 + n / B) − n)), as in :mod:`peaknet_pipeline.peaks.weak_spots`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from peaknet_pipeline.bench.real_stills import truth_of_file
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import Experiment, RunConditions
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.spots import PIXEL_VARIANCE
from peaknet_pipeline.simulate.truth import join_truth, truth_columns
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry

DETECTORS = {
    "demo": "integrating",
    "eiger4m": "counting",
    "agipd1m": "integrating",
    "rayonix": "ccd",
    "cspad": "integrating",
    "epix10k2m": "integrating",
    "jungfrau4m": "integrating",
}
"""Taken in turn, with the class of each."""

WIDTHS, LEVELS = (0.3, 3.0), (0.01, 1000.0)
"""Ranges of the spots' rms width (px) and of the background (photons per pixel) that the experiments are spread over."""

WIDTH_CLASSES = (0.6, 1.0, 1.6)
LEVEL_CLASSES = (0.1, 3.0, 30.0)
"""Limits between the classes of an experiment's median spot width, px, and median background under spots, photons."""

FILES = ("ortho_sharp", "sim1k", "jf4m")
GEOMETRIES = {"ortho_sharp": "ortho"}

AREAS = (1.0, 400.0)
"""Noise-equivalent areas that are believed, px²."""


@dataclass(frozen=True)
class FinderSet:
    """Frames (n, n_panels, ss, fs) of one detector with their truth.

    ``truth`` has the columns ``frame, panel, fs, ss, photons, background, snr, inv_d, usable`` of TRUTH_REFLECTIONS, of which
    ``snr`` is the significance z that this module defines, and ``taught``, the SNR by which training labels spots.
    """

    name: str
    detector: str
    frames: FrameArray
    geometry: Geometry
    bad_pixels: BoolArray
    offset_adu: float
    truth: pd.DataFrame
    width_px: float

    @property
    def level(self) -> float:
        """Median background under spots, photons per pixel."""
        return float(self.truth["background"].median()) if len(self.truth) else 0.0

    @property
    def adu_per_photon(self) -> Float64Array:
        """What one photon adds, (n_panels,)."""
        return np.array([panel.adu_per_photon for panel in self.geometry.panels], dtype=np.float64)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the set belongs to."""
        width = class_name("width", self.width_px, WIDTH_CLASSES, "px")
        return ("all", width, class_name("background", self.level, LEVEL_CLASSES, "photons"), self.detector)


def class_name(what: str, value: float, limits: tuple[float, ...], unit: str) -> str:
    """Return the class of a value: ``what`` and the limits that it lies between."""
    place = int(np.searchsorted(limits, value, side="right"))
    if place == 0:
        return f"{what} < {limits[0]:g} {unit}"
    if place == len(limits):
        return f"{what} > {limits[-1]:g} {unit}"
    return f"{what} {limits[place - 1]:g}-{limits[place]:g} {unit}"


def simulated_sets(first_seed: int, n_sets: int, n_frames: int) -> Iterator[FinderSet]:
    """Simulate experiments spread over width, background and detector; three quarters of the frames are hits."""
    for number in range(n_sets):
        yield simulate_set(first_seed, number, n_frames)


def simulate_set(first_seed: int, number: int, n_frames: int) -> FinderSet:
    """Simulate the experiment of that number: width and background follow a low-discrepancy sequence (Roberts 2018)."""
    seed = first_seed + number
    detector = list(DETECTORS)[number % len(DETECTORS)]
    experiment = draw_experiment(seed, detector=detector)
    # Multiples of 1/g and 1/g², g³ = g + 1, modulo 1, fill the square evenly.
    at = (0.5 + np.array([0.7548776662, 0.5698402910]) * (number + first_seed % 97)) % 1.0
    width, level = (
        float(low * (high / low) ** x) for x, (low, high) in zip(at, (WIDTHS, LEVELS), strict=True)
    )
    columns, frames = [], []
    conditions = _conditions(experiment, width, level, np.random.default_rng((seed, 37)))
    for frame in simulate_frames(
        experiment, n_frames, seed, conditions=conditions, workers=1, with_maps=False
    ):
        frames.append(frame.data)
        columns.append(truth_columns(frame))
    truth = join_truth(columns).reflections
    noise = experiment.response.read_noise_photons**2
    area = noise_area(truth, noise)
    return FinderSet(
        experiment.name,
        DETECTORS[detector],
        np.stack(frames),
        experiment.geometry,
        make_pixel_maps(experiment).known_bad,
        experiment.response.offset_adu,
        truth.assign(taught=truth["snr"], snr=significance(truth, area, noise)),
        width_of(area),
    )


def file_set(realdata: Path, name: str) -> FinderSet:
    """Read a file that CrystFEL simulated. Spots' area: from the brightest pixel's share s of the photons, 2 / s − 1."""
    folder = realdata / "crystfel_simulated"
    geometry = read_geometry(folder / f"{GEOMETRIES.get(name, name)}.geom")
    with open_run(folder / f"{name}.cxi", geometry) as run:
        truth = truth_of_file(run, range(run.n_frames)).rename(columns={"good": "usable"})
        share = float(truth["brightest"].median())
        area = np.full(len(truth), np.clip(2.0 / share - 1.0, *AREAS))
        truth = truth.assign(inv_d=np.nan, taught=truth["snr"], snr=significance(truth, area, 0.0))
        frames, bad, known = run.read(0, run.n_frames), run.bad_pixels, geometry_of(run)
    return FinderSet(name, "file", frames, known, bad, 0.0, truth, width_of(area))


def noise_area(truth: pd.DataFrame, read_variance: float) -> Float64Array:
    """Return each spot's noise-equivalent area, px², from its SNR, n / √(n + A (b + r²))."""
    photons, snr = (truth[name].to_numpy(np.float64) for name in ("photons", "snr"))
    level = truth["background"].to_numpy(np.float64) + read_variance
    area = ((photons / np.maximum(snr, 1e-9)) ** 2 - photons) / np.maximum(level, 1e-9)
    return np.asarray(np.clip(area, *AREAS))


def significance(truth: pd.DataFrame, area: Float64Array, read_variance: float) -> Float64Array:
    """Return the significance z of true spots of that area, px², as this module defines it."""
    photons = truth["photons"].to_numpy(np.float64)
    expected = np.maximum(area * (truth["background"].to_numpy(np.float64) + read_variance), 1e-6)
    deviance = (photons + expected) * np.log1p(photons / expected) - photons
    return np.asarray(np.sqrt(2.0 * np.maximum(deviance, 0.0)))


def width_of(area: Float64Array) -> float:
    """Return the median rms width, px, of spots with these noise-equivalent areas 4π(σ² + 1/12)."""
    if not len(area):
        return 0.0
    return float(np.sqrt(max(np.median(area) / (4.0 * np.pi) - PIXEL_VARIANCE, 0.04)))


def _conditions(
    experiment: Experiment, width: float, level: float, generator: np.random.Generator
) -> RunConditions:
    """Return the factors that give spots of that width, px, on that background, photons, mostly of 2–12σ."""
    scatter = experiment.background
    now = (
        scatter.flat_photons
        + scatter.diffuse_photons
        + 0.3 * scatter.water_photons
        + 0.1 * scatter.air_photons
    )
    area = 4.0 * np.pi * (width**2 + PIXEL_VARIANCE)
    noise = np.sqrt(area * (level + experiment.response.read_noise_photons**2) + 4.0)
    bright = float(np.exp(generator.uniform(*np.log(BRIGHTNESS_SIGMA)))) * noise
    return RunConditions(
        hit_fraction=0.75,
        background_factor=level / max(now, 1e-6),
        brightness_factor=bright / experiment.crystal.spot_photons,
        spot_width_factor=max(width / experiment.crystal.spot_sigma_px, 0.2),
    )


BRIGHTNESS_SIGMA = (10.0, 60.0)
"""Range of a strong reflection's photons, in units of the noise under a spot."""
