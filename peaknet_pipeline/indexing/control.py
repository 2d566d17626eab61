"""The false-index control: the same frames with each spot's azimuth about the beam scrambled, through the same gate.

A scrambled frame keeps the number of spots and their resolutions, rings included, but no lattice. How often such frames
index is the rate at which the gate is fooled; no indexing rate means anything without it.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.maps import peak_positions_m
from peaknet_pipeline.geometry.rays import project_rays
from peaknet_pipeline.hits import MIN_PEAKS
from peaknet_pipeline.indexing.lattice import index_vectors, offered_spots
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.qvectors import SpotBatch
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import Float64Array, Geometry, UnitCell

MAX_DRAWS = 200
"""Azimuths drawn for a peak before it is left where it is."""

MAX_FALSE_RATE = 0.005
"""Largest false-index rate that a calibrated gate may have, and above which a run's indexing is flagged."""


@dataclass(frozen=True)
class ControlRecord:
    """What is kept of a control: hits scrambled, how many of them indexed, and the least significance of the gate."""

    n_scrambled: int
    n_indexed: int
    min_significance: float

    @property
    def rate(self) -> float:
        """False-index rate n_indexed / n_scrambled; 0 when nothing was scrambled."""
        return self.n_indexed / self.n_scrambled if self.n_scrambled else 0.0


@dataclass(frozen=True)
class IndexControl:
    """Outcome of a control: frames scrambled (the denominator), how many of them indexed, and their significances.

    ``significance`` (n_scrambled,) is each scrambled frame's best log10 significance, -inf where no candidate came up.
    """

    n_scrambled: int
    n_indexed: int
    significance: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        """False-index rate n_indexed / n_scrambled; 0 when nothing was scrambled."""
        return self.n_indexed / self.n_scrambled if self.n_scrambled else 0.0

    def upper_limit(self) -> float:
        """Return the one-sided 95 % upper limit (Clopper-Pearson) of the rate; 1 when nothing was scrambled."""
        from scipy import stats

        if self.n_indexed >= self.n_scrambled:
            return 1.0
        return float(stats.beta.ppf(0.95, self.n_indexed + 1, self.n_scrambled - self.n_indexed))


def false_index_control(
    peaks: PeakTable,
    *,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    cell: UnitCell,
    params: IndexParams | None = None,
    min_peaks: int = MIN_PEAKS,
    n_copies: int = 1,
    seed: int = 0,
) -> IndexControl:
    """Scramble every hit of a peak table and index it with the same parameters.

    Parameters
    ----------
    min_peaks : int
        Frames with fewer peaks are no hits and not part of the denominator.
    n_copies : int
        Differently scrambled copies of each hit; a run of few hits needs several for a telling denominator.
    seed : int
        Of the scrambling.

    """
    params = params or IndexParams()
    batch = offered_spots(peaks, geometry=geometry, photon_energy_ev=photon_energy_ev, params=params)
    hits = batch.take(np.flatnonzero(batch.used.sum(axis=1) >= min_peaks))
    return control_vectors(hits, cell=cell, params=params, n_copies=n_copies, seed=seed)


def control_vectors(
    batch: SpotBatch, *, cell: UnitCell, params: IndexParams | None = None, n_copies: int = 1, seed: int = 0
) -> IndexControl:
    """Scramble padded spots and index them; every frame of the batch counts, ``n_copies`` times."""
    params = params or IndexParams()
    open_gate = replace(params, max_lattices=1, min_significance=-1e6)
    n = len(batch.frame)
    best = np.full(n * n_copies, -np.inf)
    for copy in range(n_copies):
        scrambled = scramble_azimuths(batch, np.random.default_rng([seed, copy]))
        found = index_vectors(scrambled, cell=cell, params=open_gate)
        best[copy * n + found.batch] = found.significance
    return IndexControl(best.size, int((best >= params.min_significance).sum()), tuple(best.tolist()))


def scramble_azimuths(batch: SpotBatch, generator: np.random.Generator) -> SpotBatch:
    """Return the spots with uniformly random azimuths about z (the beam, either way); |q| and q_z stay."""
    angle = generator.uniform(0.0, 2.0 * np.pi, batch.used.shape)
    radius = np.hypot(batch.q[..., 0], batch.q[..., 1])
    q = np.stack([radius * np.cos(angle), radius * np.sin(angle), batch.q[..., 2]], axis=-1)
    return replace(batch, q=q)


def scramble_peaks(peaks: PeakTable, geometry: Geometry, *, seed: int = 0) -> PeakTable:
    """Return the peaks, each turned about the beam by a random azimuth to where it meets a panel again.

    For engines that read peak lists instead of vectors. Azimuths are drawn anew until the ray hits a panel, so that a
    detector's corners and gaps keep their share; the rare peak that hits none in ``MAX_DRAWS`` stays where it is.
    """
    generator = np.random.default_rng(seed)
    panel = peaks["panel"].to_numpy(dtype=np.int64).copy()
    fs, ss = (peaks[name].to_numpy(dtype=np.float64).copy() for name in ("fs", "ss"))
    ray = peak_positions_m(geometry, panel, fs, ss)
    left = np.arange(len(peaks))
    for _ in range(MAX_DRAWS):
        angle = generator.uniform(0.0, 2.0 * np.pi, left.size)
        radius = np.hypot(ray[left, 0], ray[left, 1])
        turned = np.stack([radius * np.cos(angle), radius * np.sin(angle), ray[left, 2]], axis=1)
        hit, new_fs, new_ss = project_rays(geometry, turned)
        seen = hit >= 0
        panel[left[seen]], fs[left[seen]], ss[left[seen]] = hit[seen], new_fs[seen], new_ss[seen]
        left = left[~seen]
        if not left.size:
            break
    moved = {"panel": panel, "fs": fs, "ss": ss}
    return peaks.assign(**{n: pd.Series(v, peaks.index).astype(peaks[n].dtype) for n, v in moved.items()})


def calibrate_gate(
    params: IndexParams, control: IndexControl, *, wanted_rate: float = MAX_FALSE_RATE
) -> IndexParams:
    """Return parameters whose least significance keeps this control's false-index rate at or below ``wanted_rate``.

    The gate is only ever raised, never lowered below the one given: a short run's control can't show that a lower one is
    safe. It is set just above the significance that the wanted share of scrambled frames reaches.
    """
    ranked = np.sort(np.array(control.significance))[::-1]
    allowed = int(np.floor(wanted_rate * ranked.size))
    if ranked.size <= allowed or not np.isfinite(ranked[allowed]):
        return params
    needed = float(np.nextafter(ranked[allowed], np.inf)) + 1e-6
    return replace(params, min_significance=max(params.min_significance, needed))
