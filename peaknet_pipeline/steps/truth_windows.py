"""Windows of simulated frames with their truth: disturbed further, labelled by what is expected in them."""

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from scipy import ndimage

from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import (
    LABEL_IGNORE,
    LABEL_PEAK,
    BoolArray,
    Float32Array,
    Float64Array,
    IntArray,
    UInt8Array,
)

STAMP = 5
"""Half width of the window around a reflection in which its pixels are labelled."""

FLANK = 0.2
"""Share of a peak's maximum down to which its flanks count neither way: whether a pixel just reaches half of it is noise."""


@dataclass(frozen=True)
class TeachingParameters(Parameters):
    """Which simulated frames teach the shipped network, and how they are labelled."""

    seed: int = parameter(1, meaning="seed of everything drawn", ge=0)
    n_experiments: int = parameter(400, meaning="random experiments", ge=1)
    frames_per_experiment: int = parameter(3, meaning="frames of each", ge=1)
    crops_per_frame: int = parameter(9, meaning="crops cut from each frame", ge=1)
    crop_side: int = parameter(128, meaning="side of a crop", unit="px", ge=32)
    near_spots: float = parameter(0.75, meaning="share of crops cut around a reflection", ge=0, le=1)
    sharp_fraction: float = parameter(
        0.5, meaning="share of experiments whose spots are little wider than a pixel", ge=0, le=1
    )
    hit_fraction: float = parameter(0.8, meaning="share of frames with a crystal", ge=0, le=1)
    max_pixels: int = parameter(7_000_000, meaning="largest detector drawn", unit="px", ge=1)
    peak_snr: float = parameter(3.0, meaning="expected SNR from which a reflection is a peak", ge=0)
    ignore_snr: float = parameter(1.0, meaning="expected SNR from which it is at least ignored", ge=0)


@dataclass(frozen=True)
class Window:
    """A square of a panel: ``image`` (adu), ``good``, expected photons of its ``spots``, each (side, side).

    Of each reflection, (n,): ``ss`` and ``fs`` in the window, expected ``photons``, the variance beneath it
    (``noise``, photons²) and its noise-equivalent ``area`` (px²).
    """

    image: Float32Array
    good: BoolArray
    spots: Float32Array
    adu_per_photon: float
    ss: Float64Array = field(default_factory=lambda: np.zeros(0))
    fs: Float64Array = field(default_factory=lambda: np.zeros(0))
    photons: Float64Array = field(default_factory=lambda: np.zeros(0))
    noise: Float64Array = field(default_factory=lambda: np.zeros(0))
    area: Float64Array = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def blank(cls, side: int, *, adu_per_photon: float) -> Self:
        """Return a window of bad pixels."""
        shape = (side, side)
        return cls(
            np.zeros(shape, dtype=np.float32),
            np.zeros(shape, dtype=np.bool_),
            np.zeros(shape, dtype=np.float32),
            adu_per_photon,
        )

    @property
    def snr(self) -> Float64Array:
        """Expected signal to noise of each reflection's fitted profile."""
        return np.asarray(self.photons / np.sqrt(np.maximum(self.photons + self.noise, 1e-12)))

    @property
    def pixels(self) -> tuple[IntArray, IntArray]:
        """The nearest pixel of each reflection: ss, fs."""
        last = len(self.image) - 1
        ss, fs = (np.clip(np.rint(x).astype(np.int64), 0, last) for x in (self.ss, self.fs))
        return ss, fs


def disturb_window(window: Window, generator: np.random.Generator) -> Window:
    """Add to a third of the windows each what simulation lacks: diffuse scattering, and halos.

    Recorded values are never blurred: a hot pixel would look like a spot and be labelled as background.
    """
    diffuse, halo = generator.random(2) < 1 / 3
    if diffuse:
        window = add_diffuse(window, generator)
    return add_halos(window, generator) if halo else window


def add_diffuse(window: Window, generator: np.random.Generator) -> Window:
    """Add a log-normal random field of photons, 3 to 20 px in scale, up to six times the background."""
    field_ = ndimage.gaussian_filter(
        generator.standard_normal(window.image.shape), _log_uniform(generator, 3.0, 20.0), mode="wrap"
    )
    typical = np.median(window.image[window.good]) if window.good.any() else 0.0
    level = _log_uniform(generator, 0.1, 6.0) * (max(float(typical), 0.0) / window.adu_per_photon + 0.1)
    expected = level * np.exp(generator.uniform(0.3, 1.2) * field_ / max(float(field_.std()), 1e-9))
    return _with_photons(window, np.minimum(expected, 1e5), generator)


def add_halos(window: Window, generator: np.random.Generator) -> Window:
    """Give every spot a faint wide halo."""
    wide = ndimage.gaussian_filter(window.spots, generator.uniform(1.5, 5.0))
    return _with_photons(window, (_log_uniform(generator, 0.03, 0.5) * wide).astype(np.float64), generator)


def is_peak(window: Window, params: TeachingParameters) -> BoolArray:
    """Say of each reflection whether it is strong enough and its 3x3 pixels are mostly good."""
    padded = np.pad(window.good, 1)
    ss, fs = window.pixels
    n_good = sum(padded[ss + i, fs + j].astype(int) for i in range(3) for j in range(3))
    return np.asarray((window.snr >= params.peak_snr) & (n_good >= 7) & window.good[ss, fs])


def label_window(window: Window, params: TeachingParameters) -> UInt8Array:
    """Label a window by its truth.

    Returns
    -------
    (side, side) uint8
        1 where a peak's expected photons reach half of its maximum; 255 on its flanks down to ``FLANK``, where one
        (one pixel wider) is too weak to count or lies on bad pixels, and at bad pixels; 0 elsewhere.

    """
    label = np.zeros(window.image.shape, dtype=np.uint8)
    peak = is_peak(window, params)
    unsure = (window.snr >= params.ignore_snr) & ~peak
    ss, fs = window.pixels
    for chosen, value, level, margin in (
        (unsure, LABEL_IGNORE, 0.5, 1),
        (peak, LABEL_IGNORE, FLANK, 0),
        (peak, LABEL_PEAK, 0.5, 0),
    ):
        for row, column in zip(ss[chosen], fs[chosen], strict=True):
            _stamp(label, window.spots, int(row), int(column), value, level, margin)
    label[~window.good] = LABEL_IGNORE
    return label


def _stamp(
    label: UInt8Array, photons: Float32Array, ss: int, fs: int, value: int, level: float, margin: int
) -> None:
    """Label the pixels around (ss, fs) that reach this level of the maximum next to it, widened by a margin."""
    window = (slice(max(0, ss - STAMP), ss + STAMP + 1), slice(max(0, fs - STAMP), fs + STAMP + 1))
    inside, centre = photons[window], (ss - window[0].start, fs - window[1].start)
    near = inside[max(0, centre[0] - 1) : centre[0] + 2, max(0, centre[1] - 1) : centre[1] + 2]
    regions, _ = ndimage.label(inside >= level * near.max())
    pixels = regions == regions[centre] if regions[centre] else np.zeros(inside.shape, dtype=bool)
    pixels[centre] = True
    if margin:
        pixels = ndimage.binary_dilation(pixels, np.ones((3, 3), dtype=bool), iterations=margin)
    label[window][pixels] = value


def _with_photons(window: Window, expected: Float64Array, generator: np.random.Generator) -> Window:
    """Add photons with Poisson noise; the reflections' background noise grows accordingly."""
    added = generator.poisson(expected) * window.adu_per_photon
    ss, fs = window.pixels
    noise = window.noise + window.area * expected[ss, fs]
    return replace(window, image=(window.image + added).astype(np.float32), noise=noise)


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))
