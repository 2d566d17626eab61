"""What the parsing library leaves out of CrystFEL's geometry language: units, groups, flags, edges, shifts.

The rest of the text is normalised to ``key = value`` lines for :mod:`cfelpyutils`. Facts:
crystfel_geometry(5).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.types import HC_EV_ANGSTROM

_NUMBER = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)$")
_EXPONENT = re.compile(r"(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+")
_LENGTHS_M = {"m": 1.0, "mm": 1e-3, "": 1.0}
_OLD_MASK_NAMES = {
    "mask": "mask0_data",
    "mask_file": "mask0_file",
    "mask_good": "mask0_goodbits",
    "mask_bad": "mask0_badbits",
}
_USED = re.compile(
    r"(min|max)_(fs|ss)|fs|ss|corner_[xy]|res|clen|coffset|adu_per_(eV|photon)|max_adu|data|dim\d"
    r"|mask[0-7]_(data|file|goodbits|badbits)|flag_(lessthan|morethan|equal)|mask_edge_pixels|no_index"
    r"|photon_energy|wavelength|electron_voltage|detector_shift_[xy]|peak_list|peak_list_type|bandwidth"
)
"""Keys of panels and of the whole detector that are read."""
SCALES = ("adu_per_eV", "adu_per_photon")
_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "false", "no"}


@dataclass
class GeometryExtras:
    """What was read beside the library: see the fields of the same name in ``types.Geometry``.

    ``clens`` has each panel's camera length as ``/path unit`` or a length in metres; "" is that of the panels to come.
    """

    photon_energy_ev: float | None = None
    photon_energy_path: str | None = None
    photon_energy_unit: str = "eV"
    clens: dict[str, str] = field(default_factory=dict)
    flags: dict[str, float] = field(default_factory=dict)
    edges: dict[str, int] = field(default_factory=dict)
    ignored_panels: dict[str, bool] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    hierarchy: set[str] = field(default_factory=set)
    shift_m: dict[str, float] = field(default_factory=dict)
    bad_keys: dict[str, set[str]] = field(default_factory=dict)
    has_dims: bool = False
    directions: dict[str, set[str]] = field(default_factory=lambda: {"": set()})
    scales: dict[str, list[str]] = field(default_factory=lambda: {"": []})
    masks_with_bits: set[str] = field(default_factory=set)
    peak_list_path: str | None = None
    bandwidth: float | None = None


def normalise_text(text: str) -> tuple[str, GeometryExtras]:
    """Split a geometry file's text into lines for the library and what the library doesn't know.

    Raises
    ------
    GeometryError
        A line is no ``key = value``, or a value has no meaning; the message names the line's number.

    """
    extras = GeometryExtras()
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        content = line.split(";", 1)[0].strip()
        if not content:
            continue
        name, equals, value = (part.strip() for part in content.partition("="))
        if not equals or not name or not value:
            raise GeometryError(f"line {number} is not 'key = value'", found=repr(content[:80]))
        owner, _, key = name.rpartition("/")
        try:
            kept = _normalise(owner.strip(), key.strip(), value, extras)
        except GeometryError as error:
            raise GeometryError(
                f"line {number}: {error.what}",
                expected=error.expected,
                found=error.found,
                remedy=error.remedy,
            ) from error
        if kept is not None:
            lines.append(f"{owner.strip()}/{kept}" if owner else kept)
    return "\n".join(lines) + "\n", extras


def unused_keys(text: str) -> list[str]:
    """Return the keys of a geometry file's text that have no effect here: misspelt ones, and what is left out on purpose."""
    found: dict[str, None] = {}
    for line in text.split("\n"):
        owner, _, key = line.split(";", 1)[0].partition("=")[0].strip().rpartition("/")
        key = _OLD_MASK_NAMES.get(key.strip(), key.strip())
        grouping = not owner and key.startswith(("group_", "rigid_group"))
        if key and not (owner.startswith("bad") or grouping or _USED.fullmatch(key)):
            found[key] = None
    return list(found)


def has_two_scales(text: str) -> bool:
    """Return whether a geometry file's text gives adu_per_eV and adu_per_photon, of which the last counts for each panel."""
    keys = (line.split(";", 1)[0].partition("=")[0].rpartition("/")[2].strip() for line in text.split("\n"))
    return set(SCALES) <= set(keys)


def parse_length_m(value: str) -> float:
    """Read a length such as ``0.1``, ``0.1 m`` or ``100 mm`` in metres."""
    number, unit = _split_number(value, "a length such as '0.1 m'")
    if unit not in _LENGTHS_M:
        raise GeometryError("unknown unit of length", expected="m or mm", found=repr(value))
    return number * _LENGTHS_M[unit]


def energy_ev(value: float, unit: str) -> float:
    """Convert a photon energy (eV, keV) or a wavelength (A, m) to a photon energy in eV.

    Raises
    ------
    GeometryError
        The unit is unknown or the value not positive.

    """
    converters: dict[str, Callable[[float], float]] = {
        "eV": lambda x: x,
        "keV": lambda x: 1e3 * x,
        "MeV": lambda x: 1e6 * x,
        "A": lambda x: HC_EV_ANGSTROM / x,
        "m": lambda x: HC_EV_ANGSTROM / (1e10 * x),
    }
    if unit not in converters:
        raise GeometryError("unknown unit of photon energy", expected="eV, keV, A or m", found=repr(unit))
    if not (np.isfinite(value) and value > 0):
        raise GeometryError("photon energy or wavelength is not positive", found=value)
    return converters[unit](value)


def _normalise(owner: str, key: str, value: str, extras: GeometryExtras) -> str | None:
    if owner.startswith("bad"):
        extras.bad_keys.setdefault(owner, set()).add(key)
        return f"{key} = {_whole(value) if key.endswith(('_fs', '_ss')) else value}"
    if owner:
        _inherit(owner, extras)
    if key in _PANEL_EXTRAS:
        _PANEL_EXTRAS[key](owner, key, value, extras)
        return None
    if key == "clen":
        return _read_clen(owner, value, extras)
    if not owner and key in _TOP_EXTRAS:
        _TOP_EXTRAS[key](key, value, extras)
        return None
    if not owner and key.startswith(("group_", "rigid_group")):
        _read_group(key, value, extras)
        return None
    return _normalise_panel(owner, key, value, extras)


def _inherit(owner: str, extras: GeometryExtras) -> None:
    if owner not in extras.directions:
        extras.edges[owner] = extras.edges.get("", 0)
        extras.ignored_panels[owner] = extras.ignored_panels.get("", False)
        extras.clens[owner] = extras.clens.get("", "")
        extras.directions[owner] = set(extras.directions[""])
        extras.scales[owner] = list(extras.scales[""])


def _normalise_panel(owner: str, key: str, value: str, extras: GeometryExtras) -> str:
    key = _OLD_MASK_NAMES.get(key, key)
    if re.fullmatch(r"dim\d", key):
        extras.has_dims = True
    if re.fullmatch(r"mask\d_(good|bad)bits", key):
        extras.masks_with_bits.add(key[:5])
        return f"{key} = {_bits(value)}"
    if key in ("min_fs", "max_fs", "min_ss", "max_ss"):
        return f"{key} = {_whole(value)}"
    if key in SCALES:
        extras.scales[owner].append(key)
    if key in ("fs", "ss"):
        extras.directions[owner].add(key)
        return f"{key} = {_positional(value)}"
    if key == "coffset":
        return f"{key} = {parse_length_m(value)!r}"
    if key in ("corner_x", "corner_y", "res", "adu_per_eV", "adu_per_photon", "max_adu"):
        _check_number(key, value)
    return f"{key} = {value}"


def _check_number(key: str, value: str) -> None:
    number, _ = _split_number(value, "a number")
    if key == "res" and not number > 0:
        raise GeometryError("no usable res", expected="pixels per metre > 0", found=repr(value))


def _read_clen(owner: str, value: str, extras: GeometryExtras) -> str:
    if value.startswith("/"):
        path, _, unit = value.partition(" ")
        unit = unit.strip() or "mm"
        if unit not in ("m", "mm"):
            raise GeometryError("unknown unit of clen", expected="m or mm", found=repr(unit))
        extras.clens[owner] = f"{path} {unit}"
        return f"clen = {path}"
    extras.clens[owner] = f"{parse_length_m(value)!r} m"
    return f"clen = {parse_length_m(value)!r}"


def _read_energy(key: str, value: str, extras: GeometryExtras) -> None:
    default = {"photon_energy": "eV", "wavelength": "m"}[key]
    if value.startswith("/"):
        path, _, unit = value.partition(" ")
        extras.photon_energy_path, extras.photon_energy_unit = path, unit.strip() or default
        extras.photon_energy_ev = None
        energy_ev(1.0, extras.photon_energy_unit)
        return
    number, unit = _split_number(value, f"a {key} with its unit")
    extras.photon_energy_ev = energy_ev(number, unit or default)
    extras.photon_energy_path = None


def _read_electrons(key: str, value: str, extras: GeometryExtras) -> None:
    raise GeometryError("electron diffraction is not supported", found=f"{key} = {value}")


def _read_shift(key: str, value: str, extras: GeometryExtras) -> None:
    if value.startswith("/"):
        raise GeometryError(
            "a detector shift per frame is not supported",
            found=value,
            remedy="Give it as a number, or remove it.",
        )
    extras.shift_m[key[-1]] = parse_length_m(value)


def _read_peak_list(key: str, value: str, extras: GeometryExtras) -> None:
    extras.peak_list_path = value


def _read_bandwidth(key: str, value: str, extras: GeometryExtras) -> None:
    extras.bandwidth = _split_number(value, "a fraction")[0]


def _read_group(key: str, value: str, extras: GeometryExtras) -> None:
    name = key.removeprefix("rigid_group_collection_").removeprefix("rigid_group_").removeprefix("group_")
    extras.groups[name] = [member.strip() for member in value.split(",") if member.strip()]
    if key.startswith("group_"):
        extras.hierarchy.add(name)


def _read_flag(owner: str, key: str, value: str, extras: GeometryExtras) -> None:
    number = _split_number(value, "a number")[0]
    known = extras.flags.setdefault(key, number)
    if known != number:
        raise GeometryError(
            f"{key} differs between panels", expected=known, found=number, remedy="Give it once."
        )


def _read_edge(owner: str, key: str, value: str, extras: GeometryExtras) -> None:
    extras.edges[owner] = int(_whole(value))


def _read_no_index(owner: str, key: str, value: str, extras: GeometryExtras) -> None:
    word = value.lower()
    if word not in _TRUE | _FALSE:
        raise GeometryError("no_index is neither true nor false", expected="0 or 1", found=repr(value))
    extras.ignored_panels[owner] = word in _TRUE


_PANEL_EXTRAS: dict[str, Callable[[str, str, str, GeometryExtras], None]] = {
    "flag_lessthan": _read_flag,
    "flag_morethan": _read_flag,
    "flag_equal": _read_flag,
    "mask_edge_pixels": _read_edge,
    "no_index": _read_no_index,
}

_TOP_EXTRAS: dict[str, Callable[[str, str, GeometryExtras], None]] = {
    "photon_energy": _read_energy,
    "wavelength": _read_energy,
    "electron_voltage": _read_electrons,
    "detector_shift_x": _read_shift,
    "detector_shift_y": _read_shift,
    "peak_list": _read_peak_list,
    "bandwidth": _read_bandwidth,
}


def _split_number(value: str, expected: str) -> tuple[float, str]:
    match = _NUMBER.match(value)
    if match is None:
        raise GeometryError("not a number", expected=expected, found=repr(value))
    return float(match.group(1)), match.group(2)


def _whole(value: str) -> int:
    number, unit = _split_number(value, "a whole number")
    if unit or number != int(number):
        raise GeometryError("not a whole number", found=repr(value))
    return int(number)


def _bits(value: str) -> int:
    try:
        return int(value, 0)
    except ValueError as error:
        raise GeometryError(
            "mask bits are not a whole number", expected="e.g. 0xff", found=repr(value)
        ) from error


def _positional(value: str) -> str:
    """Make a vector safe for the library: it splits at exponents' signs and keeps defaults of absent axes."""
    plain = _EXPONENT.sub(lambda m: np.format_float_positional(float(m.group(0))), value.replace(" ", ""))
    return plain + "".join(f"+0{axis}" for axis in "xyz" if axis not in plain)
