"""Units as writers of HDF5 files spell them: lengths, angles and energies.

A unit that is written and not known is refused by its name: guessing would be silently wrong by a power of ten.
"""

import re
from typing import Any

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.attributes import attribute_text
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float64Array

JOULE_EV = 1.0 / 1.602176634e-19
_PREFIXES = {
    "f": 1e-15,
    "femto": 1e-15,
    "p": 1e-12,
    "pico": 1e-12,
    "n": 1e-9,
    "nano": 1e-9,
    "u": 1e-6,
    "\u00b5": 1e-6,
    "\u03bc": 1e-6,
    "micro": 1e-6,
    "m": 1e-3,
    "milli": 1e-3,
    "c": 1e-2,
    "centi": 1e-2,
    "": 1.0,
    "k": 1e3,
    "kilo": 1e3,
}
_SPECIAL_LENGTHS = {
    "a": 1e-10,
    "\u00e5": 1e-10,
    "ang": 1e-10,
    "angstrom": 1e-10,
    "angstroms": 1e-10,
    "\u00e5ngstr\u00f6m": 1e-10,
    "micron": 1e-6,
    "microns": 1e-6,
}
_LENGTH = re.compile(r"(?P<prefix>.*?)(m|meters?|metres?)")
_ENERGY = re.compile(r"(?P<prefix>.*?)(?P<unit>ev|electron[ -]?volts?|j|joules?)", re.IGNORECASE)
_ANGLES = {"deg": np.pi / 180, "degree": np.pi / 180, "\u00b0": np.pi / 180, "rad": 1.0, "radian": 1.0}
_ANGLES |= {"mrad": 1e-3, "milliradian": 1e-3, "urad": 1e-6, "\u00b5rad": 1e-6, "microradian": 1e-6}


def metres_per(unit: str) -> float | None:
    """Return a unit of length in metres, or None where the text is none; upper and lower case are the same."""
    text = unit.strip().lower()
    if text in _SPECIAL_LENGTHS:
        return _SPECIAL_LENGTHS[text]
    match = _LENGTH.fullmatch(text)
    return _PREFIXES.get(match["prefix"]) if match else None


def electronvolts_per(unit: str) -> float | None:
    """Return a unit of energy in eV, or None where the text is none; ``MeV`` is a million eV, ``meV`` a thousandth."""
    match = _ENERGY.fullmatch(unit.strip())
    if match is None:
        return None
    prefix = match["prefix"]
    scale = 1e6 if prefix in ("M", "mega", "Mega") else _PREFIXES.get(prefix.lower())
    joules = match["unit"].lower().startswith("j")
    return None if scale is None else scale * (JOULE_EV if joules else 1.0)


def radians_per(unit: str) -> float | None:
    """Return a unit of angle in radians, or None where the text is none."""
    text = unit.strip().lower()
    return _ANGLES.get(text, _ANGLES.get(text.removesuffix("s")))


def metres_of(files: LinkedFiles, dataset: Any, *, default: str = "m", attribute: str = "units") -> float:
    """Return the metres of a data set's unit of length; a unit that isn't written is ``default``, with a doubt.

    Raises
    ------
    RunError
        The unit is written and no unit of length.

    """
    unit = _written_unit(files, dataset, default, attribute)
    scale = metres_per(unit)
    if scale is None:
        raise unknown_unit(files, dataset, unit, "a unit of length, such as m, mm, µm, nm, pm or Å")
    return scale


def photon_energies_ev(
    files: LinkedFiles, dataset: Any, values: Float64Array, *, default: str
) -> Float64Array:
    """Return photon energies in eV from wavelengths or energies in the data set's unit; what is no number stays NaN.

    Raises
    ------
    RunError
        The unit is written and neither one of length nor one of energy.

    """
    unit = _written_unit(files, dataset, default, "units")
    length, energy = metres_per(unit), electronvolts_per(unit)
    if energy is not None:
        return values * energy
    if length is None:
        raise unknown_unit(
            files, dataset, unit, "a wavelength in Å, nm, pm or m, or an energy in eV, keV or J"
        )
    with np.errstate(divide="ignore"):
        return HC_EV_ANGSTROM / (values * (length * 1e10))


def unknown_unit(files: LinkedFiles, dataset: Any, unit: str, expected: str) -> RunError:
    """Return the error for a unit that is written and not known."""
    return RunError(
        f"{dataset.name} has an unknown unit",
        where=files.path,
        expected=expected,
        found=repr(unit),
        remedy="Give the value in a CrystFEL geometry file.",
    )


def _written_unit(files: LinkedFiles, dataset: Any, default: str, attribute: str) -> str:
    unit = attribute_text(dataset, attribute).strip()
    if not unit:
        files.doubt(f"{dataset.name} is without a unit: read as {default}.")
    return unit or default
