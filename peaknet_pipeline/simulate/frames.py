"""Frames with known truth, in memory."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.simulate.background import BackgroundMaps, make_background_maps
from peaknet_pipeline.simulate.compilation import compiled
from peaknet_pipeline.simulate.crystal import StructureFactors, draw_structure_factors, reciprocal_axes
from peaknet_pipeline.simulate.detection import PixelMaps, detect, make_pixel_maps, to_file_values
from peaknet_pipeline.simulate.ewald import Spots, diffract, panel_matrices
from peaknet_pipeline.simulate.experiment import Experiment, RunConditions
from peaknet_pipeline.simulate.shots import Shot, draw_shot
from peaknet_pipeline.simulate.spots import draw_spots, expected_snr, spot_area
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float32Array, Float64Array, FrameArray, Geometry

MIN_TRUTH_PHOTONS = 0.5
"""Reflections with fewer expected photons are drawn but not listed in the truth."""

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


@dataclass(frozen=True)
class SimulatedFrame:
    """One frame and its truth.

    ``data`` (n_panels, ss, fs) is what the file holds; ``spot_photons`` and ``background_photons`` are the
    expected photons of reflections and of everything else, same shape, float32. ``axes`` holds one (3, 3)
    matrix per crystal, a*, b*, c* as rows, laboratory frame, Å⁻¹. ``reflections`` are the columns of
    ``TRUTH_REFLECTIONS``.
    """

    shot: Shot
    data: FrameArray
    spot_photons: Float32Array
    background_photons: Float32Array
    axes: tuple[Float64Array, ...]
    reflections: Columns


def make_simulator(experiment: Experiment, conditions: RunConditions | None = None) -> Simulator:
    """Prepare a run: structure factors, background maps, gains and defects."""
    conditions = conditions or RunConditions()
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
) -> Iterator[SimulatedFrame]:
    """Simulate frames ``start … start + n − 1`` of a run, in order.

    Each frame depends on the experiment, the seed, the run number and its own number alone: workers, start
    and n change nothing in it. At most ``2 × workers`` frames are held at a time.
    """
    simulator = make_simulator(experiment, conditions)
    shots = (
        draw_shot(experiment, simulator.conditions, seed=seed, run_number=run_number, frame=frame)
        for frame in range(start, start + n)
    )
    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque[Future[SimulatedFrame]] = deque()
        try:
            for shot in islice(shots, 2 * workers):
                waiting.append(pool.submit(simulate_frame, simulator, shot))
            while waiting:
                frame = waiting.popleft().result()
                waiting.extend(pool.submit(simulate_frame, simulator, shot) for shot in islice(shots, 1))
                yield frame
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def simulate_frame(simulator: Simulator, shot: Shot) -> SimulatedFrame:
    """Simulate one shot."""
    experiment, maps = simulator.experiment, simulator.background
    axes = tuple(np.ascontiguousarray(simulator.axes @ rotation.T) for rotation in shot.rotations)
    lattices = [_diffract(simulator, shot, n, lattice_axes) for n, lattice_axes in enumerate(axes)]
    spot_photons = np.zeros(experiment.geometry.stack_shape, dtype=np.float32)
    for spots in lattices:
        draw_spots(spot_photons, spots, experiment.geometry)
    background = np.empty_like(spot_photons)
    expected = np.empty_like(spot_photons)
    scale = shot.background_scale * simulator.conditions.background_factor
    _compose(
        expected,
        background,
        spot_photons,
        maps.scatter,
        maps.streak,
        maps.transmission,
        scale,
        shot.streak_scale,
    )
    signal = detect(
        expected, simulator.pixels, experiment.response, experiment.geometry, seed=shot.detector_seed
    )
    data = to_file_values(signal, simulator.pixels, experiment.response, experiment.defects)
    tables = [_tabulate(simulator, n, spots, expected, background) for n, spots in enumerate(lattices)]
    return SimulatedFrame(shot, data, spot_photons, background, axes, _join(tables))


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
    return diffract(
        simulator.factors,
        axes,
        experiment.geometry,
        photon_energy_ev=shot.photon_energy_ev,
        beam=experiment.beam,
        crystal=replace(experiment.crystal, size_angstrom=size),
        brightness=shot.brightness[number],
    )


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
    expected: Float32Array,
    background: Float32Array,
    spots: Float32Array,
    scatter: Float32Array,
    streak: Float32Array,
    transmission: Float32Array,
    scale: float,
    streak_scale: float,
) -> None:
    """Put spots and background behind the beamstop; ``spots`` is changed in place."""
    for p in range(expected.shape[0]):
        for i in range(expected.shape[1]):
            for j in range(expected.shape[2]):
                passed = transmission[p, i, j]
                level = (scale * scatter[p, i, j] + streak_scale * streak[p, i, j]) * passed
                spots[p, i, j] *= passed
                background[p, i, j] = level
                expected[p, i, j] = level + spots[p, i, j]
