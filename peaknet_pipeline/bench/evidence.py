"""What a map of evidence is worth: nats gained at true positions, and whether its probabilities are what they say.

A map (a network's logit, a matched filter's significance) is read at true spots and at places near them where chance alone
decides. With the two distributions p₁ and p₀ of what is read, a true spot gains ln(p₁ / p₀) nats; their mean is the
Kullback-Leibler divergence of the two, whatever the map's own scale. Both are counted in bins, on one half of the frames, and
used on the other. Chance places include other spots, as they do for the second look.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from peaknet_pipeline.bench.finder_sets import FinderSet
from peaknet_pipeline.types import BoolArray, Float64Array, IntArray

DISTANCES = (7.0, 20.0)
"""How far from a true spot its chance places lie, px."""

CHANCE_PLACES = 10
"""Chance places for each true spot."""

CHANCE_QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
TRUE_QUANTILES = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Edges of the bins: quantiles of what is read at chance places and at true ones."""

DECADES = np.arange(-5.0, 5.1)
"""Edges of the bins of log₁₀ odds in which predicted and observed shares are compared."""


@dataclass(frozen=True)
class Places:
    """Pixels of true spots and of chance places: frame, panel, ss, fs, and whether a spot is there."""

    frame: IntArray
    pixel: tuple[IntArray, IntArray, IntArray]
    true: BoolArray


def draw_places(data: FinderSet, generator: np.random.Generator) -> Places:
    """Take each usable true spot, and good pixels some way off on the same panel."""
    spots = data.truth[data.truth["usable"]]
    many = spots.loc[spots.index.repeat(CHANCE_PLACES)]
    angle = generator.uniform(0.0, 2.0 * np.pi, len(many))
    distance = generator.uniform(*DISTANCES, len(many))
    moved = many.assign(ss=many["ss"] + distance * np.sin(angle), fs=many["fs"] + distance * np.cos(angle))
    places = pd.concat([spots.assign(true=True), moved.assign(true=False)], ignore_index=True)
    ss, fs, panel = (
        np.rint(places[name].to_numpy(np.float64)).astype(np.int64) for name in ("ss", "fs", "panel")
    )
    _, n_ss, n_fs = data.bad_pixels.shape
    inside = (ss >= 0) & (fs >= 0) & (ss < n_ss) & (fs < n_fs)
    inside[inside] = ~data.bad_pixels[panel[inside], ss[inside], fs[inside]]
    kept = places[inside]
    return Places(
        kept["frame"].to_numpy(np.int64), (panel[inside], ss[inside], fs[inside]), kept["true"].to_numpy(bool)
    )


def nats_per_hit(read: Float64Array, places: Places) -> float:
    """Return the nats gained at true positions per frame that has any, from what a map gives at the places.

    NaN where a set is too small to be halved.
    """
    frames = np.unique(places.frame[places.true])
    half = np.isin(places.frame, frames[::2])
    if len(frames) < 2 or not (places.true[half].any() and places.true[~half].any()):
        return math.nan
    edges = np.unique(
        np.concatenate(
            [
                np.quantile(read[~places.true], CHANCE_QUANTILES),
                np.quantile(read[places.true], TRUE_QUANTILES),
            ]
        )
    )
    binned = np.searchsorted(edges, read, side="right")
    gained = 0.0
    for learned, used in ((half, ~half), (~half, half)):
        share = [_shares(binned[learned & (places.true == true)], len(edges) + 1) for true in (True, False)]
        gained += float(np.log(share[0] / share[1])[binned[used & places.true]].sum())
    return gained / len(frames)


def _shares(binned: IntArray, n_bins: int) -> Float64Array:
    """Return the share of each bin; half a count more in each, so that none is empty (Jeffreys)."""
    counts = np.bincount(binned, minlength=n_bins) + 0.5
    return np.asarray(counts / counts.sum())


def reliability(logits: Float64Array, true: BoolArray) -> list[dict[str, float]]:
    """Compare predicted with observed shares of true peaks, decade by decade of the predicted odds.

    Returns
    -------
    list of dict
        Per decade that holds any: ``odds`` (its lower edge, log₁₀), ``n``, ``true``, ``predicted`` (sum of
        probabilities), ``ratio`` = true / predicted.

    """
    odds = logits / np.log(10.0)
    place = np.clip(np.searchsorted(DECADES, odds, side="right") - 1, 0, len(DECADES) - 1)
    rows = []
    for k, low in enumerate(DECADES):
        inside = (place == k) & (odds >= DECADES[0])
        if inside.any():
            predicted = float((1.0 / (1.0 + np.exp(-logits[inside]))).sum())
            n_true = int(true[inside].sum())
            rows.append(
                {
                    "odds": float(low),
                    "n": int(inside.sum()),
                    "true": n_true,
                    "predicted": round(predicted, 2),
                    "ratio": round(n_true / predicted, 3),
                }
            )
    return rows
