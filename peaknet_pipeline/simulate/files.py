"""An experiment's geometry and target cell as files in CrystFEL's formats."""

from pathlib import Path

from peaknet_pipeline.simulate.experiment import Experiment
from peaknet_pipeline.tables import replace_atomically
from peaknet_pipeline.types import BadRegion, Geometry, Panel, UnitCell


def write_experiment_files(experiment: Experiment, folder: Path) -> tuple[Path, Path]:
    """Write ``<name>.geom`` and ``<name>.cell`` into ``folder`` and return their paths."""
    geometry, cell = folder / f"{experiment.name}.geom", folder / f"{experiment.name}.cell"
    for path, text in (
        (geometry, geometry_text(experiment.geometry)),
        (cell, cell_text(experiment.sample.cell)),
    ):
        with replace_atomically(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return geometry, cell


def geometry_text(geometry: Geometry) -> str:
    """Return the geometry in CrystFEL's text format."""
    first = geometry.panels[0]
    lines = [
        f"photon_energy = {geometry.photon_energy_path or geometry.photon_energy_ev}",
        f"clen = {first.clen_m!r}",
        f"res = {1 / first.pixel_size_m!r}",
        f"adu_per_photon = {first.adu_per_photon!r}",
        f"data = {geometry.data_path}",
        "dim0 = %",
        "dim1 = ss",
        "dim2 = fs",
        f"mask = {geometry.mask_path}",
        f"mask_good = {geometry.mask_good_bits:#x}",
        f"mask_bad = {geometry.mask_bad_bits:#x}",
        *(line for region in geometry.bad_regions for line in _region_lines(region)),
        *(line for panel in geometry.panels for line in _panel_lines(panel)),
    ]
    return "\n".join(lines) + "\n"


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


def _panel_lines(panel: Panel) -> list[str]:
    sizes = [f"{panel.name}/{n} = {getattr(panel, n)}" for n in ("min_fs", "max_fs", "min_ss", "max_ss")]
    corner = [f"{panel.name}/{n} = {getattr(panel, n)!r}" for n in ("corner_x", "corner_y")]
    vectors = [
        f"{panel.name}/{n} = {_vector_text(v)}" for n, v in (("fs", panel.fs_vec), ("ss", panel.ss_vec))
    ]
    return [*sizes, *corner, *vectors]


def _vector_text(vector: tuple[float, float, float]) -> str:
    return " ".join(f"{value:+}{axis}" for value, axis in zip(vector, "xyz", strict=True))


def _region_lines(region: BadRegion) -> list[str]:
    first, second = ("fs", "ss") if region.is_fsss else ("x", "y")
    name = region.name if region.name.startswith("bad") else f"bad_{region.name}"
    limits = ((f"min_{first}", region.min_a), (f"max_{first}", region.max_a),
              (f"min_{second}", region.min_b), (f"max_{second}", region.max_b))  # fmt: skip
    whole = [f"{name}/{key} = {int(v) if region.is_fsss else v}" for key, v in limits]
    return [*whole, *([f"{name}/panel = {region.panel}"] if region.panel else [])]
