"""Rates with their denominators, and peaks against simulated truth.

hit rate = hits / frames processed; indexing rate = indexed hits / hits;
indexing yield = indexed / frames processed.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.hits import HitParams, hit_frames
from peaknet_pipeline.pairing import match_points
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.schemas import SCORES, IndexTable, PeakTable, Scores
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import BoolArray, Float64Array, IntArray

CONFIDENCE_Z = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Rate:
    """A share with both of its counts."""

    part: int
    whole: int

    @property
    def value(self) -> float:
        """Return part / whole; NaN when there is nothing to divide by."""
        return self.part / self.whole if self.whole else math.nan

    def interval(self, z: float = CONFIDENCE_Z) -> tuple[float, float]:
        """Return the Wilson score interval (Wilson 1927); (0, 1) when nothing was counted."""
        return wilson_interval(self.part, self.whole, z=z)


def wilson_interval(part: int, whole: int, *, z: float = CONFIDENCE_Z) -> tuple[float, float]:
    """Return the Wilson score interval of a share.

    Parameters
    ----------
    part, whole : int
    z : float
        Standard normal quantile; the default gives 95 %.

    """
    if not whole:
        return 0.0, 1.0
    share = part / whole
    scale = 1 + z * z / whole
    middle = (share + z * z / (2 * whole)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class RunRates:
    """A run's three rates, each with its own denominator."""

    frames: int
    hits: int
    indexed: int
    indexed_hits: int

    @property
    def hit_rate(self) -> Rate:
        """Return hits / frames processed."""
        return Rate(self.hits, self.frames)

    @property
    def indexing_rate(self) -> Rate:
        """Return indexed hits / hits."""
        return Rate(self.indexed_hits, self.hits)

    @property
    def indexing_yield(self) -> Rate:
        """Return indexed frames / frames processed."""
        return Rate(self.indexed, self.frames)


def count_rates(peaks: PeakTable, lattices: IndexTable, *, n_frames: int, min_peaks: int) -> RunRates:
    """Count hits and indexed frames of a run.

    Parameters
    ----------
    peaks, lattices : PeakTable, IndexTable
    n_frames : int
        Frames processed, blank ones included.
    min_peaks : int
        Least peaks of a hit.

    Raises
    ------
    TableError
        A table names a frame that the run doesn't have.

    """
    hits = hit_frames(peaks, min_peaks=min_peaks)
    indexed = np.unique(lattices["frame"].to_numpy(np.int64))
    for table, frames in (("peaks", peaks["frame"].to_numpy(np.int64)), ("lattices", indexed)):
        if len(frames) and (frames.min() < 0 or frames.max() >= n_frames):
            raise TableError(
                "a frame outside the run",
                where=table,
                expected=f"0 … {n_frames - 1}",
                found=int(frames.max()),
            )
    return RunRates(n_frames, len(hits), len(indexed), int(np.isin(hits, indexed).sum()))


@dataclass(frozen=True)
class TruthParams(Parameters):
    """How peaks are compared with simulated truth."""

    max_distance: float = parameter(
        2.0, meaning="largest distance of a peak from its true spot", unit="px", gt=0
    )
    min_snr: float = parameter(5.0, meaning="least expected SNR of a spot that counts in recall", gt=0)
    ignore_snr: float = parameter(1.0, meaning="least expected SNR of a spot that excuses a peak", ge=0)
    n_shells: int = parameter(8, meaning="resolution shells of equal reciprocal volume", ge=1)


@dataclass(frozen=True)
class MetricParams(TruthParams, HitParams):
    """How runs are scored."""


BEYOND = 0.05
"""Share of the peaks that lie beyond the resolution that is told of a run."""


def reached_resolution(peaks: PeakTable, lattices: IndexTable) -> float:
    """Return the d, Å, beyond which 5 % of the peaks in indexed frames lie; NaN without any."""
    inv_d = peaks.loc[peaks["frame"].isin(lattices["frame"]), "inv_d"].to_numpy(np.float64)
    known = inv_d[np.isfinite(inv_d) & (inv_d > 0)]
    return float(1.0 / np.quantile(known, 1.0 - BEYOND)) if known.size else math.nan


SNR_BANDS = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 25.0, 50.0, math.inf)
"""Edges of the bands of expected SNR."""


@dataclass(frozen=True)
class TruthScores:
    """Peaks against truth.

    Attributes
    ----------
    precision : Rate
        Peaks on a true spot of at least ``ignore_snr`` (weak, bad and saturated ones too) / peaks.
    recall : Rate
        Usable spots of at least ``min_snr`` that were found / those spots.
    centre_error_px : float
        Median distance of the found spots' peaks; NaN when none was found.
    by_snr, by_shell : DataFrame
        Per band ``low, high, n_true, n_found, recall, recall_low, recall_high, centre_error_px``; bands of
        expected SNR, and shells of 1/d in Å⁻¹ over the spots that count in recall.
    true_peaks : bool, (n_peaks,)
        Which peaks lie on a true spot, as ``precision`` counts them.
    spot_distance_px : float, (n_spots,)
        How far off each spot's peak lies; NaN where none was found.

    """

    precision: Rate
    recall: Rate
    centre_error_px: float
    by_snr: pd.DataFrame
    by_shell: pd.DataFrame
    true_peaks: BoolArray
    spot_distance_px: Float64Array


def score_peaks(peaks: pd.DataFrame, truth: pd.DataFrame, params: TruthParams | None = None) -> TruthScores:
    """Compare peaks with the simulated truth of the same frames, one to one.

    Spots that count are paired first, so that a weak neighbour doesn't take their peaks; the remaining peaks
    are then paired with the remaining spots, and only those left over are false.

    Parameters
    ----------
    peaks : DataFrame with ``frame, panel, fs, ss``
        A PeakTable, or any other table of positions.
    truth : DataFrame
        A TRUTH_REFLECTIONS table.
    params : TruthParams, optional

    """
    params = params or TruthParams()
    usable, snr = truth["usable"].to_numpy(bool), truth["snr"].to_numpy(np.float64)
    found, distance, excused = _pair_with_truth(peaks, truth, usable & (snr >= params.min_snr), params)
    counted = usable & (snr >= params.min_snr)
    edges = resolution_shells(truth["inv_d"].to_numpy(np.float64)[counted], params.n_shells)
    return TruthScores(
        Rate(int(excused.sum()), len(peaks)),
        Rate(int(found[counted].sum()), int(counted.sum())),
        _median(distance[counted & found]),
        recall_table(snr[usable], found[usable], distance[usable], SNR_BANDS),
        recall_table(
            truth["inv_d"].to_numpy(np.float64)[counted], found[counted], distance[counted], tuple(edges)
        ),
        excused,
        distance,
    )


def _pair_with_truth(
    peaks: pd.DataFrame, truth: pd.DataFrame, counted: BoolArray, params: TruthParams
) -> tuple[BoolArray, Float64Array, BoolArray]:
    """Return per spot whether it was found and how far off (NaN if not), and per peak whether it is true."""
    excusing = truth["snr"].to_numpy(np.float64) >= params.ignore_snr
    excusing |= ~truth["usable"].to_numpy(bool)
    found, excused = np.zeros(len(truth), np.bool_), np.zeros(len(peaks), np.bool_)
    distance = np.full(len(truth), np.nan)
    for spots in (np.flatnonzero(counted), np.flatnonzero(excusing & ~counted)):
        free = np.flatnonzero(~excused)
        a, b = peaks.iloc[free], truth.iloc[spots]
        pairs = match_points(
            frame_panel_key(a),
            a["fs"],
            a["ss"],
            frame_panel_key(b),
            b["fs"],
            b["ss"],
            max_distance=params.max_distance,
        )
        excused[free[pairs.a]] = True
        found[spots[pairs.b]] = True
        distance[spots[pairs.b]] = pairs.distance
    return found, distance, excused


def frame_panel_key(table: pd.DataFrame) -> IntArray:
    """Return one integer per row that is the same only for the same frame and panel."""
    return np.asarray(table["frame"], dtype=np.int64) * 4096 + np.asarray(table["panel"], dtype=np.int64)


def resolution_shells(inv_d: Float64Array, n_shells: int) -> Float64Array:
    """Return the edges (n_shells + 1) of shells of equal reciprocal volume that hold all values, Å⁻¹."""
    if not len(inv_d):
        return np.linspace(0.0, 1.0, n_shells + 1)
    low, high = float(inv_d.min()), float(inv_d.max())
    edges = np.cbrt(np.linspace(low**3, high**3, n_shells + 1))
    edges[-1] = np.nextafter(max(high, edges[-1]), np.inf)
    edges[0] = min(low, edges[0])
    return np.asarray(edges, dtype=np.float64)


def recall_table(
    value: Float64Array, found: BoolArray, distance: Float64Array, edges: tuple[float, ...]
) -> pd.DataFrame:
    """Return recall and centre error per band ``low ≤ value < high``."""
    rows = []
    for low, high in itertools.pairwise(edges):
        inside = (value >= low) & (value < high)
        rate = Rate(int(found[inside].sum()), int(inside.sum()))
        bottom, top = rate.interval()
        error = _median(distance[inside & found])
        rows.append((low, high, rate.whole, rate.part, rate.value, bottom, top, error))
    names = ("low", "high", "n_true", "n_found", "recall", "recall_low", "recall_high", "centre_error_px")
    return pd.DataFrame(rows, columns=list(names))


def _median(values: npt.NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else math.nan


@dataclass(frozen=True)
class RunContext:
    """Everything in a score row that isn't counted from tables.

    ``frames_per_second`` is NaN when not measured; ``scrambled`` is 0 when no false-index control was made.
    """

    experiment: str
    run: str
    finder: str
    n_frames: int
    subset: str = "unused"
    frames_per_second: float = math.nan
    false_indexed: int = 0
    scrambled: int = 0
    model: str = ""
    label_manifest: str = ""
    parameters: str = ""
    code_version: str = ""


def score_run(
    context: RunContext,
    peaks: PeakTable,
    lattices: IndexTable,
    *,
    min_peaks: int,
    truth: TruthScores | None = None,
) -> Scores:
    """Return one row of the run_metrics table.

    Parameters
    ----------
    context : RunContext
    peaks, lattices : PeakTable, IndexTable
        Of one run and one finder.
    min_peaks : int
        Least peaks of a hit.
    truth : TruthScores, optional
        When the run was simulated.

    """
    rates = count_rates(peaks, lattices, n_frames=context.n_frames, min_peaks=min_peaks)
    row: dict[str, object] = {
        "experiment": context.experiment,
        "run": context.run,
        "subset": context.subset,
        "finder": context.finder,
        "frames": rates.frames,
        "hits": rates.hits,
        "indexed": rates.indexed,
        "hit_rate": rates.hit_rate.value if rates.frames else 0.0,
        "indexing_rate": rates.indexing_rate.value,
        "indexing_yield": rates.indexing_yield.value if rates.frames else 0.0,
        "false_index_rate": Rate(context.false_indexed, context.scrambled).value,
        "scrambled": context.scrambled,
        "peaks": len(peaks),
        "mean_peaks": len(peaks) / max(rates.frames, 1),
        "resolution": reached_resolution(peaks, lattices),
        "precision": truth.precision.value if truth else math.nan,
        "recall": truth.recall.value if truth else math.nan,
        "frames_per_second": context.frames_per_second,
        "residual": _median(lattices["residual"].to_numpy(np.float64)),
        "model": context.model,
        "label_manifest": context.label_manifest,
        "parameters": context.parameters,
        "code_version": context.code_version,
    }
    return make_table(SCORES, {name: [value] for name, value in row.items()})
