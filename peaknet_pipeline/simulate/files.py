"""An experiment's geometry and target cell as files in CrystFEL's formats."""

from pathlib import Path

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.simulate.experiment import Experiment
from peaknet_pipeline.types import UnitCell


def write_experiment_files(experiment: Experiment, folder: Path) -> tuple[Path, Path]:
    """Write ``<name>.geom`` and ``<name>.cell`` into ``folder`` and return their paths."""
    geometry, cell = folder / f"{experiment.name}.geom", folder / f"{experiment.name}.cell"
    write_geometry(experiment.geometry, geometry)
    write_file(cell, cell_text(experiment.sample.cell))
    return geometry, cell


def cell_text(cell: UnitCell) -> str:
    """Return the cell in CrystFEL's text format."""
    lines = [
        "CrystFEL unit cell file version 1.0",
        "",
        f"lattice_type = {cell.lattice_type}",
        f"centering = {cell.centering}",
        *([f"unique_axis = {cell.unique_axis}"] if cell.unique_axis != "*" else []),
        *(f"{name} = {getattr(cell, name)} A" for name in ("a", "b", "c")),
        *(
            f"{short} = {getattr(cell, name)} deg"
            for short, name in (("al", "alpha"), ("be", "beta"), ("ga", "gamma"))
        ),
    ]
    return "\n".join(lines) + "\n"
