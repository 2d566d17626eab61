"""Peaks as reciprocal vectors: q = (s_out - s_in) / λ."""

from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.geometry.maps import peak_positions_m
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import HC_EV_ANGSTROM, BoolArray, Float64Array, Geometry, IntArray


@dataclass(frozen=True)
class SpotBatch:
    """Spots of several frames, padded to the same number.

    ``frame`` (n_frames,) are the frames' numbers; ``q`` (n_frames, n_spots, 3) Å⁻¹, ``used`` (n_frames, n_spots) False
    where padded; ``row`` (n_frames, n_spots) the peak's row in its table, -1 where padded; ``beam`` (n_frames, 3) the
    incident wave vector s_in/λ, Å⁻¹, or None when it isn't known.
    """

    frame: IntArray
    q: Float64Array
    used: BoolArray
    row: IntArray
    beam: Float64Array | None

    def take(self, which: IntArray) -> "SpotBatch":
        """Return the batch of the frames at these positions."""
        beam = None if self.beam is None else self.beam[which]
        return SpotBatch(self.frame[which], self.q[which], self.used[which], self.row[which], beam)


def energy_of_frames(photon_energy_ev: float | Float64Array, frames: IntArray) -> Float64Array:
    """Return the photon energy, (n,), eV, of each frame number from one value or one value per frame of the run.

    NaN where a frame's isn't known: single shots may lack it.

    Raises
    ------
    IndexingError
        No energy is known, or there are fewer energies than frames.

    """
    energies = np.atleast_1d(np.asarray(photon_energy_ev, dtype=np.float64))
    if energies.size != 1 and frames.size and int(frames.max()) >= energies.size:
        raise IndexingError(
            "frame without a photon energy",
            expected=f"energies for {int(frames.max()) + 1} frames",
            found=energies.size,
        )
    chosen = np.broadcast_to(energies, frames.shape) if energies.size == 1 else energies[frames]
    known = np.isfinite(energies) & (energies > 0)
    if not known.any():
        raise IndexingError(
            "photon energy unknown",
            expected="finite, > 0 eV",
            remedy="Give it in the geometry or in the run file.",
        )
    return np.asarray(np.where(chosen > 0, chosen, np.nan), dtype=np.float64)


def scattering_vectors(positions_m: Float64Array, photon_energy_ev: Float64Array) -> Float64Array:
    """Return q, (n, 3), Å⁻¹, of laboratory positions (n, 3), metres from the sample, with the beam along +z."""
    k = np.asarray(photon_energy_ev, dtype=np.float64) / HC_EV_ANGSTROM
    direction = positions_m / np.linalg.norm(positions_m, axis=1, keepdims=True)
    direction[:, 2] -= 1.0
    return np.asarray(direction * np.reshape(k, (-1, 1)), dtype=np.float64)


def spot_vectors(
    peaks: PeakTable, *, geometry: Geometry, photon_energy_ev: float | Float64Array
) -> Float64Array:
    """Return q, (n_peaks, 3), Å⁻¹, of every row of a peak table; ``photon_energy_ev`` by frame number.

    NaN where a frame's photon energy or camera length is not known.
    """
    frames = peaks["frame"].to_numpy(dtype=np.int64)
    positions = peak_positions_m(
        geometry,
        peaks["panel"].to_numpy(dtype=np.int64),
        peaks["fs"].to_numpy(dtype=np.float64),
        peaks["ss"].to_numpy(dtype=np.float64),
        frames,
    )
    return scattering_vectors(positions, energy_of_frames(photon_energy_ev, frames))


def batch_spots(
    frames: IntArray, q: Float64Array, *, photon_energy_ev: float | Float64Array | None = None
) -> SpotBatch:
    """Pad spots to one row per frame, ordered by frame and then by |q| (ties by q itself, so by no input order).

    Parameters
    ----------
    frames : (n,) int
        Frame number of each spot.
    q : (n, 3) float, Å⁻¹
        Rows that aren't finite are left out.
    photon_energy_ev : float or (n_frames_of_run,), optional
        Gives the incident beam, along +z; without it refinement treats all directions alike.

    """
    rows = np.flatnonzero(np.isfinite(q).all(axis=1))
    length = np.linalg.norm(q[rows], axis=1)
    order = np.lexsort((q[rows, 2], q[rows, 1], q[rows, 0], length, frames[rows]))
    rows = rows[order]
    numbers, start, counts = np.unique(frames[rows], return_index=True, return_counts=True)
    width = int(counts.max()) if counts.size else 0
    batch = np.repeat(np.arange(numbers.size), counts)
    column = np.arange(rows.size) - np.repeat(start, counts)
    padded = np.zeros((numbers.size, width, 3))
    used = np.zeros((numbers.size, width), dtype=np.bool_)
    row = np.full((numbers.size, width), -1, dtype=np.int64)
    padded[batch, column], used[batch, column], row[batch, column] = q[rows], True, rows
    beam = None
    if photon_energy_ev is not None:
        k = energy_of_frames(photon_energy_ev, numbers) / HC_EV_ANGSTROM
        beam = k[:, None] * np.array([0.0, 0.0, 1.0])
    return SpotBatch(numbers.astype(np.int64), padded, used, row, beam)
