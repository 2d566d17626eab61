"""Fill in what a geometry leaves to the run: camera length and photon energy read from the data file."""

from dataclasses import replace

from peaknet_pipeline.types import Geometry, Panel


def resolve_geometry(
    geometry: Geometry, *, photon_energy_ev: float | None = None, clen_m: float | None = None
) -> Geometry:
    """Return the geometry with the camera length and photon energy of a frame or run.

    Parameters
    ----------
    geometry : Geometry
    photon_energy_ev : float, optional
        Replaces the geometry's photon energy; panels with ``adu_per_ev`` get their ``adu_per_photon`` from
        it.
    clen_m : float, optional
        Camera length without ``coffset``, which is added per panel.

    """
    panels = tuple(_resolve_panel(panel, photon_energy_ev, clen_m) for panel in geometry.panels)
    energy = geometry.photon_energy_ev if photon_energy_ev is None else photon_energy_ev
    return replace(geometry, panels=panels, photon_energy_ev=energy)


def _resolve_panel(panel: Panel, photon_energy_ev: float | None, clen_m: float | None) -> Panel:
    if clen_m is not None:
        panel = replace(panel, clen_m=clen_m + panel.coffset_m)
    if panel.adu_per_ev is not None and photon_energy_ev is not None:
        panel = replace(panel, adu_per_photon=panel.adu_per_ev * photon_energy_ev)
    return panel
