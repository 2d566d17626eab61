"""A run's geometry as a CrystFEL file; see ``peaknet geometry``."""

from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.runs.inspect import geometry_facts
from peaknet_pipeline.runs.open import open_run


def write_run_geometry(path: Path, *, geometry: Path | None, out: Path) -> dict[str, Any]:
    """Write the geometry that a run carries, or a given one completed by the run; return what it says.

    Raises
    ------
    GeometryError
        The run carries none and none was given.

    """
    with open_run(path, None if geometry is None else read_geometry(geometry)) as run:
        if run.geometry is None:
            raise GeometryError(
                "the run carries no geometry",
                where=path,
                remedy="Only NXmx files do; give one with --geometry.",
            )
        write_geometry(run.geometry, out, made_by="peaknet geometry")
        return {"out": str(out), **geometry_facts(run.geometry)}
