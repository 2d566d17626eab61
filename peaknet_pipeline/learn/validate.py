"""Peak-level validation: which true peaks are found, how many false ones, and the best threshold."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.learn.blocks import near_pairs
from peaknet_pipeline.learn.crops import ValidationPanel
from peaknet_pipeline.learn.model import PeakNet
from peaknet_pipeline.learn.normalise import NormaliseParameters, compressed, normalise
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import LABEL_IGNORE, BoolArray, Float32Array, IntArray

SNR_BANDS = ((0.0, 3.0), (3.0, 6.0), (6.0, 12.0), (12.0, np.inf))
"""Bands of expected signal to noise in which recall is told."""


PanelDecoder = Callable[[Float32Array, ValidationPanel, float], Float32Array]
"""(probability map, its panel, threshold) to the centres (n, 2) of the peaks found, ss and fs."""


@dataclass(frozen=True)
class ValidationParameters(Parameters):
    """How peaks are decoded and matched in validation."""

    match_distance: float = parameter(
        3.0, meaning="largest distance of a found from a true peak", unit="px", gt=0
    )
    min_pixels: int = parameter(1, meaning="pixels that a found peak needs", unit="px", ge=1)
    f1_slack: float = parameter(0.005, meaning="F1 given up at most for a lower threshold", ge=0, le=1)
    least_precision: float = parameter(
        0.0,
        meaning="precision that suffices: with it the lowest threshold that reaches it is chosen, whatever its F1",
        ge=0,
        le=1,
    )
    min_neighbour: float = parameter(
        0.0,
        meaning="least height of two neighbouring pixels near which a local network is asked; 0: everywhere",
        unit="sigma",
        ge=0,
    )
    thresholds: tuple[float, ...] = parameter(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), meaning="decision thresholds that are compared"
    )


@dataclass(frozen=True)
class PeakScores:
    """Peak-level scores at one threshold, with their denominators."""

    threshold: float
    n_true: int
    n_found: int
    n_matched: int
    centre_rms: float | None
    """Root mean square distance of matched peaks from the truth, px; None if nothing matched."""
    band_recall: dict[str, float] = field(default_factory=dict)
    """Recall per band of expected signal to noise, where the truth tells it."""

    @property
    def precision(self) -> float:
        """Share of the found peaks that are true; 1 if none was found."""
        return self.n_matched / self.n_found if self.n_found else 1.0

    @property
    def recall(self) -> float:
        """Share of the true peaks that were found; 1 if there are none."""
        return self.n_matched / self.n_true if self.n_true else 1.0

    @property
    def f1(self) -> float:
        """2 matched / (found + true); 1 if there are neither."""
        total = self.n_found + self.n_true
        return 2 * self.n_matched / total if total else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return {**asdict(self), "precision": self.precision, "recall": self.recall, "f1": self.f1}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PeakScores":
        """Read back what :meth:`to_dict` gave."""
        return cls(**{item.name: values[item.name] for item in fields(cls)})


def decode_panel(probability: Float32Array, *, threshold: float, min_pixels: int = 1) -> Float32Array:
    """Turn one probability map into peak centres.

    Parameters
    ----------
    probability : (ss, fs) float32
        0 at bad pixels.
    threshold : float
        Pixels at or above it belong to peaks; 8-connected pixels are one peak.
    min_pixels : int
        Smaller peaks are dropped.

    Returns
    -------
    (n, 2) float32
        Probability-weighted centres (ss, fs).

    """
    components, n = ndimage.label(probability >= threshold, structure=np.ones((3, 3)))
    if n == 0:
        return np.zeros((0, 2), dtype=np.float32)
    numbers = np.arange(1, n + 1)
    keep = ndimage.sum_labels(np.ones_like(probability), components, numbers) >= min_pixels
    centres = ndimage.center_of_mass(probability, components, numbers[keep])
    return np.asarray(centres, dtype=np.float32).reshape(-1, 2)


def match_centres(found: Float32Array, true: Float32Array, distance: float) -> tuple[IntArray, IntArray]:
    """Pair found and true centres (n, 2) one to one within ``distance``: the most pairs, then the nearest."""
    if len(found) == 0 or len(true) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    apart = cdist(found, true)
    cost = np.where(apart <= distance, apart, 1e3 * distance * max(apart.shape))
    rows, columns = linear_sum_assignment(cost)
    near = apart[rows, columns] <= distance
    return rows[near], columns[near]


def predict_panels(
    model: PeakNet,
    panels: Iterable[ValidationPanel],
    normalisation: NormaliseParameters,
    *,
    min_neighbour: float = 0.0,
) -> list[Float32Array]:
    """Return each panel's probability map (ss, fs); 0 at bad pixels, and where a local network is not asked."""
    config, level = model.config, compressed(min_neighbour, normalisation)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    maps = []
    with torch.inference_mode():
        for panel in panels:
            image = torch.from_numpy(np.asarray(panel.image, dtype=np.float32))[None].to(device)
            good = torch.from_numpy(np.asarray(panel.good, dtype=np.bool_))[None].to(device)
            significance = normalise(image, good, normalisation)
            logits = model(significance, good[:, None])
            if config.family == "local" and min_neighbour > 0:
                good = good & near_pairs(significance[:, 0], level, config.stem)
            maps.append((torch.sigmoid(logits[0, 0].float()) * good[0]).cpu().numpy())
    model.train(training)
    return maps


def score_panels(
    maps: Sequence[Float32Array],
    panels: Sequence[ValidationPanel],
    *,
    threshold: float,
    params: ValidationParameters | None = None,
    decode: PanelDecoder | None = None,
) -> PeakScores:
    """Score probability maps against the panels' true peaks at one threshold; decoded by :func:`decode_panel` by default."""
    params = params or ValidationParameters()
    n_found, distances, snr, hit = 0, [], [], []
    for probability, panel in zip(maps, panels, strict=True):
        if decode is None:
            found = decode_panel(probability, threshold=threshold, min_pixels=params.min_pixels)
        else:
            found = decode(probability, panel, threshold)
        rows, columns = match_centres(found, panel.centres, params.match_distance)
        n_found += len(found) - _n_ignored(found, rows, panel)
        distances.append(np.hypot(*(found[rows] - panel.centres[columns]).T))
        snr.append(panel.snr)
        hit.append(np.isin(np.arange(len(panel.centres)), columns))
    together = np.concatenate(distances) if distances else np.zeros(0)
    all_hit = np.concatenate(hit) if hit else np.zeros(0, dtype=bool)
    return PeakScores(
        threshold=threshold,
        n_true=len(all_hit),
        n_found=n_found,
        n_matched=len(together),
        centre_rms=float(np.sqrt(np.mean(together**2))) if len(together) else None,
        band_recall=_recall_by_band(np.concatenate(snr) if snr else np.zeros(0, dtype=np.float32), all_hit),
    )


def choose_threshold(
    maps: Sequence[Float32Array],
    panels: Sequence[ValidationPanel],
    params: ValidationParameters | None = None,
    decode: PanelDecoder | None = None,
) -> PeakScores:
    """Return the scores at the lowest threshold whose F1 is within ``f1_slack`` of the best.

    Labels know the clear peaks only: what lies between clear and background is "ignore" and counts neither way. Where
    thresholds are equally good on the clear peaks, the lowest keeps the most of the others. With ``least_precision``
    the lowest that reaches it is taken instead: an indexer loses more by a missed peak than by a false one.

    Raises
    ------
    LabelError
        No panels to choose on.

    """
    if not panels:
        raise LabelError("no validation panels to choose a threshold on")
    params = params or ValidationParameters()
    scores = [
        score_panels(maps, panels, threshold=t, params=params, decode=decode) for t in params.thresholds
    ]
    enough = [s for s in scores if s.precision >= params.least_precision > 0]
    if enough:
        return min(enough, key=lambda s: s.threshold)
    best = max(score.f1 for score in scores)
    return min((s for s in scores if s.f1 >= best - params.f1_slack), key=lambda s: s.threshold)


def validate_model(
    model: PeakNet,
    panels: Sequence[ValidationPanel],
    normalisation: NormaliseParameters,
    params: ValidationParameters | None = None,
    decode: PanelDecoder | None = None,
) -> PeakScores:
    """Predict all panels and score them at their best threshold."""
    params = params or ValidationParameters()
    maps = predict_panels(model, panels, normalisation, min_neighbour=params.min_neighbour)
    return choose_threshold(maps, panels, params, decode)


def _n_ignored(found: Float32Array, matched: IntArray, panel: ValidationPanel) -> int:
    """Count unmatched peaks whose centre pixel is "ignore"."""
    unmatched = np.delete(found, matched, axis=0)
    pixels = np.rint(unmatched).astype(int)
    return int((panel.label[pixels[:, 0], pixels[:, 1]] == LABEL_IGNORE).sum())


def _recall_by_band(snr: Float32Array, hit: BoolArray) -> dict[str, float]:
    bands = {}
    for low, high in SNR_BANDS:
        inside = (snr >= low) & (snr < high)
        if inside.any():
            bands[f"{low:g}-{high:g}"] = float(hit[inside].mean())
    return bands
