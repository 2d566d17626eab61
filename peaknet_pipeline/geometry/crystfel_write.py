"""Write a geometry as a CrystFEL ``.geom`` file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.groups import groups_of
from peaknet_pipeline.geometry.slabs import dim_layout_of, mask_layers
from peaknet_pipeline.types import BadRegion, Geometry, Panel


def write_geometry(geometry: Geometry, path: Path | str, *, made_by: str = "") -> None:
    """Write a CrystFEL ``.geom`` file, atomically; reading it back gives the same detector to rounding.

    Written from the record, not from ``geometry.text``: comments and unknown keys are not kept. ``made_by`` becomes a
    comment at the top.
    """
    comment = f"; made by {made_by}\n" if made_by else ""
    write_file(Path(path), comment + format_geometry(geometry))


def format_geometry(geometry: Geometry) -> str:
    """Return the text of a CrystFEL ``.geom`` file.

    Raises
    ------
    GeometryError
        The camera length is neither a number nor at a path.

    """
    if geometry.clen_path is None and not knows_distance(geometry):
        raise GeometryError("the camera length is not known", where=geometry.source, expected="a number")
    lines = [*_header(geometry), "", *_masks(geometry), *_dims(geometry), *_groups(geometry)]
    for region in geometry.bad_regions:
        lines += ["", *_bad_region(region)]
    for panel in geometry.panels:
        lines += ["", *_panel(panel, geometry)]
    return "\n".join(lines) + "\n"


def _header(geometry: Geometry) -> Iterator[str]:
    if geometry.photon_energy_path is not None:
        key = "wavelength" if geometry.photon_energy_unit in ("A", "m") else "photon_energy"
        yield f"{key} = {geometry.photon_energy_path} {geometry.photon_energy_unit}"
    elif geometry.photon_energy_ev is not None:
        yield f"photon_energy = {geometry.photon_energy_ev!r} eV"
    if geometry.bandwidth is not None:
        yield f"bandwidth = {geometry.bandwidth!r}"
    if geometry.clen_path is not None:
        yield f"clen = {geometry.clen_path} {geometry.clen_unit}"
    else:
        first = geometry.panels[0]
        yield f"clen = {first.clen_m - first.coffset_m!r} m"
    if geometry.data_path is not None:
        yield f"data = {geometry.data_path}"
    if geometry.peak_list_path is not None:
        yield f"peak_list = {geometry.peak_list_path}"
        yield "peak_list_type = cxi"
    flags = (geometry.flag_less_than, geometry.flag_more_than, geometry.flag_equal)
    for key, value in zip(("flag_lessthan", "flag_morethan", "flag_equal"), flags, strict=True):
        if value is not None:
            yield f"{key} = {value!r}"


def _masks(geometry: Geometry) -> Iterator[str]:
    for number, mask in enumerate(mask_layers(geometry)):
        yield f"mask{number}_data = {mask.path}"
        if mask.file is not None:
            yield f"mask{number}_file = {mask.file}"
        yield f"mask{number}_goodbits = {mask.good_bits:#x}"
        yield f"mask{number}_badbits = {mask.bad_bits:#x}"


def _dims(geometry: Geometry) -> Iterator[str]:
    for number, role in enumerate(dim_layout_of(geometry)):
        if role != "n":
            yield f"dim{number} = {role}"


def _groups(geometry: Geometry) -> Iterator[str]:
    for name, members in groups_of(geometry):
        yield f"group_{name} = {','.join(members)}"


def _bad_region(region: BadRegion) -> Iterator[str]:
    axes = ("fs", "ss") if region.is_fsss else ("x", "y")
    if region.panel is not None:
        yield f"{region.name}/panel = {region.panel}"
    limits = ((region.min_a, region.max_a), (region.min_b, region.max_b))
    for axis, (low, high) in zip(axes, limits, strict=True):
        for end, value in (("min", low), ("max", high)):
            yield f"{region.name}/{end}_{axis} = {int(value) if region.is_fsss else repr(float(value))}"


def _panel(panel: Panel, geometry: Geometry) -> Iterator[str]:
    fixed = [i for i, role in enumerate(dim_layout_of(geometry)) if role == "n"]
    name = panel.name
    if panel.data_path is not None:
        yield f"{name}/data = {panel.data_path}"
    for dimension, index in zip(fixed, panel.stack_index, strict=True):
        yield f"{name}/dim{dimension} = {index}"
    for axis in ("fs", "ss"):
        yield f"{name}/min_{axis} = {getattr(panel, f'min_{axis}')}"
        yield f"{name}/max_{axis} = {getattr(panel, f'max_{axis}')}"
        yield f"{name}/{axis} = {_vector(getattr(panel, f'{axis}_vec'))}"
    yield f"{name}/corner_x = {_number(panel.corner_x)}"
    yield f"{name}/corner_y = {_number(panel.corner_y)}"
    yield f"{name}/res = {_resolution(panel.pixel_size_m)!r}"
    yield f"{name}/coffset = {_coffset(panel, geometry)!r}"
    if panel.adu_per_ev is not None:
        yield f"{name}/adu_per_eV = {panel.adu_per_ev!r}"
    else:
        yield f"{name}/adu_per_photon = {panel.adu_per_photon!r}"
    if panel.max_adu is not None:
        yield f"{name}/max_adu = {panel.max_adu!r}"


def _number(value: float) -> str:
    return np.format_float_positional(value, unique=True, trim="0")


def _vector(vector: tuple[float, float, float]) -> str:
    parts = (np.format_float_positional(v, unique=True, trim="0", sign=True) for v in vector)
    return " ".join(f"{part}{axis}" for part, axis in zip(parts, "xyz", strict=True))


def _resolution(pixel_size_m: float) -> float:
    """Return pixels per metre such that its inverse is the pixel size again, where such a double exists."""
    guess = 1.0 / pixel_size_m
    for candidate in (guess, float(np.nextafter(guess, 0)), float(np.nextafter(guess, np.inf))):
        if 1.0 / candidate == pixel_size_m:
            return candidate
    return guess


def _coffset(panel: Panel, geometry: Geometry) -> float:
    """Return the panel's offset from the camera length in the header: panels may differ in clen as well."""
    if geometry.clen_path is not None:
        return panel.coffset_m
    first = geometry.panels[0]
    header = first.clen_m - first.coffset_m
    return panel.coffset_m if header + panel.coffset_m == panel.clen_m else panel.clen_m - header
