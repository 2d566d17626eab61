"""The demonstration's experiment and its runs."""

from dataclasses import dataclass

from peaknet_pipeline.simulate.detectors import find_detector, make_detector
from peaknet_pipeline.simulate.draw import detector_response, find_sample
from peaknet_pipeline.simulate.experiment import (
    BackgroundParameters,
    BeamParameters,
    CrystalParameters,
    DefectParameters,
    Experiment,
    RunConditions,
    ShotParameters,
)

DEMO_DISTANCE_M = 0.096
DEMO_ENERGY_EV = 9500.0


@dataclass(frozen=True)
class PlannedRun:
    """A run of an experiment: its number, what is told about it, and what it changes."""

    run_number: int
    description: str
    conditions: RunConditions


def demo_experiment(seed: int = 1, *, name: str = "demo") -> Experiment:
    """Return lysozyme on eight panels: well separated spots, weak to strong, on a water background."""
    detector = find_detector("demo")
    beam = BeamParameters(photon_energy_ev=DEMO_ENERGY_EV)
    return Experiment(
        name=name,
        seed=seed,
        sample=find_sample("lysozyme"),
        geometry=make_detector("demo", DEMO_DISTANCE_M, DEMO_ENERGY_EV),
        beam=beam,
        crystal=CrystalParameters(
            spot_photons=150.0, brightness_spread=0.85, spot_sigma_px=0.75, resolution_limit_angstrom=2.1
        ),
        background=BackgroundParameters(streak_photons=3.0, shadow_radius_px=20.0),
        response=detector_response(detector, DEMO_ENERGY_EV),
        defects=DefectParameters(),
        shots=ShotParameters(hit_fraction=0.5),
    )


def demo_runs() -> tuple[PlannedRun, ...]:
    """Return the demonstration's runs: normal, blank-heavy, with a stronger background, normal again."""
    return (
        PlannedRun(1, "normal", RunConditions()),
        PlannedRun(2, "blank-heavy", RunConditions(hit_fraction=0.12)),
        PlannedRun(3, "stronger background", RunConditions(background_factor=2.5)),
        PlannedRun(4, "normal", RunConditions()),
    )
