"""Teaching material from simulated experiments: frames with known truth, cut into crops, kept in files."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.learn.crops import Crop, ValidationPanel
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import Experiment, ResponseParameters, RunConditions
from peaknet_pipeline.simulate.frames import SimulatedFrame, simulate_frames
from peaknet_pipeline.steps.truth_windows import (
    TeachingParameters,
    Window,
    disturb_window,
    is_peak,
    label_window,
)
from peaknet_pipeline.types import BoolArray, Float32Array, UInt8Array

TYPICAL_AREA = 12.0
"""Noise-equivalent area, px², of a spot on no background, where it cannot be told from its noise."""

SEEDS_APART = 1_000_000
"""Experiments of teaching seed s have the simulator's seeds from s times this."""


@dataclass(frozen=True)
class TruthFrame:
    """A simulated frame, its good pixels (n_panels, ss, fs) and the detector that recorded it."""

    frame: SimulatedFrame
    good: BoolArray
    response: ResponseParameters

    def window(self, panel: int, corner: tuple[int, int], side: int) -> Window:
        """Cut a square of a panel; what lies beyond the panel is bad."""
        at = (panel, slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side))
        data = self.frame.data[at]
        cut = Window.blank(side, adu_per_photon=self.response.adu_per_photon)
        part = (slice(0, data.shape[0]), slice(0, data.shape[1]))
        cut.image[part] = np.nan_to_num(data.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        cut.good[part], cut.spots[part] = self.good[at], self.frame.spot_photons[at]
        values: dict[str, Any] = self._reflections(panel, corner, data.shape)
        return replace(cut, **values)

    def _reflections(
        self, panel: int, corner: tuple[int, int], shape: tuple[int, ...]
    ) -> dict[str, npt.NDArray[Any]]:
        table: dict[str, npt.NDArray[Any]] = dict(self.frame.reflections)
        if not table:
            return {}
        ss, fs = table["ss"] - corner[0], table["fs"] - corner[1]
        inside = (table["panel"] == panel) & (ss > -0.5) & (ss < shape[0] - 0.5)
        inside &= (fs > -0.5) & (fs < shape[1] - 0.5)
        photons, snr = table["photons"][inside].astype(float), table["snr"][inside].astype(float)
        level = table["background"][inside] + self.response.read_noise_photons**2
        noise = np.maximum((photons / np.maximum(snr, 1e-6)) ** 2 - photons, 0.0)
        area = np.where(level > 1e-3, noise / np.maximum(level, 1e-3), TYPICAL_AREA)
        return {
            "ss": ss[inside],
            "fs": fs[inside],
            "photons": photons,
            "noise": noise,
            "area": np.clip(area, 3.0, 100.0),
        }


def draw_frames(seed: int, params: TeachingParameters) -> Iterator[TruthFrame]:
    """Simulate the frames of one random experiment."""
    experiment = draw_experiment(seed, max_pixels=params.max_pixels)
    generator = np.random.default_rng((seed, 17))
    if generator.random() < params.sharp_fraction:
        experiment = sharpen(experiment, generator)
    conditions = RunConditions(
        hit_fraction=params.hit_fraction,
        background_factor=float(np.exp(generator.uniform(np.log(0.02), np.log(5.0)))),
        brightness_factor=float(np.exp(generator.uniform(np.log(0.5), np.log(8.0)))),
    )
    known_bad = make_pixel_maps(experiment).known_bad
    for frame in simulate_frames(
        experiment, params.frames_per_experiment, seed, conditions=conditions, workers=1
    ):
        yield TruthFrame(frame, ~known_bad & np.isfinite(frame.data), experiment.response)


def sharpen(experiment: Experiment, generator: np.random.Generator) -> Experiment:
    """Give an experiment a better beam and better crystals: spots whose brightest pixel holds up to most of the photons."""
    share, width = (
        float(np.exp(generator.uniform(np.log(0.02), np.log(0.5)))),
        float(generator.uniform(0.2, 0.6)),
    )
    beam, crystal = experiment.beam, experiment.crystal
    return replace(
        experiment,
        beam=replace(beam, bandwidth=share * beam.bandwidth, divergence_rad=share * beam.divergence_rad),
        crystal=replace(crystal, mosaicity_rad=max(share * crystal.mosaicity_rad, 2e-4), spot_sigma_px=width),
    )


def cut_windows(
    frame: TruthFrame, params: TeachingParameters, generator: np.random.Generator
) -> Iterator[Window]:
    """Cut a frame's crops around reflections and elsewhere."""
    n_panels, height, width = frame.good.shape
    table: dict[str, npt.NDArray[Any]] = dict(frame.frame.reflections)
    strong = np.flatnonzero(table["snr"] >= params.peak_snr) if table else np.zeros(0, dtype=np.int64)
    for _ in range(params.crops_per_frame):
        panel, ss, fs = generator.integers(n_panels), generator.integers(height), generator.integers(width)
        if len(strong) and generator.random() < params.near_spots:
            row = generator.choice(strong)
            jitter = generator.uniform(-0.35, 0.35, 2) * params.crop_side
            panel, ss, fs = table["panel"][row], table["ss"][row] + jitter[0], table["fs"][row] + jitter[1]
        corner = tuple(
            int(np.clip(centre - params.crop_side / 2, 0, max(0, side - params.crop_side)))
            for centre, side in ((ss, height), (fs, width))
        )
        yield frame.window(int(panel), (corner[0], corner[1]), params.crop_side)


def make_panel(window: Window, params: TeachingParameters) -> ValidationPanel:
    """Make a validation panel of a window, with the reflections that are peaks as true centres."""
    chosen = is_peak(window, params)
    centres = np.stack([window.ss[chosen], window.fs[chosen]], axis=1).astype(np.float32)
    label, snr = label_window(window, params), window.snr[chosen].astype(np.float32)
    return ValidationPanel(window.image, window.good, label, centres, snr)


def simulate_crops(seeds: Iterable[int], params: TeachingParameters) -> Iterator[list[Crop]]:
    """Give the crops of each experiment in turn."""
    for seed in seeds:
        generator = np.random.default_rng((seed, 23))
        windows = [w for frame in draw_frames(seed, params) for w in cut_windows(frame, params, generator)]
        disturbed = (disturb_window(window, generator) for window in windows)
        yield [Crop(w.image, w.good, label_window(w, params)) for w in disturbed]


@dataclass(frozen=True)
class StoredCrops:
    """Crops in memory-mapped files: a source that takes no memory of its own."""

    images: Float32Array
    good: BoolArray
    labels: UInt8Array

    def __len__(self) -> int:
        """Return the number of crops."""
        return len(self.images)

    def __getitem__(self, index: int) -> Crop:
        """Return a crop."""
        return Crop(self.images[index], self.good[index], self.labels[index])


def store_crops(
    folder: Path, params: TeachingParameters, *, progress: Callable[[int, int], None] | None = None
) -> StoredCrops:
    """Simulate all crops into a folder, or reuse those that an earlier call with these parameters left there.

    ``progress`` is told (experiments done, all experiments).
    """
    stored = [folder / f"{params.digest()}-{name}.npy" for name in ("images", "good", "labels")]
    if not all(path.is_file() for path in stored):
        with contextlib.ExitStack() as stack:
            parts = [stack.enter_context(replace_atomically(path)) for path in stored]
            _fill_files(parts, params, progress)
    return StoredCrops(*(np.load(path, mmap_mode="r") for path in stored))


def _fill_files(
    paths: list[Path], params: TeachingParameters, progress: Callable[[int, int], None] | None
) -> None:
    side, per_experiment = params.crop_side, params.frames_per_experiment * params.crops_per_frame
    shape = (params.n_experiments * per_experiment, side, side)
    arrays = [
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        for path, dtype in zip(paths, (np.float32, np.bool_, np.uint8), strict=True)
    ]
    first = params.seed * SEEDS_APART
    seeds = range(first, first + params.n_experiments)
    for number, crops in enumerate(simulate_crops(seeds, params)):
        rows = slice(number * per_experiment, (number + 1) * per_experiment)
        for array, name in zip(arrays, ("image", "good", "label"), strict=True):
            array[rows] = np.stack([getattr(crop, name) for crop in crops])
        if progress is not None:
            progress(number + 1, params.n_experiments)
    for array in arrays:
        array.flush()
