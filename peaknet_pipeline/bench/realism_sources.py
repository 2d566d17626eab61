"""What is compared: real frames, an independent simulation, twins of both, and random experiments."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from peaknet_pipeline.bench.realism_measure import FrameSet
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import (
    BackgroundParameters,
    BeamParameters,
    CrystalParameters,
    DefectParameters,
    Experiment,
    ShotParameters,
)
from peaknet_pipeline.simulate.frames import make_simulator, simulate_frames
from peaknet_pipeline.simulate.place import move_experiment
from peaknet_pipeline.types import FrameArray

ALL_HITS = ShotParameters(
    hit_fraction=1.0, multi_probability=0.0, background_spread=0.1, miss_probability=0.0
)


@dataclass(frozen=True)
class Source:
    """A file of frames: what to read of it and how to find its peaks."""

    name: str
    run: str
    geometry: str
    frames: tuple[int, ...]
    threshold: float
    adu_per_photon: float = 1.0


REAL = (
    Source("thaumatin (real)", "thaumatin/stills.h5", "thaumatin/stills.geom", (0, 3, 6, 7), 5.0),
    Source("protein, Pilatus 6M (real)", "pilatus6m/still.h5", "pilatus6m/still.geom", (0,), 5.0),
    Source("nuclease, CCD (real)", "snase/stills.h5", "snase/stills.geom", (0, 4, 8), 300.0),
)
INDEPENDENT = (
    Source(
        "lysozyme (CrystFEL)",
        "crystfel_simulated/sim1k.cxi",
        "crystfel_simulated/sim1k.geom",
        tuple(range(10)),
        5.0,
    ),
    Source(
        "JUNGFRAU (CrystFEL)",
        "crystfel_simulated/jf4m.cxi",
        "crystfel_simulated/jf4m.geom",
        (0, 1),
        20.0,
        9.5,
    ),
)


def open_source(source: Source, realdata: Path) -> FrameSet:
    """Open the frames of a file."""
    run = open_run(realdata / source.run, realdata / source.geometry)
    if run.geometry is None:
        raise ValueError("open_run was given a geometry")
    frames: Iterator[FrameArray] = (run.read(n, n + 1)[0] for n in source.frames)
    energy = float(run.info.photon_energy_ev[0])
    return FrameSet(source.name, frames, run.geometry, run.bad_pixels, energy, source.adu_per_photon)


def simulated_set(experiment: Experiment, n_frames: int, *, seed: int, name: str | None = None) -> FrameSet:
    """Simulate hits of an experiment."""
    hits = replace(experiment, shots=replace(experiment.shots, hit_fraction=1.0))
    return FrameSet(
        name or experiment.name,
        (frame.data for frame in simulate_frames(hits, n_frames, seed)),
        experiment.geometry,
        make_simulator(experiment).pixels.known_bad,
        experiment.beam.photon_energy_ev,
        experiment.response.adu_per_photon,
        experiment.response.offset_adu,
    )


def finder_for(experiment: Experiment) -> Peakfinder8Params:
    """Return finder parameters that suit the experiment's noise."""
    response = experiment.response
    floor = max(2.0, 3 * response.read_noise_photons) * response.adu_per_photon + response.offset_adu
    return Peakfinder8Params(threshold=floor, min_snr=5.0)


def thaumatin_twin(realdata: Path) -> Experiment:
    """Return a simulated twin of the real thaumatin stills: same geometry, cell and photon energy."""
    drawn = draw_experiment(1, detector="pilatus6m", sample="thaumatin")
    twin = replace(
        drawn,
        beam=BeamParameters(bandwidth=1.5e-4, energy_jitter=0.0, divergence_rad=1e-4, pulse_jitter=0.02),
        crystal=CrystalParameters(
            spot_photons=1400.0,
            b_factor=22.0,
            brightness_spread=0.6,
            mosaicity_rad=2.2e-3,
            size_angstrom=2e5,
            resolution_limit_angstrom=1.5,
            spot_sigma_px=1.0,
            width_spread=0.12,
        ),
        background=BackgroundParameters(
            flat_photons=1.7,
            air_photons=3.5,
            air_decay=0.08,
            water_photons=1.2,
            diffuse_photons=3.6,
            shadow_radius_px=20.0,
        ),
        defects=DefectParameters(
            hot_fraction=2e-6, dead_fraction=1e-5, noisy_fraction=0.0, masked_as="minus_one"
        ),
        shots=ALL_HITS,
    )
    return move_experiment(twin, read_geometry(realdata / "thaumatin/stills.geom"))


def lysozyme_twin(realdata: Path) -> Experiment:
    """Return a simulated twin of the independent program's lysozyme frames."""
    drawn = draw_experiment(1, detector="eiger4m", sample="lysozyme")
    twin = replace(
        drawn,
        beam=BeamParameters(bandwidth=5e-4, energy_jitter=0.0, divergence_rad=5e-5, pulse_jitter=0.05),
        crystal=CrystalParameters(
            spot_photons=430.0,
            b_factor=18.0,
            brightness_spread=0.25,
            mosaicity_rad=5e-4,
            size_angstrom=1e4,
            resolution_limit_angstrom=2.0,
            spot_sigma_px=0.36,
            width_spread=0.15,
        ),
        background=BackgroundParameters(
            flat_photons=0.85,
            air_photons=14.0,
            air_decay=0.042,
            water_photons=5.6,
            diffuse_photons=0.0,
            shadow_radius_px=20.0,
        ),
        defects=DefectParameters(hot_fraction=3e-5, masked_as="measured"),
        shots=ALL_HITS,
    )
    return move_experiment(twin, read_geometry(realdata / "crystfel_simulated/sim1k.geom"))
