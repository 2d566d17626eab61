"""CrystFEL geometry files: read to a :class:`~peaknet_pipeline.types.Geometry`.

The library :mod:`cfelpyutils` parses panels, vectors, dimensions, masks and bad regions; ``crystfel_text``
adds what it leaves out. Written back by ``crystfel_write``.
"""

import io
import math
import re
import warnings
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.crystfel_text import GeometryExtras, normalise_text
from peaknet_pipeline.geometry.groups import Groups, groups_of_panels
from peaknet_pipeline.geometry.resolve import resolve_geometry
from peaknet_pipeline.geometry.slabs import with_masks
from peaknet_pipeline.text_files import read_text
from peaknet_pipeline.types import BadRegion, Geometry, MaskLayer, Panel

MAX_FILE_BYTES = 64 * 2**20
MAX_STACK_PIXELS = 2**29

LEAST_SCALE = 1e-12
"""Detector units per photon or eV below which no scale is believed, nor above its inverse."""


def read_geometry(path: Path | str) -> Geometry:
    """Read a CrystFEL ``.geom`` file.

    Values that the file gives as HDF5 paths stay open: ``clen_m`` is NaN and ``photon_energy_ev`` None until
    ``resolve_geometry`` or ``open_run`` fills them in.

    Raises
    ------
    GeometryError
        The file is missing, no text, does not parse, or describes no usable detector.

    """
    path = Path(path)
    text = read_text(
        path,
        kind="geometry file",
        error=GeometryError,
        max_bytes=MAX_FILE_BYTES,
        remedy="Give the CrystFEL .geom file, not a data file.",
    )
    return parse_geometry(text, source=path)


def parse_geometry(text: str, *, source: Path | None = None) -> Geometry:
    """Parse the text of a CrystFEL geometry file, as a stream embeds it; see :func:`read_geometry`."""
    where = source if source is not None else "geometry text"
    try:
        plain, extras = normalise_text(text)
        detector = _load(plain)
        geometry = _build(detector, extras, text, source)
        _check_stack(geometry)
    except GeometryError as error:
        raise GeometryError(
            error.what, where=where, expected=error.expected, found=error.found, remedy=error.remedy
        ) from error
    except (ArithmeticError, ValueError, TypeError, LookupError, RuntimeError, MemoryError) as error:
        raise GeometryError(
            f"does not parse: {type(error).__name__}, {_shorten(error)}", where=where
        ) from error
    return geometry


def _load(plain: str) -> dict[str, Any]:
    with warnings.catch_warnings():  # importing it warns about its own deprecated TypedDict
        warnings.simplefilter("ignore", DeprecationWarning)
        from cfelpyutils.geometry.crystfel_utils import load_crystfel_geometry
    try:
        detector: dict[str, Any] = load_crystfel_geometry(io.StringIO(plain)).detector
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
        raise GeometryError(f"does not parse: {_shorten(error)}") from error
    return detector


def _shorten(error: Exception) -> str:
    text = re.sub(r"\{.*\}", "…", " ".join(str(part) for part in error.args))
    return text if len(text) < 300 else f"{text[:300]}…"


def _build(detector: dict[str, Any], extras: GeometryExtras, text: str, source: Path | None) -> Geometry:
    raw = detector["panels"]
    _check_directions(raw, extras)
    paths = {entry["data"] for entry in raw.values()}
    groups = _panel_groups(extras.groups, raw)
    panels = tuple(_panel(name, entry, extras, groups, len(paths) > 1) for name, entry in raw.items())
    clen_path, clen_unit = _clen_source({name: extras.clens.get(name, "") for name in raw})
    geometry = Geometry(
        panels=panels,
        bad_regions=_bad_regions(detector["bad"], extras, panels),
        photon_energy_ev=extras.photon_energy_ev,
        photon_energy_path=extras.photon_energy_path,
        photon_energy_unit=extras.photon_energy_unit,
        clen_path=clen_path,
        clen_unit=clen_unit,
        data_path=paths.pop() or None if len(paths) == 1 else None,
        flag_less_than=extras.flags.get("flag_lessthan"),
        flag_more_than=extras.flags.get("flag_morethan"),
        flag_equal=extras.flags.get("flag_equal"),
        dim_layout=_dim_layout(raw) if extras.has_dims else (),
        peak_list_path=extras.peak_list_path,
        bandwidth=extras.bandwidth,
        groups=_hierarchy(extras, panels),
        text=text,
        source=source,
    )
    geometry = with_masks(geometry, _masks(raw, extras))
    return resolve_geometry(geometry, photon_energy_ev=extras.photon_energy_ev)


def _panel(
    name: str, raw: dict[str, Any], extras: GeometryExtras, groups: dict[str, str], own_data: bool
) -> Panel:
    _check_panel(name, raw)
    scale = extras.scales[name][-1]
    per_metre = float(raw["res"])
    per_ev = raw["adu_per_eV"] if scale == "adu_per_eV" else None
    shift_x, shift_y = (extras.shift_m.get(axis, 0.0) * per_metre for axis in "xy")
    return Panel(
        name=name,
        min_fs=raw["orig_min_fs"],
        max_fs=raw["orig_max_fs"],
        min_ss=raw["orig_min_ss"],
        max_ss=raw["orig_max_ss"],
        corner_x=raw["cnx"] + shift_x,
        corner_y=raw["cny"] + shift_y,
        fs_vec=(raw["fsx"], raw["fsy"], raw["fsz"]),
        ss_vec=(raw["ssx"], raw["ssy"], raw["ssz"]),
        pixel_size_m=1.0 / per_metre,
        clen_m=math.nan if raw["clen_from"] else raw["clen"] + raw["coffset"],
        adu_per_photon=raw["adu_per_photon"] if scale == "adu_per_photon" else 1.0,
        stack_index=tuple(entry for entry in raw["dim_structure"] if isinstance(entry, int)),
        coffset_m=raw["coffset"],
        group=groups.get(name, ""),
        adu_per_ev=per_ev,
        data_path=raw["data"] or None if own_data else None,
        max_adu=raw["max_adu"] if math.isfinite(raw["max_adu"]) else None,
    )


def _clen_source(clens: dict[str, str]) -> tuple[str | None, str]:
    """Return the HDF5 path of all panels' camera length and its unit; None where each panel has a number of its own.

    Raises
    ------
    GeometryError
        Panels have several paths, or some a path and others a number: a run gives one camera length per frame.

    """
    first: dict[str, str] = {}
    for name, text in clens.items():
        first.setdefault(text, name)
    paths = [text for text in first if text.startswith("/")]
    if paths and len(first) > 1:
        raise GeometryError(
            "panels name different camera lengths",
            expected="one path for all panels, or a number for each",
            found=", ".join(f"{name}: {text}" for text, name in list(first.items())[:3]),
            remedy="Give one path above the panels and the differences as coffset, or numbers; or process each detector alone.",
        )
    path, _, unit = paths[0].partition(" ") if paths else ("", "", "mm")
    return path or None, unit


def _check_panel(name: str, raw: dict[str, Any]) -> None:
    where = f"panel {name}"
    for key, field in (("corner_x", "cnx"), ("corner_y", "cny"), ("res", "res")):
        if not math.isfinite(raw[field]):
            raise GeometryError(
                f"{where} has no usable {key}", found=raw[field], remedy=f"Add '{name}/{key} = …'."
            )
    if raw["res"] <= 0:
        raise GeometryError(f"{where} has no usable res", expected="pixels per metre > 0", found=raw["res"])
    if math.isnan(raw["clen"]) and not raw["clen_from"]:
        raise GeometryError(f"{where} has no clen", remedy="Add 'clen = 0.1 m' above the panels.")
    for axis in ("fs", "ss"):
        low, high = raw[f"orig_min_{axis}"], raw[f"orig_max_{axis}"]
        if low < 0 or high < low:
            raise GeometryError(f"{where} has no pixels along {axis}", found=f"min {low}, max {high}")
    if math.isnan(raw["adu_per_photon"]) and math.isnan(raw["adu_per_eV"]):
        raise GeometryError(f"{where} has no intensity scale", remedy="Add adu_per_photon or adu_per_eV.")
    for key in ("adu_per_photon", "adu_per_eV"):
        if not (math.isnan(raw[key]) or LEAST_SCALE < raw[key] < 1.0 / LEAST_SCALE):
            raise GeometryError(f"{where} has no usable {key}", expected="a number above 0", found=raw[key])


def _check_directions(panels: dict[str, Any], extras: GeometryExtras) -> None:
    """Raise GeometryError where panels have no fs or ss, which the library takes as +x and +y."""
    without = {name: [a for a in ("fs", "ss") if a not in extras.directions[name]] for name in panels}
    missing = [f"{name}/{axis}" for name, axes in without.items() for axis in axes]
    if missing:
        raise GeometryError(
            "panels without a direction",
            expected="the direction of fs and of ss, such as 'fs = +1.0x +0.0y'",
            found=f"no {', '.join(missing[:8])}{' …' if len(missing) > 8 else ''}",
            remedy="Add them; names of keys are in small letters.",
        )


def _panel_groups(groups: dict[str, list[str]], panels: dict[str, Any]) -> dict[str, str]:
    for name, members in groups.items():
        unknown = [m for m in members if m not in panels and m not in groups]
        if unknown:
            raise GeometryError(f"group {name} names unknown panels or groups", found=", ".join(unknown[:5]))
    lowest = sorted(groups.items(), key=lambda item: -len(item[1]))
    return {member: name for name, members in lowest for member in members if member in panels}


def _hierarchy(extras: GeometryExtras, panels: tuple[Panel, ...]) -> Groups:
    """Return the ``group_`` lines; of the older ``rigid_group`` lines, which may overlap, only the lowest groups."""
    given = tuple((name, tuple(extras.groups[name])) for name in extras.groups if name in extras.hierarchy)
    return given or groups_of_panels(panels)


def _dim_layout(panels: dict[str, Any]) -> tuple[str, ...]:
    layouts = {
        tuple("n" if isinstance(d, int) else d for d in raw["dim_structure"]) for raw in panels.values()
    }
    if len(layouts) > 1:
        raise GeometryError("panels differ in the order of their dimensions", found=sorted(layouts))
    layout = layouts.pop()
    if layout.index("fs") < layout.index("ss"):
        raise GeometryError(
            "fs comes before ss", found=layout, remedy="Fast scan is the faster dimension: swap them."
        )
    return layout


def _masks(panels: dict[str, Any], extras: GeometryExtras) -> tuple[MaskLayer, ...]:
    layers: list[MaskLayer] = []
    for number in range(8):
        found = {_mask(raw, f"mask{number}", extras) for raw in panels.values()} - {None}
        if len(found) > 1:
            raise GeometryError(f"mask{number} differs between panels", found=sorted(str(m) for m in found))
        layers += [mask for mask in found if mask is not None]
    return tuple(layers)


def _mask(raw: dict[str, Any], name: str, extras: GeometryExtras) -> MaskLayer | None:
    if not raw[f"{name}_data"]:
        return None
    file = raw[f"{name}_file"] or None
    if name not in extras.masks_with_bits:
        return MaskLayer(raw[f"{name}_data"], file)
    return MaskLayer(raw[f"{name}_data"], file, raw[f"{name}_goodbits"], raw[f"{name}_badbits"])


def _bad_regions(
    raw: dict[str, Any], extras: GeometryExtras, panels: tuple[Panel, ...]
) -> tuple[BadRegion, ...]:
    regions = [
        _bad_region(name, region, extras.bad_keys.get(name, set()), panels) for name, region in raw.items()
    ]
    for panel in panels:
        if extras.ignored_panels.get(panel.name, False):
            regions.append(_rectangle(f"bad_no_index_{panel.name}", panel))
        regions += _edge_regions(panel, extras.edges.get(panel.name, 0))
    return tuple(regions)


def _bad_region(name: str, raw: dict[str, Any], keys: set[str], panels: tuple[Panel, ...]) -> BadRegion:
    axes = ("fs", "ss") if raw["is_fsss"] else ("x", "y")
    missing = [f"{end}_{axis}" for axis in axes for end in ("min", "max") if f"{end}_{axis}" not in keys]
    if missing:
        raise GeometryError(f"bad region {name} is incomplete", remedy=f"Add {', '.join(missing)}.")
    if raw["panel"] and raw["panel"] not in {p.name for p in panels}:
        raise GeometryError(f"bad region {name} names an unknown panel", found=raw["panel"])
    (a, b) = axes
    return BadRegion(
        name,
        raw["panel"] or None,
        bool(raw["is_fsss"]),
        float(raw[f"min_{a}"]),
        float(raw[f"max_{a}"]),
        float(raw[f"min_{b}"]),
        float(raw[f"max_{b}"]),
    )


def _rectangle(name: str, panel: Panel, **limits: int) -> BadRegion:
    edges = {
        "min_fs": panel.min_fs,
        "max_fs": panel.max_fs,
        "min_ss": panel.min_ss,
        "max_ss": panel.max_ss,
    } | limits
    return BadRegion(
        name, panel.name, True, edges["min_fs"], edges["max_fs"], edges["min_ss"], edges["max_ss"]
    )


def _edge_regions(panel: Panel, width: int) -> list[BadRegion]:
    if width <= 0:
        return []
    limits = {
        "left": {"max_fs": panel.min_fs + width - 1},
        "right": {"min_fs": panel.max_fs - width + 1},
        "low": {"max_ss": panel.min_ss + width - 1},
        "high": {"min_ss": panel.max_ss - width + 1},
    }
    return [_rectangle(f"bad_edge_{side}_{panel.name}", panel, **limit) for side, limit in limits.items()]


def _check_stack(geometry: Geometry) -> None:
    n_panels, n_ss, n_fs = geometry.stack_shape
    if n_panels * n_ss * n_fs > MAX_STACK_PIXELS:
        raise GeometryError(
            "the detector is absurdly large",
            expected=f"≤ {MAX_STACK_PIXELS} pixels",
            found=f"{n_panels} × {n_ss} × {n_fs}",
            remedy="Check max_fs and max_ss.",
        )
