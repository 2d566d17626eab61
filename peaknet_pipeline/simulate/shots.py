"""Shots: what meets the beam in each frame, from the seed, the run number and the frame number alone."""

from dataclasses import dataclass, replace

import numpy as np

from peaknet_pipeline.simulate.crystal import draw_rotation
from peaknet_pipeline.simulate.experiment import Experiment, RunConditions
from peaknet_pipeline.types import Float64Array

BACKGROUND_RANGE = (0.01, 2.0)
"""A shot's factor on the background stays in this range."""

STREAK_TILT_DEG = 2.0
"""A jet's streak turns by this much from shot to shot, rms."""

BLANK, HIT, MULTI = "blank", "hit", "multi"


@dataclass(frozen=True)
class Shot:
    """One shot: a rotation (3, 3), a brightness factor and a size factor per crystal in the beam."""

    frame: int
    kind: str
    photon_energy_ev: float
    background_scale: float
    streak_scale: float
    streak_tilt_deg: float
    rotations: tuple[Float64Array, ...]
    brightness: tuple[float, ...]
    sizes: tuple[float, ...]
    detector_seed: int


def draw_shot(
    experiment: Experiment, conditions: RunConditions, *, seed: int, run_number: int, frame: int
) -> Shot:
    """Draw one shot; the same arguments give the same shot, whatever was drawn before."""
    generator = np.random.default_rng([seed, run_number, frame, experiment.seed])
    beam, crystal = experiment.beam, experiment.crystal
    pulse = _draw_pulse(beam.pulse_jitter, generator)
    n_lattices = _draw_n_lattices(experiment, conditions, generator)
    energy = beam.photon_energy_ev * (1 + beam.energy_jitter * generator.standard_normal())
    thickness, streak, tilt = _draw_jet(experiment, generator)
    bright = generator.normal(0.0, crystal.brightness_spread, n_lattices)
    sizes = generator.lognormal(0.0, 0.3, n_lattices)
    return Shot(
        frame=frame,
        kind=(BLANK, HIT)[n_lattices] if n_lattices < 2 else MULTI,
        photon_energy_ev=float(energy),
        background_scale=float(np.clip(pulse * thickness, *BACKGROUND_RANGE)),
        streak_scale=float(pulse * streak),
        streak_tilt_deg=tilt,
        rotations=tuple(draw_rotation(generator) for _ in range(n_lattices)),
        brightness=tuple(float(pulse * np.exp(b) * conditions.brightness_factor) for b in bright),
        sizes=tuple(float(s) for s in sizes),
        detector_seed=int(generator.integers(0, 2**63)),
    )


def with_rotation(shot: Shot, rotation: Float64Array) -> Shot:
    """Return the shot with its first crystal turned to ``rotation`` (3, 3)."""
    return replace(shot, rotations=(rotation, *shot.rotations[1:]))


def _draw_pulse(jitter: float, generator: np.random.Generator) -> float:
    if jitter <= 0:
        return 1.0
    shape = 1 / jitter**2
    return float(generator.gamma(shape, 1 / shape))


def _draw_n_lattices(
    experiment: Experiment, conditions: RunConditions, generator: np.random.Generator
) -> int:
    hit_fraction = (
        experiment.shots.hit_fraction if conditions.hit_fraction is None else conditions.hit_fraction
    )
    is_hit, is_multi, is_triple = generator.random(3) < (
        hit_fraction,
        experiment.shots.multi_probability,
        0.2,
    )
    return int(is_hit) * (1 + int(is_multi) * (1 + int(is_triple)))


def _draw_jet(experiment: Experiment, generator: np.random.Generator) -> tuple[float, float, float]:
    missed = generator.random() < experiment.shots.miss_probability
    thickness = float(generator.lognormal(0.0, experiment.shots.background_spread))
    thin = float(generator.uniform(0.01, 0.3))
    streak = float(generator.exponential())
    tilt = STREAK_TILT_DEG * float(generator.standard_normal())
    return (thin, 0.0, tilt) if missed else (thickness, streak, tilt)
