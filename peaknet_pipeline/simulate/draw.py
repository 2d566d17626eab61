"""Random experiments: a seeded draw over samples, detectors, beams, backgrounds and defects."""

import math

import numpy as np

from peaknet_pipeline.simulate.catalogue import DETECTORS, Detector
from peaknet_pipeline.simulate.crystal import make_sample
from peaknet_pipeline.simulate.detectors import find_detector, make_detector
from peaknet_pipeline.simulate.experiment import (
    BackgroundParameters,
    BeamParameters,
    CrystalParameters,
    DefectParameters,
    Experiment,
    ResponseParameters,
    Sample,
    ShotParameters,
)
from peaknet_pipeline.simulate.gain_stages import STAGES
from peaknet_pipeline.types import HC_EV_ANGSTROM

SAMPLES: dict[str, tuple[str, tuple[float, ...]]] = {
    "lysozyme": ("P 43 21 2", (79.1, 79.1, 37.9)),
    "lysozyme_triclinic": ("P 1", (27.3, 32.0, 34.3, 88.5, 108.6, 111.8)),
    "thaumatin": ("P 41 21 2", (58.0, 58.0, 151.2)),
    "proteinase_k": ("P 43 21 2", (68.0, 68.0, 108.2)),
    "nuclease": ("P 41", (48.4, 48.4, 63.3)),
    "trypsin": ("P 31 2 1", (55.0, 55.0, 109.5, 90.0, 90.0, 120.0)),
    "concanavalin_a": ("I 2 2 2", (89.0, 86.5, 62.0)),
    "insulin": ("I 21 3", (78.9, 78.9, 78.9)),
    "yellow_protein": ("P 63", (66.9, 66.9, 40.9, 90.0, 90.0, 120.0)),
    "myoglobin": ("P 1 21 1", (64.6, 30.9, 34.8, 90.0, 105.8, 90.0)),
    "carbonic_anhydrase": ("P 1 21 1", (42.4, 41.4, 72.3, 90.0, 104.4, 90.0)),
    "bacteriorhodopsin": ("P 63", (62.3, 62.3, 111.1, 90.0, 90.0, 120.0)),
    "receptor": ("C 2 2 21", (40.4, 180.5, 142.9)),
    "polyhedrin": ("I 2 3", (103.4, 103.4, 103.4)),
}
"""Published crystal forms: space group, a, b, c (Å) and angles (degrees) where they are not 90."""

LCP_SAMPLES = ("bacteriorhodopsin", "receptor")
MIN_SPOT_SEPARATION_PX = 7.0


def find_sample(name: str) -> Sample:
    """Return one of :data:`SAMPLES` by name; raises KeyError for another one."""
    space_group, cell = SAMPLES[name]
    return make_sample(name, space_group, *cell)


def draw_experiment(
    seed: int,
    *,
    detector: str | None = None,
    sample: str | None = None,
    max_pixels: int | None = None,
    raw: bool = False,
) -> Experiment:
    """Draw a random experiment.

    Parameters
    ----------
    seed : int
        The same seed and options give the same experiment.
    detector, sample : str, optional
        Names from ``DETECTORS`` and :data:`SAMPLES`; drawn if absent.
    max_pixels : int, optional
        Leave detectors with more pixels out of the draw.
    raw : bool
        Let detectors that switch gain write their raw output.

    """
    generator = np.random.default_rng([seed, 3])
    names = [n for n in DETECTORS if max_pixels is None or _n_pixels(DETECTORS[n]) <= max_pixels]
    drawn_detector, drawn_sample = str(generator.choice(names)), str(generator.choice(list(SAMPLES)))
    kind, crystal_form = find_detector(detector or drawn_detector), find_sample(sample or drawn_sample)
    beam = _draw_beam(kind, generator)
    distance = _draw_distance(kind, crystal_form, beam, generator)
    # A CCD at a synchrotron integrates far more than one pulse of a laser.
    exposure = _log_uniform(generator, 1.0, 1500.0) if kind.response.blur_px else 1.0
    return Experiment(
        name=f"{crystal_form.name}-{kind.name}-{seed}",
        seed=seed,
        sample=crystal_form,
        geometry=make_detector(kind.name, distance, beam.photon_energy_ev),
        beam=beam,
        crystal=_draw_crystal(kind, exposure, generator),
        background=_draw_background(crystal_form.name in LCP_SAMPLES, exposure, generator),
        response=detector_response(kind, beam.photon_energy_ev),
        defects=_draw_defects(kind, generator),
        shots=_draw_shots(generator),
        stages=STAGES.get(kind.name) if raw else None,
    )


def detector_response(detector: Detector, photon_energy_ev: float) -> ResponseParameters:
    """Return a detector's response with its gain at this photon energy."""
    values = detector.response.to_dict() | {"adu_per_photon": detector.adu_per_photon(photon_energy_ev)}
    return ResponseParameters.from_mapping(values)


def _n_pixels(detector: Detector) -> int:
    return detector.n_ss * detector.n_fs * len(detector.placements())


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(generator.uniform(math.log(low), math.log(high))))


def _sometimes(generator: np.random.Generator, probability: float, low: float, high: float) -> float:
    """Draw log-uniformly with a probability, else 0; takes the same numbers from the generator either way."""
    happens, value = generator.random() < probability, _log_uniform(generator, low, high)
    return value if happens else 0.0


def _is_laser(detector: Detector) -> bool:
    return detector.response.read_noise_photons > 0 and detector.response.blur_px == 0


def _draw_beam(detector: Detector, generator: np.random.Generator) -> BeamParameters:
    is_laser = _is_laser(detector)
    return BeamParameters(
        photon_energy_ev=float(generator.uniform(*detector.energies_ev)),
        bandwidth=_log_uniform(generator, 4e-4, 2.2e-3) if is_laser else _log_uniform(generator, 1e-4, 4e-4),
        energy_jitter=_log_uniform(generator, 2e-4, 2e-3) if is_laser else 0.0,
        divergence_rad=_log_uniform(generator, 2e-5, 4e-4),
        pulse_jitter=float(generator.uniform(0.05, 0.5)) if is_laser else 0.02,
        polarisation=float(generator.uniform(0.95, 1.0)),
    )


def _draw_distance(
    detector: Detector, sample: Sample, beam: BeamParameters, generator: np.random.Generator
) -> float:
    """Draw a distance, moved out as far as needed to keep neighbouring reflections apart."""
    longest = max(sample.cell.a, sample.cell.b, sample.cell.c)
    apart = (
        MIN_SPOT_SEPARATION_PX * detector.pixel_size_m * longest / (HC_EV_ANGSTROM / beam.photon_energy_ev)
    )
    return max(float(generator.uniform(*detector.distances_m)), apart)


def _draw_crystal(detector: Detector, exposure: float, generator: np.random.Generator) -> CrystalParameters:
    return CrystalParameters(
        width_spread=float(generator.uniform(0.0, 0.2)),
        spot_photons=exposure**0.85
        * _log_uniform(generator, 60.0, 4000.0 if _is_laser(detector) else 15000.0),
        b_factor=float(generator.uniform(15.0, 40.0)),
        brightness_spread=float(generator.uniform(0.3, 0.9)),
        mosaicity_rad=_log_uniform(generator, 2e-4, 1.5e-3 if _is_laser(detector) else 3.5e-3),
        size_angstrom=_log_uniform(generator, 3000.0, 100000.0),
        resolution_limit_angstrom=float(generator.uniform(1.4, 3.2)),
        spot_sigma_px=float(generator.uniform(*detector.point_spread_px)),
    )


def _draw_background(is_lcp: bool, exposure: float, generator: np.random.Generator) -> BackgroundParameters:
    level = exposure * _log_uniform(generator, 0.1, 20.0)
    streak, arm = generator.random(2) < (0.35, 0.4)
    return BackgroundParameters(
        flat_photons=level * float(generator.uniform(0.01, 0.4)),
        air_photons=level * _log_uniform(generator, 0.3, 6.0),
        air_decay=float(generator.uniform(0.04, 0.14)),
        water_photons=level * (0.3 if is_lcp else 1.0),
        diffuse_photons=level * float(generator.uniform(0.0, 1.5)),
        lcp_photons=level * float(generator.uniform(0.5, 2.5)) * is_lcp,
        ice_photons=level * _sometimes(generator, 0.08, 0.2, 3.0),
        ring_photons=level * _sometimes(generator, 0.15, 0.2, 2.0),
        ring_d_angstrom=float(generator.uniform(2.5, 12.0)),
        ring_width=_log_uniform(generator, 0.002, 0.03),
        streak_photons=level * _log_uniform(generator, 0.5, 20.0) * bool(streak),
        streak_angle_deg=float(generator.choice([0.0, 90.0]) + generator.normal(0.0, 5.0)),
        streak_width_px=_log_uniform(generator, 1.5, 6.0),
        shadow_radius_px=float(generator.uniform(0.0, 60.0)),
        shadow_arm_px=float(generator.uniform(4.0, 15.0)) * bool(arm),
        shadow_arm_deg=float(generator.uniform(0.0, 360.0)),
    )


def _draw_defects(detector: Detector, generator: np.random.Generator) -> DefectParameters:
    return DefectParameters(
        hot_fraction=_log_uniform(generator, 1e-5, 4e-4),
        hot_photons=_log_uniform(generator, 10.0, 500.0),
        dead_fraction=_log_uniform(generator, 1e-5, 1e-3),
        noisy_fraction=_log_uniform(generator, 1e-6, 2e-4) if detector.response.read_noise_photons else 0.0,
        known_fraction=float(generator.uniform(0.5, 1.0)),
        masked_as=detector.masked_as,
    )


def _draw_shots(generator: np.random.Generator) -> ShotParameters:
    return ShotParameters(
        hit_fraction=float(generator.uniform(0.05, 0.5)),
        multi_probability=float(generator.uniform(0.0, 0.3)),
        background_spread=float(generator.uniform(0.05, 0.5)),
        miss_probability=float(generator.uniform(0.0, 0.15)),
    )
