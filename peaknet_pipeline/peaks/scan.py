"""The expert, automated: every peakfinder8 setting of a grid, scored by whatever the caller wants maximised."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, flag_unusable
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.peaks.peakfinder8 import VARIABLE, Peakfinder8, Peakfinder8Params
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray

Score = Callable[[PeakTable, Peakfinder8Params], Mapping[str, float]]
"""Called once per setting with its peaks; returns named figures, such as the indexing yield."""


@dataclass(frozen=True)
class ScanParams(Parameters):
    """The grid: every combination of these values is tried."""

    threshold: tuple[float, ...] = parameter(
        (),
        meaning="thresholds; without any the run's own background and threshold_sigma make them",
        unit="adu",
    )
    min_snr: tuple[float, ...] = parameter((3.5, 4.0, 5.0, 6.0, 8.0), meaning="lowest SNRs", unit="σ")
    min_pix: tuple[int, ...] = parameter((1, 2, 3), meaning="fewest pixels", unit="px")
    max_pix: tuple[int, ...] = parameter((200,), meaning="most pixels", unit="px")
    local_bg_radius: tuple[int, ...] = parameter((3, 4), meaning="local background radii", unit="px")


@dataclass(frozen=True)
class ScanStageParams(ScanParams):
    """The grid, and how many frames are tried."""

    threshold_sigma: tuple[float, ...] = parameter(
        (0.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0),
        meaning="thresholds above the run's background, where none are given",
        unit="σ",
    )
    frames: int = parameter(
        24, meaning="frames tried, three quarters of them likely hits, spread over the run", ge=1
    )
    searched: int = parameter(
        240, meaning="frames, spread over the run, that the likely hits come from", ge=1
    )


def background_thresholds(
    frames: FrameArray,
    bad_pixels: BoolArray,
    factors: Sequence[float],
    *,
    usable: UsableValues = ALL_VALUES,
) -> tuple[float, ...]:
    """Return thresholds that suit frames of any detector: their background plus multiples of its noise.

    Parameters
    ----------
    frames : (n, n_panels, ss, fs), adu
        A sample of a run.
    bad_pixels : (n_panels, ss, fs)
    factors : sequence of float, σ
        0 leaves the choice of pixels to the SNR where the background is typical or above.
    usable : UsableValues
        Pixels of other values are left out.

    Returns
    -------
    Ascending thresholds above zero, three figures each: median of the good pixels + factor · σ. σ is that of differences
    between neighbours in a row, their largest hundredth left out, so that neither rings nor spots count.

    """
    flagged = flag_unusable(frames, usable)
    good = ~bad_pixels & np.isfinite(frames)
    good = good if flagged is None else good & ~flagged
    pairs = good[..., :-1] & good[..., 1:]
    if not pairs.any():
        raise ParameterError("no good pixels to judge the background by", where="background_thresholds")
    values = frames.astype(np.float64)
    squares = np.square(np.diff(values, axis=-1)[pairs])
    sigma = float(np.sqrt(squares[squares <= np.quantile(squares, 0.99)].mean() / 2)) or 1.0
    level = float(np.median(values[good]))
    least = 0.01 * sigma
    return tuple(sorted({float(f"{max(level + f * sigma, least):.3g}") for f in factors}))


def parameter_grid(scan: ScanParams, base: Peakfinder8Params | None = None) -> list[Peakfinder8Params]:
    """Return every combination of the scan's values, the rest as in ``base``."""
    base = base or Peakfinder8Params()
    names, values = list(scan.to_dict()), list(scan.to_dict().values())
    grid = [replace(base, **dict(zip(names, point, strict=True))) for point in product(*values)]
    if not grid:
        raise ParameterError("an empty list of values", where="ScanParams", remedy="Give each at least one.")
    return grid


def scan_parameters(
    frames: FrameArray,
    *,
    radius: Float32Array,
    bad_pixels: BoolArray,
    grid: Sequence[Peakfinder8Params],
    score: Score,
    n_threads: int | None = None,
    usable: UsableValues = ALL_VALUES,
) -> pd.DataFrame:
    """Find the peaks of the same frames with every setting, and score them.

    The pixels are sorted into rings once for all settings that share resolution limits and statistics, and each
    frame's statistics are computed once for all settings that share threshold and SNR.

    Parameters
    ----------
    frames : (n, n_panels, ss, fs), adu
    radius, bad_pixels : (n_panels, ss, fs)
    grid : sequence of Peakfinder8Params
    score : callable
        ``score(peaks, params)`` returns named figures.
    n_threads, usable
        As for `find_peaks`.

    Returns
    -------
    DataFrame
        One row per setting, in the grid's order: its parameters, ``n_peaks``, and the figures.

    """
    rows: list[dict[str, Any]] = [{} for _ in grid]
    plans: dict[Any, Any] = {}
    for members in _groups(grid):
        first = grid[members[0]]
        key = (first.min_res, first.max_res, first.statistics, first.sample_size)
        finder = Peakfinder8(radius, bad_pixels, first, usable=usable, plan=plans.get(key))
        plans[key] = finder.plan
        tables = finder.find_variants(frames, [grid[i] for i in members], n_threads=n_threads)
        for i, table in zip(members, tables, strict=True):
            rows[i] = {**grid[i].to_dict(), "n_peaks": len(table), **score(table, grid[i])}
    return pd.DataFrame(rows)


def best_setting(scores: pd.DataFrame, figure: str) -> Peakfinder8Params:
    """Return the setting with the highest ``figure``; of equals the one with fewest peaks, then the first.

    Raises
    ------
    ParameterError
        There is no such figure, or it is nowhere a number.

    """
    if figure not in scores or scores[figure].isna().all():
        raise ParameterError("no such figure in the scan", expected=list(scores.columns), found=figure)
    order = scores.sort_values([figure, "n_peaks"], ascending=[False, True], kind="stable")
    names = Peakfinder8Params().to_dict()
    return Peakfinder8Params.from_mapping({name: order.iloc[0][name] for name in names})


def _groups(grid: Sequence[Peakfinder8Params]) -> list[list[int]]:
    """Row numbers of settings that differ in nothing but what statistics and seeds do not depend on."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, params in enumerate(grid):
        key = tuple(value for name, value in params.to_dict().items() if name not in VARIABLE)
        groups.setdefault(key, []).append(i)
    return list(groups.values())
