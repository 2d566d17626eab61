"""Recall of a finder against its false peaks per frame, from its peaks at many settings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from peaknet_pipeline.bench.finder_sets import FinderSet
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.geometry.usable import usable_values
from peaknet_pipeline.infer.decode import decode_frames
from peaknet_pipeline.infer.params import DecodeParams
from peaknet_pipeline.metrics import TruthParams, score_peaks
from peaknet_pipeline.peaks.local_background import background_maps
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.peaks.weak_spots import WeakSpotFinder, WeakSpotParams
from peaknet_pipeline.types import Float32Array, Float64Array

PHOTON_BANDS = ((10.0, 20.0), (20.0, 40.0), (40.0, 80.0))
SIGMA_BANDS = ((2.0, 3.0), (3.0, 4.0), (4.0, 6.0), (6.0, 12.0))
BANDS = {f"{a:g}-{b:g} photons": (a, b) for a, b in PHOTON_BANDS} | {
    f"{a:g}-{b:g} sigma": (a, b) for a, b in SIGMA_BANDS
}
"""Bands of true spots by their photons and by their expected significance."""

CENTRED = (6.0, 12.0)
"""Significances of the spots whose centres are judged."""

FALSE_PEAKS = (0.3, 1.0, 5.0, 25.0)
"""False peaks per frame at which recall is told."""

COUNTED = TruthParams(max_distance=2.0, min_snr=1.0, ignore_snr=1.0)
"""A peak within 2 px of a true spot of 1σ and more, or of one on bad or saturated pixels, is no false one."""

MIN_SNRS = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 12.0)
MIN_PIXELS = (1, 2, 3)
SIGNIFICANCES = tuple(np.arange(3.0, 8.0, 0.25)) + tuple(np.arange(8.0, 16.0, 1.0))
LOGITS = tuple(np.arange(-9.0, 6.1, 0.5))

NEIGHBOUR_SIGMA = 1.5
"""Least height of the second highest pixel of a matched filter's spot, where lone pixels are left out."""


@dataclass(frozen=True)
class Point:
    """What a finder found at one setting: false peaks, found spots per band, squared distances and number of centred spots."""

    false: int
    found: Mapping[str, int]
    squares: float
    centred: int


def peakfinder8_curves(data: FinderSet) -> list[list[Point]]:
    """Return one curve over ``min_snr`` for each least number of pixels; the floor of the raw value lies below all."""
    radius, usable = pixel_radius(data.geometry), usable_values(data.geometry)
    floor = max(data.offset_adu, 1e-3 * float(data.adu_per_photon[0]))
    tables, plan = [], None
    for min_snr in MIN_SNRS:
        params = [Peakfinder8Params(threshold=floor, min_snr=min_snr, min_pix=n) for n in MIN_PIXELS]
        finder = Peakfinder8(radius, data.bad_pixels, params[0], usable=usable, plan=plan)
        plan = finder.plan
        tables.append(finder.find_variants(data.frames, params, n_threads=1))
    return [[count(data, at[k]) for at in tables] for k in range(len(MIN_PIXELS))]


def matched_filter_curves(data: FinderSet, spots: pd.DataFrame) -> list[list[Point]]:
    """Return the curve over significance of all weak spots, and of those that are more than a lone pixel."""
    kept = (spots, spots[spots["neighbour"] >= NEIGHBOUR_SIGMA])
    return [[count(data, some[some["significance"] >= z]) for z in SIGNIFICANCES] for some in kept]


def network_curves(data: FinderSet, logits: Float32Array, decode: DecodeParams) -> list[list[Point]]:
    """Return the curve over the threshold on the logit, decoded as inference does."""

    def peaks() -> Iterator[pd.DataFrame]:
        for cut in LOGITS:
            yield decode_frames(
                data.frames, logits, data.bad_pixels, threshold=float(expit(cut)), params=decode
            )

    return [[count(data, found) for found in peaks()]]


def weak_spots(data: FinderSet, params: WeakSpotParams) -> pd.DataFrame:
    """Return the matched filter's spots of all frames: ``frame, panel, ss, fs, significance``, and ``neighbour``.

    ``neighbour`` is the second highest of the 3 × 3 pixels, in σ of the local background.
    """
    finder = WeakSpotFinder(data.bad_pixels, data.adu_per_photon, params, usable=usable_values(data.geometry))
    tables = []
    for number, frame in enumerate(data.frames):
        spots = finder.find(frame)
        columns = {name: getattr(spots, name) for name in ("panel", "ss", "fs", "significance")}
        heights = _heights(frame.astype(np.float32), finder)
        at = (spots.panel, np.rint(spots.ss).astype(int), np.rint(spots.fs).astype(int))
        second = np.sort(_surroundings(heights, at), axis=0)[-2]
        tables.append(pd.DataFrame(columns).assign(frame=number, neighbour=second))
    return pd.concat(tables, ignore_index=True)


def _heights(frame: Float32Array, finder: WeakSpotFinder) -> Float32Array:
    """Return a frame's pixels above their block's background, in σ; bad ones are −inf."""
    mean, variance = background_maps(frame, finder.good, finder.adu_per_photon)
    heights = np.where(finder.good, (frame - mean) / np.sqrt(variance), -np.inf).astype(np.float32)
    return np.nan_to_num(heights, nan=-np.inf, neginf=-np.inf, posinf=-np.inf)


def _surroundings(values: Float32Array, at: tuple[np.ndarray, ...]) -> Float32Array:
    """Return the 3 × 3 values around pixels, (9, n); −inf beyond the panel's edge."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    panel, ss, fs = at
    return np.stack([padded[panel, ss + i, fs + j] for i in range(3) for j in range(3)])


def highest_near(values: Float32Array, at: tuple[np.ndarray, ...]) -> Float32Array:
    """Return the highest of the 3 × 3 values (n_panels, ss, fs) around pixels, (n,)."""
    return np.asarray(_surroundings(values, at).max(axis=0))


def count(data: FinderSet, peaks: pd.DataFrame) -> Point:
    """Compare peaks with the truth."""
    scores = score_peaks(peaks, data.truth, COUNTED)
    found, usable = np.isfinite(scores.spot_distance_px), data.truth["usable"].to_numpy(bool)
    inside = {name: found & usable & in_band(data.truth, name) for name in BANDS}
    z = data.truth["snr"].to_numpy()
    centred = found & usable & (z >= CENTRED[0]) & (z < CENTRED[1])
    return Point(
        int((~scores.true_peaks).sum()),
        {name: int(rows.sum()) for name, rows in inside.items()},
        float((scores.spot_distance_px[centred] ** 2).sum()),
        int(centred.sum()),
    )


def in_band(truth: pd.DataFrame, name: str) -> np.ndarray:
    """Say of each true spot whether it lies in a band."""
    low, high = BANDS[name]
    values = truth["photons" if name.endswith("photons") else "snr"].to_numpy()
    return np.asarray((values >= low) & (values < high))


def at_false_peaks(curves: Sequence[Sequence[Point]], n_frames: int, wanted: float) -> dict[str, float]:
    """Return what the best of a finder's curves finds at a number of false peaks per frame.

    Returns
    -------
    dict
        Found spots per band, between two settings in proportion to their false peaks; ``squares`` and ``centred``.
        The best curve is the one that finds most spots over all bands.

    """
    return max(
        (_read_off(curve, n_frames, wanted) for curve in curves), key=lambda f: sum(f[n] for n in BANDS)
    )


def _read_off(curve: Sequence[Point], n_frames: int, wanted: float) -> dict[str, float]:
    """Read one curve at ``wanted`` false peaks per frame; without a setting so strict nothing is found."""
    names = (*BANDS, "squares", "centred")
    ordered = sorted(curve, key=lambda p: (p.false, sum(p.found.values())))
    below = [p for p in ordered if p.false <= wanted * n_frames]
    if not below:
        return dict.fromkeys(names, 0.0)
    at = max(below, key=lambda p: sum(p.found.values()))
    above = [
        p for p in ordered if p.false > wanted * n_frames and sum(p.found.values()) > sum(at.found.values())
    ]
    values = _values(at)
    if not above:
        return dict(zip(names, values, strict=True))
    share = (wanted * n_frames - at.false) / (above[0].false - at.false)
    return dict(zip(names, values + share * (_values(above[0]) - values), strict=True))


def _values(point: Point) -> Float64Array:
    return np.array([*point.found.values(), point.squares, point.centred], dtype=np.float64)
