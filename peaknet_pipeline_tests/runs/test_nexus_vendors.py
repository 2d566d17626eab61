"""NXmx as vendors and facilities write it: other units, orders, names and gaps; read right, doubted or refused by name."""

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.maps import peak_positions_m
from peaknet_pipeline.runs.inspect import Inspection, inspect_path
from peaknet_pipeline.runs.nexus_modules import Module, slow_first
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.steps.geometry_file import write_run_geometry
from peaknet_pipeline.types import HC_EV_ANGSTROM
from peaknet_pipeline_tests.runs.test_nexus import write_master

DETECTOR = "entry/instrument/detector"


def edited(folder: Path, edit: Callable[[h5py.File], None], *, modules: bool = False) -> Inspection:
    """Write a master, change it and inspect it."""
    write_master(folder, modules=modules)
    with h5py.File(folder / "run_master.h5", "a") as file:
        edit(file)
    return inspect_path(folder / "run_master.h5")


def put(file: h5py.File, path: str, value: object, units: str | None = None) -> None:
    """Write a data set anew, with its unit."""
    if path in file:
        del file[path]
    file[path] = value
    if units is not None:
        file[path].attrs["units"] = units


@pytest.mark.parametrize(
    ("value", "units", "energy_ev"),
    [
        (0.13, "nm", HC_EV_ANGSTROM / 1.3),
        (130.0, "picometers", HC_EV_ANGSTROM / 1.3),
        (1.3e-10, "m", HC_EV_ANGSTROM / 1.3),
        (9.5, "keV", 9500.0),
    ],
)
def test_a_wavelength_counts_in_its_own_unit(
    tmp_path: Path, value: float, units: str, energy_ev: float
) -> None:
    path = "entry/instrument/beam/incident_wavelength"
    report = edited(tmp_path, lambda f: put(f, path, value, units))
    assert report.facts["photon energy, eV"] == pytest.approx([energy_ev] * 2)
    assert not report.doubts


@pytest.mark.parametrize(
    "path",
    [
        "entry/instrument/beam/incident_wavelength",
        f"{DETECTOR}/detector_distance",
        f"{DETECTOR}/x_pixel_size",
        f"{DETECTOR}/beam_center_y",
    ],
)
def test_a_unit_that_is_not_known_is_refused_by_its_name(tmp_path: Path, path: str) -> None:
    report = edited(tmp_path, lambda f: f[path].attrs.__setitem__("units", "furlong"))
    assert not report.is_usable
    assert re.search(rf"/{path} has an unknown unit.*'furlong'", report.problems[0])


def test_a_wavelength_without_a_unit_is_doubted(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda f: put(f, "entry/instrument/beam/incident_wavelength", 1.3))
    assert report.facts["photon energy, eV"] == pytest.approx([HC_EV_ANGSTROM / 1.3] * 2)
    assert any("incident_wavelength is without a unit: read as Å" in doubt for doubt in report.doubts)


@pytest.mark.parametrize("place", ["entry/sample/beam", "entry/instrument/undulator"])
def test_the_beam_is_found_by_its_class(tmp_path: Path, place: str) -> None:
    def move(file: h5py.File) -> None:
        file["entry"].create_group("sample").attrs["NX_class"] = "NXsample"
        file.move("entry/instrument/beam", place)
        file[place].attrs["NX_class"] = "NXbeam"

    report = edited(tmp_path, move)
    assert report.facts["photon energy, eV"] == pytest.approx([HC_EV_ANGSTROM / 1.3] * 2)


@pytest.mark.parametrize(
    ("entry", "detector"), [("entry", "ELE_D0"), ("entry_0000", "detector"), ("scan_7", "JF07T32V01")]
)
def test_entry_and_detector_are_found_by_their_class(tmp_path: Path, entry: str, detector: str) -> None:
    def rename(file: h5py.File) -> None:
        file.move(DETECTOR, f"entry/instrument/{detector}")
        for name, kind in (
            (f"entry/instrument/{detector}", "NXdetector"),
            ("entry/instrument", "NXinstrument"),
        ):
            file[name].attrs["NX_class"] = kind
        if entry != "entry":
            file.move("entry", entry)

    edited(tmp_path, rename)
    with open_run(tmp_path / "run_master.h5") as run:
        assert run.info.file_format == "nxmx"
        assert run.n_frames == 5
        assert run.geometry is not None
        assert run.geometry.panels[0].clen_m == pytest.approx(0.12)
        assert np.argwhere(run.bad_pixels).tolist() == [[0, 4, 5]]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("detector_distance", np.nan, "detector_distance is nan, not a positive length"),
        ("detector_distance", 0.0, "detector_distance is 0, not a positive length"),
        ("detector_distance", -120.0, "detector_distance is -120, not a positive length"),
        ("beam_center_x", np.nan, r"beam_center_x is not set \(NaN\)"),
        ("x_pixel_size", 0.0, "x_pixel_size is 0"),
        ("y_pixel_size", np.nan, "y_pixel_size is nan"),
    ],
)
def test_a_field_that_is_not_set_is_named(tmp_path: Path, name: str, value: float, words: str) -> None:
    report = edited(tmp_path, lambda f: put(f, f"{DETECTOR}/{name}", value))
    assert report.is_usable
    assert any(re.search(words, doubt) for doubt in report.doubts)
    assert "camera length, m" not in report.facts


def test_a_beam_centre_that_nobody_set_is_doubted(tmp_path: Path) -> None:
    def zero(file: h5py.File) -> None:
        for axis in "xy":
            file[f"{DETECTOR}/beam_center_{axis}"][...] = 0.0

    assert any(
        "beam_center_x and beam_center_y are both 0" in doubt for doubt in edited(tmp_path, zero).doubts
    )


def test_a_geometry_that_is_doubted_is_written_with_the_doubt_and_one_that_is_not_there_says_why(
    tmp_path: Path,
) -> None:
    master = tmp_path / "run_master.h5"
    edited(tmp_path, lambda f: put(f, f"{DETECTOR}/y_pixel_size", 150.0, "um"))
    told = write_run_geometry(master, geometry=None, out=tmp_path / "a.geom")
    assert any("y_pixel_size 150 µm differ" in doubt for doubt in told["doubts"])
    edited(tmp_path, lambda f: put(f, f"{DETECTOR}/detector_distance", np.nan))
    with pytest.raises(GeometryError, match=r"the run carries no geometry, found .*detector_distance is nan"):
        write_run_geometry(master, geometry=None, out=tmp_path / "b.geom")


def test_a_beam_centre_in_metres_is_the_same_as_in_pixels(tmp_path: Path) -> None:
    def metres(file: h5py.File) -> None:
        put(file, f"{DETECTOR}/beam_center_x", 14.5 * 75e-6, "m")
        put(file, f"{DETECTOR}/beam_center_y", 9.0 * 75e-3, "mm")

    edited(tmp_path, metres)
    with open_run(tmp_path / "run_master.h5") as run:
        assert run.geometry is not None
        assert run.geometry.panels[0].corner_x == pytest.approx(14.5)
        assert run.geometry.panels[0].corner_y == pytest.approx(9.0)


def test_oblong_pixels_keep_their_places(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda f: put(f, f"{DETECTOR}/y_pixel_size", 150.0, "um"))
    assert any("x_pixel_size 75 µm and y_pixel_size 150 µm differ" in doubt for doubt in report.doubts)
    with open_run(tmp_path / "run_master.h5") as run:
        geometry = run.geometry
    assert geometry is not None
    # Pixel (ss 9, fs 14.5) in corner coordinates is the beam; 10 pixels further in ss are 1.5 mm.
    positions = peak_positions_m(geometry, np.zeros(2, int), np.full(2, 14.0), np.array([8.5, 18.5]))
    np.testing.assert_allclose(positions, [[0, 0, 0.12], [0, -1.5e-3, 0.12]], atol=1e-12)


@pytest.mark.parametrize("link", [h5py.SoftLink("/nowhere"), h5py.SoftLink("../detectorSpecific/pixel_mask")])
def test_a_mask_link_that_leads_nowhere_is_doubted(tmp_path: Path, link: h5py.SoftLink) -> None:
    def dangle(file: h5py.File) -> None:
        del file[f"{DETECTOR}/pixel_mask"]
        file[f"{DETECTOR}/pixel_mask"] = link

    report = edited(tmp_path, dangle)
    assert report.facts["mask"] is None
    assert any("pixel_mask is a link that leads nowhere" in doubt for doubt in report.doubts)


def turn_modules(file: h5py.File) -> None:
    """Write the modules' fields fast before slow, as DECTRIS's own masters do."""
    for number in (0, 1):
        for name in ("data_origin", "data_size"):
            field = file[f"{DETECTOR}/module{number}/{name}"]
            field[...] = field[()][::-1]


def test_module_fields_in_fast_slow_order_give_the_same_detector(tmp_path: Path) -> None:
    write_master(tmp_path, modules=True)
    with open_run(tmp_path / "run_master.h5") as run:
        right, frames = run.geometry, run.read(0, 5)
    report = edited(tmp_path, turn_modules, modules=True)
    assert not report.doubts
    with open_run(tmp_path / "run_master.h5") as run:
        assert run.geometry is not None
        assert right is not None
        assert run.geometry.panels == right.panels
        assert np.array_equal(run.read(0, 5), frames)


@pytest.mark.parametrize("turned", [False, True])
def test_where_both_orders_fit_the_modules_places_decide(turned: bool) -> None:
    """A square detector of two landscape modules, one below the other, as the laboratory has them."""
    px = 75e-6
    modules = [
        Module(
            np.array([8 * k, 0]),
            np.array([8, 16]),
            np.array([0.01, 0.01 - 8 * k * px, 0.1]),
            np.array([-px, 0, 0]),
            np.array([0, -px, 0]),
        )
        for k in (0, 1)
    ]
    given = [m.reversed() for m in modules] if turned else modules
    ordered = slow_first(given, (16, 16))
    assert ordered is not None
    assert [m.origin.tolist() for m in ordered] == [[0, 0], [8, 0]]
    assert [m.size.tolist() for m in ordered] == [[8, 16], [8, 16]]


def test_a_module_that_is_not_placed_behind_the_sample_is_doubted(tmp_path: Path) -> None:
    report = edited(
        tmp_path, lambda f: f[f"{DETECTOR}/transformations/distance"].__setitem__((), np.nan), modules=True
    )
    assert report.is_usable
    assert any("transformations/distance is not set (NaN)" in doubt for doubt in report.doubts)
    assert report.facts["panels"] == 1  # the flat detector of beam centre and distance


def test_a_module_before_the_sample_is_doubted(tmp_path: Path) -> None:
    report = edited(
        tmp_path, lambda f: f[f"{DETECTOR}/transformations/distance"].__setitem__((), -200.0), modules=True
    )
    assert any(re.search(r"module0 is placed at .* not behind the sample", doubt) for doubt in report.doubts)
