"""Units are read however they are spelled, and a unit that is not known is never guessed."""

import numpy as np
import pytest

from peaknet_pipeline.runs.units import JOULE_EV, electronvolts_per, metres_per, radians_per


@pytest.mark.parametrize(
    ("metres", "spellings"),
    [
        (1.0, ("m", "metre", "meters", "Metres", " m ")),
        (1e-3, ("mm", "millimeter", "millimetres", "MM")),
        (1e-2, ("cm", "centimeter")),
        (1e-6, ("um", "µm", "μm", "micron", "microns", "micrometer", "Micrometres")),
        (1e-9, ("nm", "nanometer", "nanometres")),
        (1e-10, ("angstrom", "Angstroms", "A", "Å", "å", "\u212b", "Ångström", "ang")),
        (1e-12, ("pm", "picometer")),
    ],
)
def test_lengths_are_known_by_short_and_long_names(metres: float, spellings: tuple[str, ...]) -> None:
    assert [metres_per(unit) for unit in spellings] == pytest.approx([metres] * len(spellings))


@pytest.mark.parametrize(
    ("electronvolts", "spellings"),
    [
        (1.0, ("eV", "ev", "electronvolt", "electron volts")),
        (1e3, ("keV", "kev", "kiloelectronvolt")),
        (1e6, ("MeV", "megaelectronvolt")),
        (JOULE_EV, ("J", "joule", "Joules")),
        (1e-15 * JOULE_EV, ("fJ", "femtojoule")),
    ],
)
def test_energies_are_known_by_short_and_long_names(electronvolts: float, spellings: tuple[str, ...]) -> None:
    assert [electronvolts_per(unit) for unit in spellings] == pytest.approx([electronvolts] * len(spellings))


def test_angles_are_degrees_or_radians() -> None:
    assert radians_per("degrees") == radians_per("deg") == radians_per("°") == pytest.approx(np.pi / 180)
    assert radians_per("radians") == radians_per("rad") == 1.0
    assert radians_per("mrad") == pytest.approx(1e-3)


@pytest.mark.parametrize("unit", ["", "furlong", "xm", "eVm", "counts", "pixel", "m/s", "1"])
def test_what_is_no_unit_is_told_apart(unit: str) -> None:
    assert metres_per(unit) is None
    assert electronvolts_per(unit) is None
    assert radians_per(unit) is None
