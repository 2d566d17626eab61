"""Why a run doesn't index, seen in its peaks: blank, too few peaks, hot pixels, saturation, rings."""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from peaknet_pipeline.diagnosis_params import DiagnosisParams
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.geometry.usable import usable_values
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.indexing.examine import CellCheckParams
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.repeats import find_repeats
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params, find_peaks
from peaknet_pipeline.runs.rings import ICE_RINGS_ANGSTROM
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry, IntArray, UnitCell


@dataclass(frozen=True)
class Finding:
    """One cause: the share of frames, hits or peaks that it concerns, the sentence with its numbers, what to do."""

    cause: str
    share: float
    told: str
    remedy: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """A run's tables, and a sample of its frames (n, n_panels, ss, fs) in adu.

    ``photon_energy_ev`` is (n_frames,); ``bad_pixels`` (n_panels, ss, fs). Without ``finder`` (another than
    peakfinder8 was used) the sample is not searched again.
    """

    n_frames: int
    peaks: PeakTable
    lattices: IndexTable
    geometry: Geometry
    photon_energy_ev: Float64Array
    cell: UnitCell
    finder: Peakfinder8Params | None
    index: IndexParams
    sample: FrameArray
    bad_pixels: BoolArray
    params: DiagnosisParams = field(default_factory=DiagnosisParams)
    cell_check: CellCheckParams = field(default_factory=CellCheckParams)

    def repeating(self) -> BoolArray:
        """Return which peaks, (n_peaks,), come back at the same place."""
        return find_repeats(
            self.peaks, min_frames=self.index.repeat_frames, min_fraction=self.index.repeat_fraction
        )

    def clean_peaks(self) -> PeakTable:
        """Return the peaks that do not repeat."""
        return self.peaks[~self.repeating()].reset_index(drop=True)

    def hits(self) -> IntArray:
        """Return the frames with enough peaks that do not repeat."""
        return hit_frames(self.clean_peaks(), min_peaks=self.params.min_peaks)

    def indexed_hits(self) -> IntArray:
        """Return the hits with a lattice."""
        hits = self.hits()
        return hits[np.isin(hits, self.lattices["frame"].to_numpy(np.int64))]


def find_too_few(evidence: Evidence) -> list[Finding]:
    """Tell a run without hits from one whose threshold hides them, by a sample searched more sensitively."""
    hidden = _hidden_hits(evidence) if evidence.finder is not None else []
    return hidden or _blank(evidence)


def _hidden_hits(evidence: Evidence) -> list[Finding]:
    finder, divisor = evidence.finder or Peakfinder8Params(), evidence.params.lower_threshold
    lower = replace(finder, threshold=finder.threshold / divisor)
    now, then = _sample_hits(evidence, finder), _sample_hits(evidence, lower)
    if then < max(2 * now, now + 3):
        return []
    return [
        Finding(
            "too few peaks",
            (then - now) / then,
            f"{_hits_told(evidence)}; with threshold {lower.threshold:g} instead of {finder.threshold:g}, {then} of "
            f"{len(evidence.sample)} sampled frames are hits instead of {now}",
            f"Lower the finder's threshold towards {lower.threshold:g}; the asset finder_scan tries a grid.",
            {"hits_now": now, "hits_lower": then, "threshold": lower.threshold},
        )
    ]


def _blank(evidence: Evidence) -> list[Finding]:
    params, hits = evidence.params, len(evidence.hits())
    if hits >= max(params.min_hits, params.blank_rate * evidence.n_frames) or len(evidence.lattices):
        return []
    mean = len(evidence.peaks) / max(evidence.n_frames, 1)
    sought = ", and a lower threshold finds no more" if evidence.finder is not None else ""
    return [
        Finding(
            "blank run",
            1.0 - hits / max(evidence.n_frames, 1),
            f"{_hits_told(evidence)} (mean {mean:.1f}){sought}",
            "Nothing to index: check that the jet, the shutter and the beam were on.",
            {"hits": hits, "mean_peaks": mean},
        )
    ]


def _hits_told(evidence: Evidence) -> str:
    hits, least = len(evidence.hits()), evidence.params.min_peaks
    return f"{hits} of {evidence.n_frames} frames have {least} peaks or more"


def _sample_hits(evidence: Evidence, finder: Peakfinder8Params) -> int:
    peaks = find_peaks(
        evidence.sample,
        radius=pixel_radius(evidence.geometry),
        bad_pixels=evidence.bad_pixels,
        params=finder,
        usable=usable_values(evidence.geometry),
    )
    places = find_repeats(
        peaks,
        min_frames=max(3, len(evidence.sample) // 4),
        min_fraction=evidence.index.repeat_fraction,
    )
    return len(hit_frames(peaks[~places], min_peaks=evidence.params.min_peaks))


def find_hot_pixels(evidence: Evidence) -> list[Finding]:
    """Tell peaks that come back at the same place: no crystal does that."""
    repeats = evidence.repeating()
    share = float(repeats.mean()) if len(repeats) else 0.0
    if share < evidence.params.repeat_share:
        return []
    rows = evidence.peaks[repeats]
    place = _places(rows)
    counts = np.bincount(place)
    worst = rows[place == counts.argmax()]
    return [
        Finding(
            "hot pixels",
            share,
            f"{share:.0%} of {len(repeats)} peaks come back at {len(counts)} places, most often "
            f"({worst['frame'].nunique()} of {evidence.n_frames} frames) on panel {worst['panel'].iloc[0]} at ss "
            f"{worst['ss'].median():.0f}, fs {worst['fs'].median():.0f}",
            "Mask them: a mask file for the experiment, or bad_pixels with a lower limit.",
            {"share": share, "places": float(len(counts))},
        )
    ]


def _places(peaks: PeakTable) -> IntArray:
    """Number the places of peaks, (n_peaks,): peaks within 2 px on one panel are at the same place."""
    where = peaks[["panel", "ss", "fs"]].to_numpy(np.float64) * [1e6, 1.0, 1.0]
    near = KDTree(where).query_pairs(2.0, output_type="ndarray")
    links = coo_array((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(len(where), len(where)))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def find_saturation(evidence: Evidence) -> list[Finding]:
    """Tell peaks that pile up at the highest value: intensities and centroids of saturated spots are wrong."""
    peaks = evidence.clean_peaks()
    if len(peaks) < 50:
        return []
    highest = (peaks["max_intensity"] + peaks["background"]).to_numpy(np.float64)
    top = float(highest.max())
    piled = highest >= 0.97 * top
    share = float(piled.mean())
    if share < evidence.params.saturated_share or piled.sum() < 10:
        return []
    return [
        Finding(
            "saturated",
            share,
            f"{share:.0%} of {len(peaks)} peaks reach {0.97 * top:.0f} to {top:.0f} adu, where nothing is brighter",
            "Attenuate the beam, or set the geometry's flag_morethan and let saturated pixels be left out.",
            {"share": share, "level": top},
        )
    ]


RING_BIN, RING_REACH = 0.004, 8
"""Width of a shell (Å⁻¹), and shells to either side that tell what to expect."""


def find_rings_of_peaks(evidence: Evidence) -> list[Finding]:
    """Tell powder rings of spots: shells with many more peaks than their neighbours."""
    inv_d = evidence.clean_peaks()["inv_d"].to_numpy(np.float64)
    inv_d = inv_d[np.isfinite(inv_d)]
    if len(inv_d) < 50:
        return []
    counts = np.bincount((inv_d / RING_BIN).astype(np.int64))
    excess = _excess_of_shells(counts)
    share = float(excess.sum() / len(inv_d))
    if share < evidence.params.ring_share:
        return []
    rings = [_name_ring(d) for d in _ring_spacings(inv_d, excess)]
    kind = "ice rings" if sum("ice" in ring for ring in rings) * 2 >= len(rings) else "salt or powder rings"
    return [
        Finding(
            kind,
            share,
            f"{share:.0%} of {len(inv_d)} peaks are too many for their shells, at {', '.join(rings)}",
            "Leave the rings out (runs.rings, exclude_ice or rings_angstrom), and look at the cryo stream or buffer.",
            {"share": share},
        )
    ]


def _excess_of_shells(counts: IntArray) -> Float64Array:
    """Return how many peaks each shell has beyond its neighbours' median; 0 where that may be chance."""
    excess = np.zeros(len(counts))
    for i in range(len(counts)):
        low, high = max(0, i - RING_REACH), min(len(counts), i + RING_REACH + 1)
        around = np.concatenate([counts[low : max(low, i - 1)], counts[i + 2 : high]])
        expected = float(np.median(around)) if len(around) else 0.0
        more = counts[i] - expected
        if more > max(10.0, 1.5 * expected, 6.0 * np.sqrt(expected + 1)):
            excess[i] = more
    return excess


def _ring_spacings(inv_d: Float64Array, excess: Float64Array) -> list[float]:
    """Return the spacing, Å, of each group of neighbouring shells with an excess, by its peaks' median 1/d."""
    shells = np.flatnonzero(excess)
    groups = np.split(shells, np.flatnonzero(np.diff(shells) > 1) + 1)
    shell = (inv_d / RING_BIN).astype(np.int64)
    return [1.0 / float(np.median(inv_d[np.isin(shell, group)])) for group in groups if len(group)]


def _name_ring(d_angstrom: float) -> str:
    ice = np.abs(1.0 / np.array(ICE_RINGS_ANGSTROM) - 1.0 / d_angstrom).min() < RING_BIN
    return f"{d_angstrom:.2f} Å{' (ice)' if ice else ''}"
