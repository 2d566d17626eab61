"""peakfinder8, a plain matched filter and the network in one run: recall against false peaks, centres, evidence, reliability.

Every finder is read at the same numbers of false peaks per frame, experiment by experiment: what an ideal threshold would
give it. peakfinder8 takes the best of its least numbers of pixels, the matched filter the better of lone pixels kept and left
out; both choices are made on the very frames, so they favour the two.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import maximum_filter
from scipy.optimize import brentq
from scipy.special import expit

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.bench.evidence import DECADES, draw_places, nats_per_hit, reliability
from peaknet_pipeline.bench.finder_curves import (
    BANDS,
    FALSE_PEAKS,
    at_false_peaks,
    highest_near,
    in_band,
    matched_filter_curves,
    network_curves,
    peakfinder8_curves,
    weak_spots,
)
from peaknet_pipeline.bench.finder_sets import FILES, FinderSet, file_set, simulated_sets
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.metrics import TruthParams, score_peaks
from peaknet_pipeline.pairing import match_points
from peaknet_pipeline.peaks.weak_spots import WeakSpotParams
from peaknet_pipeline.plots.finders import plot_finder_curves
from peaknet_pipeline.steps.find_with_network import load_model
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.steps.truth_windows import TeachingParameters
from peaknet_pipeline.tables import write_json
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array

SEEDS = {"test": 922_000_000, "validation": 907_000_000}
"""First simulator seeds of the experiments that are reported, and of those on which choices are made."""

FINDERS = ("peakfinder8", "matched_filter", "peaknet")

LEAST_Z, NEAR_PX = 1.0, 1.5
"""Least significance of the matched filter's evidence, and how near a weak spot lies to the place it speaks for."""


@dataclass(frozen=True)
class Candidates:
    """Maxima of the logit that are surely true or false peaks: logits (n,), which are true, and their set's classes."""

    logits: Float64Array
    true: BoolArray
    classes: tuple[str, ...]


def run(
    *,
    experiments: int = 28,
    frames: int = 6,
    seeds: str = "test",
    first: int = 0,
    spot_sigma: float = WeakSpotParams().spot_sigma,
    model: str | None = None,
    realdata: str | None = None,
    out: str | None = None,
) -> dict[str, Any]:
    """Compare the three finders.

    Parameters
    ----------
    experiments, frames : int
        Simulated experiments, and frames of each; 28 meet each detector four times.
    seeds : str
        ``test``, or ``validation`` for choices.
    first : int
        Number of the first experiment, for fresh ones.
    spot_sigma : float
        The matched filter's width, px.
    model : str, optional
        A checkpoint's folder instead of the shipped one.
    realdata : str, optional
        Folder with ``crystfel_simulated``, whose files are compared, too.
    out : str, optional
        Folder for ``finders.json`` and ``finders.png``.

    Returns
    -------
    dict
        ``classes``: per class of experiments, finder and number of false peaks, recall per band as (found, true), and the
        rms of centres in px. ``nats_per_hit`` per class. ``reliability`` per class of width. ``sets``: what they hold.

    """
    if seeds not in SEEDS:
        raise ParameterError("no such seeds", expected=" or ".join(SEEDS), found=seeds)
    loaded = load_model(Path(model) if model else None)
    rows, candidates = [], []
    for data in _sets(SEEDS[seeds] + first, experiments, frames, realdata):
        row, found = compare(data, loaded, spot_sigma)
        rows.append(row)
        candidates.append(found)
    figures: dict[str, Any] = {
        "model": loaded.card.name,
        "seeds": seeds,
        "classes": by_class(rows),
        "nats_per_hit": nats_by_class(rows),
        "reliability": reliability_by_class(candidates),
        "sets": [{k: row[k] for k in ("name", "classes", "frames", "width_px", "level")} for row in rows],
    }
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "finders.json", figures)
        with replace_atomically(folder / "finders.png") as temporary:
            temporary.write_bytes(plot_finder_curves(figures["classes"], FALSE_PEAKS, tuple(BANDS)))
    return figures


def _sets(first_seed: int, experiments: int, frames: int, realdata: str | None) -> Iterator[FinderSet]:
    yield from simulated_sets(first_seed, experiments, frames)
    if realdata is not None:
        for name in FILES:
            yield file_set(Path(realdata), name)


def compare(data: FinderSet, model: LoadedModel, spot_sigma: float) -> tuple[dict[str, Any], Candidates]:
    """Return what each finder finds in one set, and the network's candidates."""
    decode, engine = InferenceParams(device="cpu").parts()
    network = Network.from_checkpoint(model)
    logits = Engine(
        network, bad_pixels=data.bad_pixels, decode=decode, params=engine, geometry=data.geometry
    ).logits(data.frames)
    spots = weak_spots(data, WeakSpotParams(spot_sigma=spot_sigma, min_significance=LEAST_Z))
    curves = {
        "peakfinder8": peakfinder8_curves(data),
        "matched_filter": matched_filter_curves(data, spots),
        "peaknet": network_curves(data, logits, decode),
    }
    usable, n = data.truth["usable"].to_numpy(bool), len(data.frames)
    row = {
        "name": data.name,
        "classes": data.classes,
        "frames": n,
        "width_px": round(data.width_px, 3),
        "level": round(data.level, 4),
        "true": {name: int((usable & in_band(data.truth, name)).sum()) for name in BANDS},
        "found": {
            finder: {rate: at_false_peaks(curve, n, rate) for rate in FALSE_PEAKS}
            for finder, curve in curves.items()
        },
        "nats": _nats(data, logits, spots),
        "hits": int(data.truth.loc[usable, "frame"].nunique()),
    }
    return row, Candidates(*_candidates(data, logits), data.classes)


def _nats(data: FinderSet, logits: Float32Array, spots: pd.DataFrame) -> dict[str, float]:
    """Return the nats per hit of the network's logits and of the matched filter."""
    if not data.truth["usable"].any():
        return dict.fromkeys(FINDERS[1:], math.nan)
    places = draw_places(data, np.random.default_rng(len(data.truth)))
    logit = np.empty(len(places.frame))
    for number, frame in enumerate(logits):
        here = places.frame == number
        panel, ss, fs = (axis[here] for axis in places.pixel)
        logit[here] = highest_near(frame, (panel, ss, fs))
    panel, ss, fs = places.pixel
    n_panels = data.bad_pixels.shape[0]
    filtered = np.zeros(len(places.frame))
    for offset in range(2):  # a spot pairs with one place only: chance and true places are served apart
        chosen = np.flatnonzero(places.true == bool(offset))
        pairs = match_points(
            places.frame[chosen] * n_panels + panel[chosen], fs[chosen], ss[chosen],
            spots["frame"] * n_panels + spots["panel"], spots["fs"], spots["ss"], max_distance=NEAR_PX,
        )  # fmt: skip
        filtered[chosen[pairs.a]] = spots["significance"].to_numpy()[pairs.b]
    return {
        "matched_filter": nats_per_hit(filtered, places),
        "peaknet": nats_per_hit(logit, places),
    }


def _candidates(data: FinderSet, logits: Float32Array) -> tuple[Float64Array, BoolArray]:
    """Return the logits of their maxima and which are true, by the rules of the labels that teach: unsure ones left out."""
    least = float(DECADES[0] * np.log(10.0))
    top = (logits == maximum_filter(logits, size=(1, 1, 3, 3))) & (logits >= least)
    frame, panel, ss, fs = np.nonzero(top & ~data.bad_pixels)
    peaks = pd.DataFrame({"frame": frame, "panel": panel, "ss": ss, "fs": fs})
    rules, truth = TeachingParameters(), data.truth.assign(snr=data.truth["taught"])
    strong = truth[truth["usable"] & (truth["snr"] >= rules.peak_snr)]
    near = TruthParams(max_distance=NEAR_PX, min_snr=rules.peak_snr, ignore_snr=rules.ignore_snr)
    true = score_peaks(peaks, strong, near).true_peaks
    sure = true | ~score_peaks(peaks, truth, near).true_peaks
    return logits[frame, panel, ss, fs][sure].astype(np.float64), true[sure]


def by_class(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the sets of each class."""
    return {
        name: {
            "sets": len(inside),
            "frames": sum(row["frames"] for row in inside),
            **{finder: {f"{r:g}": _add_up(inside, finder, r) for r in FALSE_PEAKS} for finder in FINDERS},
        }
        for name, inside in _grouped(rows)
    }


def _add_up(rows: list[dict[str, Any]], finder: str, rate: float) -> dict[str, Any]:
    at = [row["found"][finder][rate] for row in rows]
    recall = {
        band: (round(sum(f[band] for f in at), 1), sum(row["true"][band] for row in rows)) for band in BANDS
    }
    centred = sum(f["centred"] for f in at)
    rms = float(np.sqrt(sum(f["squares"] for f in at) / centred)) if centred > 0 else float("nan")
    return {**recall, "centre_rms_px": round(rms, 3)}


def nats_by_class(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return each class's nats per hit of both maps, and their ratio."""
    told = {}
    for name, inside in _grouped(rows):
        known = [row for row in inside if np.isfinite(row["nats"]["peaknet"])]
        hits = max(sum(row["hits"] for row in known), 1)
        filtered, network = (sum(row["nats"][f] * row["hits"] for row in known) / hits for f in FINDERS[1:])
        ratio = network / filtered if filtered > 0 else float("nan")
        told[name] = {
            "matched_filter": round(filtered, 2),
            "peaknet": round(network, 2),
            "ratio": round(ratio, 3),
        }
    return told


def reliability_by_class(candidates: list[Candidates]) -> dict[str, Any]:
    """Compare predicted with observed shares, for all sets and per class of width, as they are and with one prior for all.

    The logits of training know how often training showed spots. ``prior`` is the shift that makes the predicted number of
    true peaks the observed one over all sets.
    """
    told: dict[str, Any] = {}
    shift = _prior_shift(_joined(candidates))
    for name in dict.fromkeys(
        c for one in candidates for c in one.classes if c == "all" or c.startswith("width")
    ):
        logits, true = _joined([one for one in candidates if name in one.classes])
        told[name] = {"as_told": reliability(logits, true), "with_prior": reliability(logits + shift, true)}
    return {"prior": round(shift, 3), "classes": told}


def _joined(candidates: list[Candidates]) -> tuple[Float64Array, BoolArray]:
    return (
        np.concatenate([c.logits for c in candidates]) if candidates else np.empty(0),
        np.concatenate([c.true for c in candidates]) if candidates else np.empty(0, dtype=bool),
    )


def _prior_shift(both: tuple[Float64Array, BoolArray]) -> float:
    """Return the shift of all logits at which the sum of probabilities is the number of true ones."""
    logits, true = both
    if not 0 < true.sum() < len(true):
        return 0.0
    return float(brentq(lambda shift: expit(logits + shift).sum() - true.sum(), -40.0, 40.0))


def _grouped(rows: list[dict[str, Any]]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    names = dict.fromkeys(name for row in rows for name in row["classes"])
    files = {row["name"]: [row] for row in rows if row["classes"][-1] == "file"}
    simulated = [row for row in rows if row["classes"][-1] != "file"]
    groups = {name: [row for row in simulated if name in row["classes"]] for name in names}
    return [(name, inside) for name, inside in {**groups, **files}.items() if inside]
