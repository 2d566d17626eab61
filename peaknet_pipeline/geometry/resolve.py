"""Fill in what a geometry leaves to the run: camera length and photon energy read from the data file."""

from dataclasses import replace

import numpy as np

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.types import Float64Array, Geometry, Panel


def resolve_geometry(
    geometry: Geometry,
    *,
    photon_energy_ev: float | Float64Array | None = None,
    clen_m: float | Float64Array | None = None,
) -> Geometry:
    """Return the geometry with the camera length and photon energy of a frame or run.

    Of values per frame, (n_frames,), the panels get the median of those that are known; a run whose camera lengths differ,
    or are missing (NaN) in some frames, keeps each frame's in ``clen_change_m``.

    Parameters
    ----------
    geometry : Geometry
    photon_energy_ev : float or (n_frames,) float, optional
        Replaces the geometry's photon energy; panels with ``adu_per_ev`` get their ``adu_per_photon`` from
        it.
    clen_m : float or (n_frames,) float, optional
        Camera length without ``coffset``, which is added per panel.

    """
    energy, clen = typical_value(photon_energy_ev), typical_value(clen_m)
    panels = tuple(_resolve_panel(panel, energy, clen) for panel in geometry.panels)
    if energy is None:
        energy = geometry.photon_energy_ev
    changes = geometry.clen_change_m if clen_m is None else _changes(clen_m, clen)
    return replace(geometry, panels=panels, photon_energy_ev=energy, clen_change_m=changes)


def without_paths(geometry: Geometry) -> Geometry:
    """Return a resolved geometry that leaves nothing to a file: its camera length and photon energy are numbers.

    Raises
    ------
    GeometryError
        One of the two is at a path and not known.

    """
    missing = [] if knows_distance(geometry) else [f"the camera length ({geometry.clen_path})"]
    if geometry.photon_energy_ev is None and geometry.photon_energy_path is not None:
        missing.append(f"the photon energy ({geometry.photon_energy_path})")
    if missing:
        raise GeometryError(
            f"{' and '.join(missing)} is not known in any frame",
            where=geometry.source,
            remedy="Give it in the geometry as a number.",
        )
    return replace(geometry, clen_path=None, photon_energy_path=None, clen_change_m=None)


def typical_value(values: float | Float64Array | None) -> float | None:
    """Return the median of the values that are known; None where none is."""
    if values is None:
        return None
    known = np.atleast_1d(np.asarray(values, dtype=np.float64))
    known = known[np.isfinite(known)]
    return float(np.median(known)) if known.size else None


def gains(geometry: Geometry) -> Float64Array:
    """Return adu per photon of each panel, (n_panels,)."""
    return np.array([panel.adu_per_photon for panel in geometry.panels], dtype=np.float64)


def _changes(clen_m: float | Float64Array, typical: float | None) -> Float64Array | None:
    changes = np.atleast_1d(np.asarray(clen_m, dtype=np.float64)) - (np.nan if typical is None else typical)
    return changes if changes.size > 1 and (changes != 0).any() else None


def _resolve_panel(panel: Panel, photon_energy_ev: float | None, clen_m: float | None) -> Panel:
    if clen_m is not None:
        panel = replace(panel, clen_m=clen_m + panel.coffset_m)
    if panel.adu_per_ev is not None and photon_energy_ev is not None:
        panel = replace(panel, adu_per_photon=panel.adu_per_ev * photon_energy_ev)
    return panel
