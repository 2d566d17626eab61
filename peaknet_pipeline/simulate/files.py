"""An experiment's geometry and target cell as files in CrystFEL's formats."""

from pathlib import Path

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.simulate.experiment import Experiment
from peaknet_pipeline.types import UnitCell

MADE_BY = "peaknet simulate"


def write_experiment_files(experiment: Experiment, folder: Path) -> tuple[Path, Path]:
    """Write ``<name>.geom`` and ``<name>.cell`` into ``folder`` and return their paths."""
    geometry, cell = experiment_files(experiment.name, folder)
    write_geometry(experiment.geometry, geometry, made_by=MADE_BY)
    write_file(cell, cell_text(experiment.sample.cell))
    return geometry, cell


def experiment_files(name: str, folder: Path) -> tuple[Path, Path]:
    """Return where geometry and cell of an experiment of this name lie in ``folder``."""
    return folder / f"{name}.geom", folder / f"{name}.cell"


def cell_text(cell: UnitCell) -> str:
    """Return the cell in CrystFEL's text format."""
    lines = [
        "CrystFEL unit cell file version 1.0",
        f"; made by {MADE_BY}",
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
