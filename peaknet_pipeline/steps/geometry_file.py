"""A run's geometry as a CrystFEL file; see ``peaknet geometry``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.geometry.resolve import without_paths
from peaknet_pipeline.runs.inspect import geometry_facts
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import Run


def write_run_geometry(
    path: Path, *, geometry: Path | None, out: Path, roots: Sequence[Path] = ()
) -> dict[str, Any]:
    """Write the geometry that a run carries, or a given one completed by the run; return what it says.

    Photon energy and camera length are written as numbers, the medians of the run's frames.

    Raises
    ------
    GeometryError
        The run carries none and none was given, or no frame has a camera length or photon energy.

    """
    known = None if geometry is None else read_geometry(geometry)
    with open_run(path, known, more_roots=roots) as run:
        if run.geometry is None:
            raise GeometryError(
                "the run carries no geometry",
                where=path,
                found="; ".join(run.doubts) or None,
                remedy="Only NXmx files do; give one with --geometry.",
            )
        completed = without_paths(run.geometry)
        write_geometry(completed, out, made_by="peaknet geometry")
        doubts = {"doubts": list(run.doubts)} if run.doubts else {}
        return {"out": str(out), **geometry_facts(completed), **_changes(run), **doubts}


def _changes(run: Run) -> dict[str, Any]:
    """Return between which values photon energy and camera length of the frames lie, where they aren't the same in all."""
    values = {"photon energies, eV": run.photon_energy_ev, "camera lengths in the file, m": run.clen_m}
    told: dict[str, Any] = {}
    for name, of_frames in values.items():
        known = of_frames[np.isfinite(of_frames)] if of_frames is not None else np.empty(0)
        if known.size and np.ptp(known) > 0:
            told[name] = [float(known.min()), float(known.max())]
    return told
