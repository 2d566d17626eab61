"""Photon energies and camera lengths of single shots: which of them can be true.

Files hold 0, NaN, -1 or a placeholder such as 0.0001 for shots whose value was not recorded. Those frames keep their peaks,
have no resolution and are not indexed; one such shot must not refuse a run.
"""

import numpy as np

from peaknet_pipeline.geometry.crystfel_text import energy_ev
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.resolve import typical_value
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.types import BoolArray, Float64Array, Geometry

SANE_ENERGY_EV = (1e3, 2e5)
"""Photon energies of crystallography."""

SANE_DISTANCE_M = (0.005, 20.0)
"""Distances of detectors from the sample."""

METRES = {"mm": 1e-3, "m": 1.0}
"""Units of camera lengths in geometry files."""


def usable_energies(energies_ev: Float64Array) -> Float64Array:
    """Return the photon energies, (n_frames,), eV, with NaN where one isn't possible; see :func:`possible_values`."""
    return np.where(possible_values(energies_ev, SANE_ENERGY_EV), energies_ev, np.nan)


def usable_camera_lengths(clen_m: Float64Array, geometry: Geometry) -> Float64Array:
    """Return the camera lengths, (n_frames,), metres, with NaN where one isn't possible; see :func:`possible_values`.

    What must be possible is the detector's distance: with ``coffset``, encoders may count from anywhere, below zero too.
    """
    offset = float(np.mean([panel.coffset_m for panel in geometry.panels]))
    return np.where(possible_values(clen_m + offset, SANE_DISTANCE_M), clen_m, np.nan)


def energies_in_ev(values: Float64Array, unit: str) -> Float64Array:
    """Return energies or wavelengths, (n_frames,), in a geometry's unit as usable photon energies, eV, else NaN.

    Raises
    ------
    GeometryError
        The unit is unknown.

    """
    energy_ev(1.0, unit)
    energies = np.full(len(values), np.nan)
    for frame in np.flatnonzero(np.isfinite(values) & (values > 0)):
        energies[frame] = energy_ev(float(values[frame]), unit)
    return usable_energies(energies)


def camera_lengths_in_m(values: Float64Array, geometry: Geometry) -> Float64Array:
    """Return camera lengths, (n_frames,), in the geometry's unit as usable ones, metres, else NaN."""
    return usable_camera_lengths(values * METRES[geometry.clen_unit], geometry)


def possible_values(values: Float64Array, sane: tuple[float, float]) -> BoolArray:
    """Return which values, (n,), are finite, above zero, and no placeholder.

    Values outside the sane range are placeholders where others lie within it. Where none does, a unit may be wrong, or the
    experiment unusual: then they count, for the user to judge.
    """
    positive = np.isfinite(values) & (values > 0)
    within = positive & (values >= sane[0]) & (values <= sane[1])
    return within if within.any() else positive


def filled_with_median(values: Float64Array) -> Float64Array:
    """Return the values, (n_frames,), with the median of the known ones where one isn't (NaN); NaN where none is."""
    typical = typical_value(values)
    return values if typical is None else np.where(np.isfinite(values), values, typical)


def shot_doubts(run: Run) -> list[str]:
    """Return in words which frames lack a photon energy or a camera length, and what is odd about the others'."""
    energy, geometry = run.photon_energy_ev, run.geometry
    place = geometry.photon_energy_path if geometry is not None else None
    doubts = _missing("photon energy", energy, place, "photon_energy")
    if run.clen_m is not None and geometry is not None:
        doubts += _missing("camera length", run.clen_m, geometry.clen_path, "clen")
        known_m = run.clen_m[np.isfinite(run.clen_m)]
        if known_m.size and np.ptp(known_m) > 1e-4:
            doubts.append(f"The camera length changes by {1e3 * np.ptp(known_m):.2f} mm within the run.")
    elif geometry is not None and not knows_distance(geometry):
        doubts.append(
            f"The camera length is not known: runs of this kind have no {geometry.clen_path}; give a number (clen)."
        )
    known = energy[np.isfinite(energy)]
    if not known.size:
        return doubts
    low, high = SANE_ENERGY_EV
    if known.min() < low or known.max() > high:
        doubts.append(
            f"Photon energies from {known.min():g} to {known.max():g} eV are unusual: check the unit."
        )
    elif np.ptp(known) > 0.05 * known.mean():
        doubts.append(f"The photon energy changes by {np.ptp(known) / known.mean():.0%} within the run.")
    return doubts


def _missing(name: str, values: Float64Array, place: str | None, key: str) -> list[str]:
    without = np.flatnonzero(~np.isfinite(values))
    if not without.size:
        return []
    if without.size == values.size:
        where = f" at {place} in any frame" if place else ""
        return [f"The {name} is not known{where}: give it in the geometry ({key})."]
    listed = ", ".join(str(frame) for frame in without[:5]) + (" …" if without.size > 5 else "")
    return [
        f"{without.size} of {values.size} frames have no possible {name} (frame {listed}): they keep their peaks, have no "
        "resolution and are not indexed."
    ]
