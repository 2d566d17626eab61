"""Which frames are worth a look, and a place in the next training set: ranked, with the reasons.

A frame is a candidate when the classical and the neural finder disagree about it, when only one of them leads
to a lattice, when it is a hit that does not index at all, or when the network is unsure of its own peaks.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from peaknet_pipeline.pairing import match_points
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.schemas import CURATION, CurationTable, IndexTable, PeakTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import BoolArray, Float64Array, IntArray

DISAGREE = "finders disagree"
ONLY_NEURAL = "only the neural peaks index"
ONLY_CLASSICAL = "only the classical peaks index"
NO_LATTICE = "hit without a lattice"
UNSURE = "network unsure"
REASONS = (DISAGREE, ONLY_NEURAL, ONLY_CLASSICAL, NO_LATTICE, UNSURE)
"""Every reason for which a frame can be a candidate."""


@dataclass(frozen=True)
class CurationParams(Parameters):
    """What makes a frame a candidate. A candidate's priority is the sum of the weights of its reasons."""

    min_peaks: int = parameter(10, meaning="least peaks, by either finder, of a frame that may teach", ge=1)
    max_distance: float = parameter(3.0, meaning="largest distance of the same peak", unit="px", gt=0)
    max_agreement: float = parameter(0.6, meaning="agreement below which finders disagree", ge=0, le=1)
    max_confidence: float = parameter(
        0.7, meaning="median score below which the network is unsure", ge=0, le=1
    )
    weight_disagreement: float = parameter(1.0, meaning="weight of 1 − agreement", ge=0)
    weight_one_sided: float = parameter(1.5, meaning="weight of a lattice from one finder only", ge=0)
    weight_unindexed: float = parameter(1.0, meaning="weight of a hit without a lattice", ge=0)
    weight_unsure: float = parameter(0.5, meaning="weight of a low confidence", ge=0)
    max_frames: int = parameter(200, meaning="most candidates kept per run", ge=1)


def rank_candidates(
    classical: PeakTable,
    neural: PeakTable,
    *,
    classical_lattices: IndexTable,
    neural_lattices: IndexTable,
    params: CurationParams | None = None,
) -> CurationTable:
    """Rank a run's frames by how much they could teach.

    Parameters
    ----------
    classical, neural : PeakTable
        The two finders' peaks of one run.
    classical_lattices, neural_lattices : IndexTable
        What each of them led to.
    params : CurationParams, optional

    Returns
    -------
    CurationTable
        Candidates only, the most useful first; empty when the finders agree everywhere and every hit indexes.

    """
    params = params or CurationParams()
    frames = np.union1d(classical["frame"].to_numpy(np.int64), neural["frame"].to_numpy(np.int64))
    seen = _Seen(
        frames,
        _count(classical["frame"].to_numpy(np.int64), frames),
        _count(neural["frame"].to_numpy(np.int64), frames),
        _count(_common_frames(classical, neural, params.max_distance), frames),
        np.isin(frames, classical_lattices["frame"].to_numpy(np.int64)),
        np.isin(frames, neural_lattices["frame"].to_numpy(np.int64)),
        _confidence(neural, frames),
    )
    return _rank(seen, params)


@dataclass(frozen=True)
class _Seen:
    """Per frame: peaks of each finder, peaks in common, lattices of each, the network's median score."""

    frames: IntArray
    n_classical: IntArray
    n_neural: IntArray
    n_common: IntArray
    classical_indexed: BoolArray
    neural_indexed: BoolArray
    confidence: Float64Array

    @property
    def agreement(self) -> Float64Array:
        """Return the Dice coefficient 2 · common / (classical + neural)."""
        return np.asarray(
            2 * self.n_common / np.maximum(self.n_classical + self.n_neural, 1), dtype=np.float64
        )

    def is_hit(self, min_peaks: int) -> BoolArray:
        """Return which frames are hits by either finder."""
        return np.asarray(np.maximum(self.n_classical, self.n_neural) >= min_peaks)


def pick_candidates(candidates: CurationTable, reasons: Collection[str]) -> dict[int, str]:
    """Return frame → reasons, best first, of the candidates that have one of the wanted reasons."""
    wanted = set(reasons)
    picked = candidates.sort_values("rank", kind="stable")[["frame", "reason"]].itertuples(index=False)
    return {int(frame): str(reason) for frame, reason in picked if wanted & set(str(reason).split("; "))}


def _rank(seen: _Seen, params: CurationParams) -> CurationTable:
    causes = _causes(seen, params)
    priority = np.sum([np.where(applies, weight, 0.0) for _, applies, weight in causes], axis=0)
    reasons = _reason_texts(seen, causes)
    order = np.lexsort((seen.frames, -priority))
    order = order[priority[order] > 0][: params.max_frames]
    return make_table(
        CURATION,
        {
            "frame": seen.frames[order],
            "rank": np.arange(1, len(order) + 1),
            "priority": priority[order],
            "reason": reasons[order],
            "n_classical": seen.n_classical[order],
            "n_neural": seen.n_neural[order],
            "n_common": seen.n_common[order],
            "agreement": seen.agreement[order],
            "classical_indexed": seen.classical_indexed[order],
            "neural_indexed": seen.neural_indexed[order],
            "confidence": seen.confidence[order],
        },
    )


def _causes(seen: _Seen, params: CurationParams) -> list[tuple[str, BoolArray, npt.ArrayLike]]:
    hit, indexed = seen.is_hit(params.min_peaks), seen.classical_indexed | seen.neural_indexed
    sure = np.nan_to_num(seen.confidence, nan=1.0) >= params.max_confidence
    disagreement = params.weight_disagreement * (1 - seen.agreement)
    return [
        (DISAGREE, hit & (seen.agreement < params.max_agreement), disagreement),
        (ONLY_NEURAL, seen.neural_indexed & ~seen.classical_indexed, params.weight_one_sided),
        (ONLY_CLASSICAL, seen.classical_indexed & ~seen.neural_indexed, params.weight_one_sided),
        (NO_LATTICE, hit & ~indexed, params.weight_unindexed),
        (UNSURE, hit & ~sure, params.weight_unsure),
    ]


def _reason_texts(seen: _Seen, causes: list[tuple[str, BoolArray, npt.ArrayLike]]) -> npt.NDArray[np.object_]:
    texts = np.empty(len(seen.frames), dtype=object)
    for i in range(len(seen.frames)):
        texts[i] = "; ".join(name for name, applies, _ in causes if applies[i])
    return texts


def _common_frames(classical: PeakTable, neural: PeakTable, max_distance: float) -> IntArray:
    """Return the frame of every peak that both finders found."""
    pairs = match_points(
        _key(classical),
        classical["fs"],
        classical["ss"],
        _key(neural),
        neural["fs"],
        neural["ss"],
        max_distance=max_distance,
    )
    return np.asarray(classical["frame"].to_numpy(np.int64)[pairs.a], dtype=np.int64)


def _key(peaks: pd.DataFrame) -> IntArray:
    return np.asarray(peaks["frame"], dtype=np.int64) * 4096 + np.asarray(peaks["panel"], dtype=np.int64)


def _count(values: IntArray, frames: IntArray) -> IntArray:
    position = np.searchsorted(frames, values)
    return np.bincount(position, minlength=len(frames)).astype(np.int64)


def _confidence(neural: PeakTable, frames: IntArray) -> Float64Array:
    median = neural.groupby("frame")["score"].median()
    return np.asarray(median.reindex(frames).to_numpy(np.float64), dtype=np.float64)
