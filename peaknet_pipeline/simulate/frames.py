"""Frames with known truth, in memory."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.simulate.background import BackgroundMaps, add_streak, make_background_maps, panel_sizes
from peaknet_pipeline.simulate.blur import blur_panels
from peaknet_pipeline.simulate.compilation import compiled
from peaknet_pipeline.simulate.crystal import StructureFactors, draw_structure_factors, reciprocal_axes
from peaknet_pipeline.simulate.detection import PixelMaps, detect, make_pixel_maps, to_file_values
from peaknet_pipeline.simulate.ewald import Spots, diffract, panel_matrices, vary_widths
from peaknet_pipeline.simulate.experiment import Experiment, RunConditions
from peaknet_pipeline.simulate.gain_stages import GainConstants, UInt16Array, draw_gain_constants, encode_raw
from peaknet_pipeline.simulate.shots import Shot, draw_shot
from peaknet_pipeline.simulate.spots import draw_spots, expected_snr, spot_area
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float32Array, Float64Array, FrameArray, Geometry

MIN_TRUTH_PHOTONS = 0.5
"""Reflections with fewer expected photons are drawn but not listed in the truth."""

NO_MAP: Float32Array = np.empty((0, 0, 0), dtype=np.float32)
NO_MAP.flags.writeable = False

Columns = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Simulator:
    """What does not change from shot to shot of a run; made by :func:`make_simulator`."""

    experiment: Experiment
    conditions: RunConditions
    factors: StructureFactors
    axes: Float64Array
    background: BackgroundMaps
    pixels: PixelMaps
    constants: GainConstants | None


@dataclass(frozen=True)
class SimulatedFrame:
    """One frame and its truth.

    ``data`` (n_panels, ss, fs) is what the file holds; ``spot_photons`` and ``background_photons`` are the
    expected photons of reflections and of everything else, same shape, float32. ``axes`` holds one (3, 3)
    matrix per crystal, a*, b*, c* as rows, laboratory frame, Å⁻¹. ``gain_codes`` (uint16, same shape) go with
    raw output. ``reflections`` are the columns of ``TRUTH_REFLECTIONS``.
    """

    shot: Shot
    data: FrameArray
    spot_photons: Float32Array
    background_photons: Float32Array
    axes: tuple[Float64Array, ...]
    reflections: Columns
    gain_codes: UInt16Array | None = None


def make_simulator(experiment: Experiment, conditions: RunConditions | None = None) -> Simulator:
    """Prepare a run: structure factors, background maps, gains and defects."""
    conditions = conditions or RunConditions()
    width = experiment.crystal.spot_sigma_px * conditions.spot_width_factor
    experiment = replace(experiment, crystal=replace(experiment.crystal, spot_sigma_px=width))
    min_d = max(experiment.crystal.resolution_limit_angstrom, finest_spacing(experiment.geometry, experiment))
    return Simulator(
        experiment=experiment,
        conditions=conditions,
        factors=draw_structure_factors(experiment.sample, min_d_angstrom=min_d, seed=experiment.seed),
        axes=reciprocal_axes(experiment.sample.cell),
        background=make_background_maps(
            experiment.geometry, experiment.beam, experiment.background, conditions
        ),
        pixels=make_pixel_maps(experiment),
        constants=make_gain_constants(experiment),
    )


def simulate_frames(
    experiment: Experiment,
    n: int,
    seed: int,
    *,
    conditions: RunConditions | None = None,
    run_number: int = 1,
    start: int = 0,
    workers: int = 2,
    with_maps: bool = True,
) -> Iterator[SimulatedFrame]:
    """Simulate frames ``start … start + n − 1`` of a run, in order.

    Each frame depends on the experiment, the seed, the run number and its own number alone: workers, start and
    n change nothing in it. At most ``workers + 1`` frames are held at a time. Without ``with_maps`` the maps of
    expected photons are left empty, which saves memory on large detectors.
    """
    simulator = make_simulator(experiment, conditions)
    shots = (
        draw_shot(experiment, simulator.conditions, seed=seed, run_number=run_number, frame=frame)
        for frame in range(start, start + n)
    )
    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque[Future[SimulatedFrame]] = deque()
        try:
            for shot in islice(shots, workers + 1):
                waiting.append(pool.submit(simulate_frame, simulator, shot, with_maps=with_maps))
            while waiting:
                frame = waiting.popleft().result()
                for shot in islice(shots, 1):
                    waiting.append(pool.submit(simulate_frame, simulator, shot, with_maps=with_maps))
                yield frame
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def simulate_frame(simulator: Simulator, shot: Shot, *, with_maps: bool = True) -> SimulatedFrame:
    """Simulate one shot; without ``with_maps`` the maps of expected photons are left empty."""
    experiment = simulator.experiment
    response, geometry = experiment.response, experiment.geometry
    axes = tuple(np.ascontiguousarray(simulator.axes @ rotation.T) for rotation in shot.rotations)
    lattices = [_diffract(simulator, shot, n, lattice_axes) for n, lattice_axes in enumerate(axes)]
    expected, background, spot_photons = _illuminate(simulator, shot, lattices)
    signal = detect(expected, simulator.pixels, response, geometry, seed=shot.detector_seed)
    data, codes = _write_numbers(simulator, signal, shot)
    reflections = _join([_tabulate(simulator, n, s, expected, background) for n, s in enumerate(lattices)])
    if not with_maps:
        return SimulatedFrame(shot, data, NO_MAP, NO_MAP, axes, reflections, codes)
    spot_photons = blur_panels(spot_photons, panel_sizes(geometry), response.blur_px)
    return SimulatedFrame(shot, data, spot_photons, background, axes, reflections, codes)


def _illuminate(
    simulator: Simulator, shot: Shot, lattices: list[Spots]
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Return expected photons, and those of the background and of the spots, each (n_panels, ss, fs)."""
    geometry, maps = simulator.experiment.geometry, simulator.background
    spot_photons = np.zeros(geometry.stack_shape, dtype=np.float32)
    for spots in lattices:
        draw_spots(spot_photons, spots, geometry)
    conditions, jet = simulator.conditions, simulator.experiment.background
    background = maps.scatter * np.float32(shot.background_scale * conditions.background_factor)
    add_streak(
        background,
        geometry,
        photons=jet.streak_photons * shot.streak_scale * conditions.streak_factor,
        angle_deg=jet.streak_angle_deg + shot.streak_tilt_deg,
        width_px=jet.streak_width_px,
    )
    expected = np.empty_like(spot_photons)
    _compose(expected, background, spot_photons, maps.transmission)
    return expected, background, spot_photons


def make_gain_constants(experiment: Experiment) -> GainConstants | None:
    """Return a raw experiment's calibration constants; None if it writes calibrated frames."""
    if experiment.stages is None:
        return None
    return draw_gain_constants(experiment.stages, experiment.geometry.stack_shape, seed=experiment.seed)


def _write_numbers(
    simulator: Simulator, signal: Float32Array, shot: Shot
) -> tuple[FrameArray, UInt16Array | None]:
    """Turn the signal into the file's numbers, and for raw output into gain codes as well."""
    experiment = simulator.experiment
    response, stages = experiment.response, experiment.stages
    if stages is None or simulator.constants is None:
        return to_file_values(signal, simulator.pixels, response, experiment.defects), None
    kev = (signal - response.offset_adu) * (experiment.beam.photon_energy_ev / 1000 / response.adu_per_photon)
    forced, seed = simulator.conditions.forced_stage, shot.detector_seed
    return encode_raw(kev.astype(np.float32), simulator.constants, stages, seed=seed, forced_stage=forced)


def finest_spacing(geometry: Geometry, experiment: Experiment) -> float:
    """Return the smallest d (Å) that the detector's farthest pixel corner sees at the mean photon energy."""
    largest = 0.0
    for matrix, panel in zip(panel_matrices(geometry), geometry.panels, strict=True):
        width, height = panel.max_fs - panel.min_fs + 1, panel.max_ss - panel.min_ss + 1
        steps = np.array([[f, s, 1.0] for f in (-0.5, width - 0.5) for s in (-0.5, height - 0.5)])
        corners = steps @ matrix
        cosine = corners[:, 2] / np.linalg.norm(corners, axis=1)
        largest = max(largest, float(np.sqrt(2 - 2 * cosine).max()))
    return HC_EV_ANGSTROM / experiment.beam.photon_energy_ev / largest


def _diffract(simulator: Simulator, shot: Shot, number: int, axes: Float64Array) -> Spots:
    experiment = simulator.experiment
    size = experiment.crystal.size_angstrom * shot.sizes[number]
    spots = diffract(
        simulator.factors,
        axes,
        experiment.geometry,
        photon_energy_ev=shot.photon_energy_ev,
        beam=experiment.beam,
        crystal=replace(experiment.crystal, size_angstrom=size),
        brightness=shot.brightness[number],
    )
    generator = np.random.default_rng([shot.detector_seed, number])
    return vary_widths(spots, experiment.crystal.width_spread, generator)


def _tabulate(
    simulator: Simulator, lattice: int, spots: Spots, expected: Float32Array, background: Float32Array
) -> Columns:
    """List one lattice's reflections, as columns of ``TRUTH_REFLECTIONS``."""
    at = (spots.panel, np.rint(spots.ss).astype(np.int64), np.rint(spots.fs).astype(np.int64))
    transmission = simulator.background.transmission[at].astype(np.float64)
    photons, level = spots.photons * transmission, background[at].astype(np.float64)
    read_noise = simulator.experiment.response.read_noise_photons
    columns: Columns = {
        "lattice": np.full(len(photons), lattice, dtype=np.int16),
        "h": simulator.factors.hkl[spots.row, 0],
        "k": simulator.factors.hkl[spots.row, 1],
        "l": simulator.factors.hkl[spots.row, 2],
        "panel": spots.panel,
        "fs": spots.fs,
        "ss": spots.ss,
        "inv_d": spots.inv_d,
        "photons": photons,
        "background": level,
        "snr": expected_snr(photons, spot_area(spots), level, read_noise),
        "usable": _is_usable(simulator, at, expected),
    }
    listed = photons >= MIN_TRUTH_PHOTONS
    return {name: values[listed] for name, values in columns.items()}


def _is_usable(
    simulator: Simulator, at: tuple[npt.NDArray[np.int64], ...], expected: Float32Array
) -> npt.NDArray[np.bool_]:
    """Say of each spot whether the 3 × 3 pixels around it exist, are good, and stay below the full well."""
    panel, ss, fs = at
    usable = np.ones(len(panel), dtype=bool)
    sizes = [(p.max_ss - p.min_ss, p.max_fs - p.min_fs) for p in simulator.experiment.geometry.panels]
    last_ss, last_fs = np.array(sizes).T
    limit = 0.8 * simulator.experiment.response.saturation_photons
    for ds in (-1, 0, 1):
        for df in (-1, 0, 1):
            i, j = ss + ds, fs + df
            inside = (i >= 0) & (j >= 0) & (i <= last_ss[panel]) & (j <= last_fs[panel])
            pixel = (panel, np.clip(i, 0, last_ss[panel]), np.clip(j, 0, last_fs[panel]))
            usable &= inside & ~simulator.pixels.truly_bad[pixel] & (expected[pixel] < limit)
    return usable


def _join(tables: list[Columns]) -> Columns:
    if not tables:
        return {}
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


@compiled
def _compose(
    expected: Float32Array, background: Float32Array, spots: Float32Array, transmission: Float32Array
) -> None:
    """Put background and spots (both changed in place) behind the beamstop, and add them up."""
    for p in range(expected.shape[0]):
        for i in range(expected.shape[1]):
            for j in range(expected.shape[2]):
                background[p, i, j] *= transmission[p, i, j]
                spots[p, i, j] *= transmission[p, i, j]
                expected[p, i, j] = background[p, i, j] + spots[p, i, j]
