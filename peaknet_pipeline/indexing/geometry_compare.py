"""Two geometries on frames that neither was refined from: which one lets lattices predict where the spots are?

Both are asked about the same spots: those that lie near a lattice point by either. A spot's miss is its distance from the
predicted ray, at most ``CAP_PX``, so that a spot that only one of them explains counts against the other and outliers don't
decide. Frames are the independent measurements: the difference is told in standard errors of its mean over frames.
"""

import math
from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.indexing.geometry_refine import GeometryRefineParams, spot_misses
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.types import Float64Array, Geometry, IntArray, UnitCell

CAP_PX = 3.0
"""Largest miss that counts, pixels."""


@dataclass(frozen=True)
class GeometryComparison:
    """Squared misses per frame, pixels², of the old and the new geometry, with the number of spots; each (n_frames,)."""

    before: Float64Array
    after: Float64Array
    spots: IntArray

    @property
    def before_px(self) -> float:
        """The old geometry's rms miss; NaN without spots."""
        return self._rms(self.before)

    @property
    def after_px(self) -> float:
        """The new geometry's rms miss; NaN without spots."""
        return self._rms(self.after)

    @property
    def gain(self) -> float:
        """By how many standard errors the frames' mean squared miss is lower; 0 with fewer than three frames."""
        difference = self.before - self.after
        if len(difference) < 3:
            return 0.0
        error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
        return float(difference.mean()) / max(error, 1e-12)

    def joined(self, other: "GeometryComparison") -> "GeometryComparison":
        """Return both comparisons as one, as of two parts of a run."""
        return GeometryComparison(
            np.concatenate([self.before, other.before]),
            np.concatenate([self.after, other.after]),
            np.concatenate([self.spots, other.spots]),
        )

    def _rms(self, squares: Float64Array) -> float:
        n = int(self.spots.sum())
        return float(np.sqrt((squares * self.spots).sum() / n)) if n else float("nan")


def compare_geometries(
    peaks: PeakTable,
    lattices: IndexTable,
    *,
    old: Geometry,
    new: Geometry,
    photon_energy_ev: float | Float64Array,
    cell: UnitCell,
    params: GeometryRefineParams,
) -> GeometryComparison:
    """Compare two geometries by the lattices of some frames, whose orientations are refined anew with each."""
    frame, first, near_first = spot_misses(peaks, lattices, old, photon_energy_ev, cell, params)
    _, second, near_second = spot_misses(peaks, lattices, new, photon_energy_ev, cell, params)
    asked = near_first | near_second
    squares = [
        np.where(near, np.minimum(miss, CAP_PX), CAP_PX)[asked] ** 2
        for miss, near in ((first, near_first), (second, near_second))
    ]
    _, row, spots = np.unique(frame[asked], return_inverse=True, return_counts=True)
    before, after = (np.bincount(row, values, len(spots)) / spots for values in squares)
    return GeometryComparison(before, after, spots.astype(np.int64))
