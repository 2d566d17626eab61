"""Teaching material from simulated experiments: frames labelled by their truth, cut into crops."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from peaknet_pipeline.learn.crops import Crop, ValidationPanel
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.simulate.detection import make_pixel_maps
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import RunConditions
from peaknet_pipeline.simulate.frames import SimulatedFrame, simulate_frames
from peaknet_pipeline.tables import replace_atomically
from peaknet_pipeline.types import LABEL_IGNORE, LABEL_PEAK, BoolArray, Float32Array, UInt8Array

STAMP = 4
"""Half width of the window around a reflection in which its pixels are labelled."""

SEEDS_APART = 1_000_000
"""Experiments of teaching seed s have the simulator's seeds from s times this."""


@dataclass(frozen=True)
class TeachingParameters(Parameters):
    """Which simulated frames teach the shipped network, and how they are labelled."""

    seed: int = parameter(1, meaning="seed of everything drawn", ge=0)
    n_experiments: int = parameter(400, meaning="random experiments", ge=1)
    frames_per_experiment: int = parameter(3, meaning="frames of each", ge=1)
    crops_per_frame: int = parameter(6, meaning="crops cut from each frame", ge=1)
    crop_side: int = parameter(128, meaning="side of a crop", unit="px", ge=32)
    near_spots: float = parameter(0.75, meaning="share of crops cut around a reflection", ge=0, le=1)
    hit_fraction: float = parameter(0.8, meaning="share of frames with a crystal", ge=0, le=1)
    max_pixels: int = parameter(7_000_000, meaning="largest detector drawn", unit="px", ge=1)
    peak_snr: float = parameter(3.0, meaning="expected SNR from which a reflection is a peak", ge=0)
    ignore_snr: float = parameter(1.0, meaning="expected SNR from which it is at least ignored", ge=0)


def draw_frames(seed: int, params: TeachingParameters) -> Iterator[tuple[SimulatedFrame, BoolArray]]:
    """Simulate the frames of one random experiment, each with its good pixels (n_panels, ss, fs)."""
    experiment = draw_experiment(seed, max_pixels=params.max_pixels)
    generator = np.random.default_rng((seed, 17))
    conditions = RunConditions(
        hit_fraction=params.hit_fraction,
        background_factor=float(np.exp(generator.uniform(np.log(0.3), np.log(5.0)))),
        brightness_factor=float(np.exp(generator.uniform(np.log(0.5), np.log(8.0)))),
    )
    known_bad = make_pixel_maps(experiment).known_bad
    for frame in simulate_frames(
        experiment, params.frames_per_experiment, seed, conditions=conditions, workers=1
    ):
        yield frame, ~known_bad & np.isfinite(frame.data)


def label_frame(frame: SimulatedFrame, good: BoolArray, params: TeachingParameters) -> UInt8Array:
    """Label a simulated frame by its truth.

    Parameters
    ----------
    frame : SimulatedFrame
        With its expected photons.
    good : (n_panels, ss, fs) bool
        Good pixels; others become "ignore".
    params : TeachingParameters
        From which expected SNR a reflection is a peak.

    Returns
    -------
    (n_panels, ss, fs) uint8
        1 where a peak's expected photons reach half of its maximum; 255 (one pixel wider) where a reflection
        is too weak, or lies on unusable pixels; 0 elsewhere.

    """
    label = np.zeros(frame.data.shape, dtype=np.uint8)
    table = _truth(frame)
    if table:
        is_peak = (table["snr"] >= params.peak_snr) & table["usable"]
        unsure = (table["snr"] >= params.ignore_snr) & ~is_peak
        for chosen, value, margin in ((unsure, LABEL_IGNORE, 1), (is_peak, LABEL_PEAK, 0)):
            at = np.stack(
                [np.rint(table[name][chosen]).astype(int) for name in ("panel", "ss", "fs")], axis=1
            )
            _stamp(label, frame.spot_photons, at, value, margin)
    label[~good] = LABEL_IGNORE
    return label


def cut_crops(
    frame: SimulatedFrame,
    good: BoolArray,
    label: UInt8Array,
    params: TeachingParameters,
    generator: np.random.Generator,
) -> list[Crop]:
    """Cut crops around reflections and elsewhere; what lies beyond a panel is bad."""
    n_panels, height, width = frame.data.shape
    table = _truth(frame)
    strong = np.flatnonzero(table["snr"] >= params.peak_snr) if table else np.zeros(0, dtype=np.int64)
    crops = []
    for _ in range(params.crops_per_frame):
        panel, ss, fs = generator.integers(n_panels), generator.integers(height), generator.integers(width)
        if len(strong) and generator.random() < params.near_spots:
            row = generator.choice(strong)
            jitter = generator.uniform(-0.35, 0.35, 2) * params.crop_side
            panel, ss, fs = table["panel"][row], table["ss"][row] + jitter[0], table["fs"][row] + jitter[1]
        corner = [
            int(np.clip(centre - params.crop_side / 2, 0, max(0, side - params.crop_side)))
            for centre, side in ((ss, height), (fs, width))
        ]
        crops.append(_cut(frame.data[panel], good[panel], label[panel], corner, params.crop_side))
    return crops


def truth_panels(
    frame: SimulatedFrame, good: BoolArray, params: TeachingParameters, *, largest: int = 1_000_000
) -> Iterator[ValidationPanel]:
    """Give each panel, at most ``largest`` pixels per side, with the reflections that are peaks."""
    label = label_frame(frame, good, params)
    window = (slice(0, largest), slice(0, largest))
    for number in range(len(frame.data)):
        image = _as_float(frame.data[number][window])
        centres, snr = np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.float32)
        table = _truth(frame)
        if table:
            chosen = (table["panel"] == number) & (table["snr"] >= params.peak_snr) & table["usable"]
            chosen &= (table["ss"] < image.shape[0] - 0.5) & (table["fs"] < image.shape[1] - 0.5)
            centres = np.stack([table["ss"][chosen], table["fs"][chosen]], axis=1).astype(np.float32)
            snr = table["snr"][chosen].astype(np.float32)
        yield ValidationPanel(image, good[number][window], label[number][window], centres, snr)


def simulate_crops(seeds: Iterable[int], params: TeachingParameters) -> Iterator[list[Crop]]:
    """Give the crops of each experiment in turn."""
    for seed in seeds:
        generator = np.random.default_rng((seed, 23))
        crops = []
        for frame, good in draw_frames(seed, params):
            crops += cut_crops(frame, good, label_frame(frame, good, params), params, generator)
        yield crops


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


def _stamp(
    label: UInt8Array, photons: Float32Array, at: npt.NDArray[np.int64], value: int, margin: int
) -> None:
    """Label the half-maximum pixels around each position (n, 3) of panel, ss, fs, widened by a margin."""
    for panel, ss, fs in at:
        window = (panel, slice(max(0, ss - STAMP), ss + STAMP + 1), slice(max(0, fs - STAMP), fs + STAMP + 1))
        inside = photons[window]
        centre = (ss - window[1].start, fs - window[2].start)
        near = inside[max(0, centre[0] - 1) : centre[0] + 2, max(0, centre[1] - 1) : centre[1] + 2]
        regions, _ = ndimage.label(inside >= 0.5 * near.max())
        pixels = regions == regions[centre] if regions[centre] else np.zeros(inside.shape, dtype=bool)
        pixels[centre] = True
        if margin:
            pixels = ndimage.binary_dilation(pixels, np.ones((3, 3), dtype=bool), iterations=margin)
        label[window][pixels] = value


def _cut(
    image: npt.NDArray[np.generic], good: BoolArray, label: UInt8Array, corner: list[int], side: int
) -> Crop:
    window = tuple(slice(start, start + side) for start in corner)
    crop = Crop(
        np.zeros((side, side), dtype=np.float32),
        np.zeros((side, side), dtype=bool),
        np.full((side, side), LABEL_IGNORE, dtype=np.uint8),
    )
    part = tuple(slice(0, length) for length in image[window].shape)
    crop.image[part], crop.good[part], crop.label[part] = (
        _as_float(image[window]),
        good[window],
        label[window],
    )
    return crop


def _truth(frame: SimulatedFrame) -> dict[str, npt.NDArray[Any]]:
    return dict(frame.reflections)


def _as_float(image: npt.NDArray[np.generic]) -> Float32Array:
    return np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
