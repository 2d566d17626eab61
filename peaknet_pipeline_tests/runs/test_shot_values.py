"""Shots whose photon energy or camera length was not recorded."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.geometry.distance import camera_lengths_m
from peaknet_pipeline.runs.cxi import CLEN_PATH, ENERGY_PATH, write_cxi_peaks
from peaknet_pipeline.runs.inspect import inspect_path
from peaknet_pipeline.runs.joined import RunPart, join_runs
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.runs.shot_values import usable_camera_lengths, usable_energies
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import HC_EV_ANGSTROM
from peaknet_pipeline_tests.runs.files import slab_geometry, write_slab_run

NAN = float("nan")


def geometry_with(**values: str):
    """The slab's geometry with its camera length or photon energy elsewhere."""
    text = slab_geometry().text
    return parse_geometry(
        text.replace("photon_energy = 9500 eV", f"photon_energy = {values.get('energy', '9500 eV')}").replace(
            "clen = 0.1 m", f"clen = {values.get('clen', '0.1 m')}"
        )
    )


@pytest.mark.parametrize("bad", [0.0, NAN, -1.0, 1e-4, 9.5e9, float("inf")])
def test_a_shot_without_a_possible_energy_is_known_as_such_and_the_others_count(bad, tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    write_slab_run(path, values={"/energies": np.array([9000.0, bad, 9001.0, 9002.0])})
    geometry = geometry_with(energy="/energies")
    with open_run(path, geometry) as run:
        np.testing.assert_array_equal(run.photon_energy_ev, [9000.0, NAN, 9001.0, 9002.0])
        assert run.without_resolution.tolist() == [False, True, False, False]
        assert geometry_of(run).photon_energy_ev == 9001.0
    report = inspect_path(path, geometry)
    assert report.is_usable
    assert report.facts["frames without resolution"] == 1
    (doubt,) = [d for d in report.doubts if "photon energy" in d]
    assert "1 of 4 frames have no possible photon energy (frame 1)" in doubt


@pytest.mark.parametrize(("unit", "scale"), [("keV", 1e-3), ("eV", 1.0)])
def test_units_are_heeded_before_values_are_judged(unit: str, scale: float, tmp_path: Path) -> None:
    write_slab_run(tmp_path / "r.h5", values={"/energies": scale * np.array([9000.0, 0.0, 9001.0, 9002.0])})
    with open_run(tmp_path / "r.h5", geometry_with(energy=f"/energies {unit}")) as run:
        np.testing.assert_allclose(run.photon_energy_ev, [9000.0, NAN, 9001.0, 9002.0])


def test_wavelengths_of_zero_are_no_energies(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "r.h5", values={"/waves": np.array([1.3, 0.0, 1e-320, 1.3])})
    text = slab_geometry().text.replace("photon_energy = 9500 eV", "wavelength = /waves A")
    with open_run(tmp_path / "r.h5", parse_geometry(text)) as run:
        np.testing.assert_allclose(
            run.photon_energy_ev, [HC_EV_ANGSTROM / 1.3, NAN, NAN, HC_EV_ANGSTROM / 1.3]
        )


@pytest.mark.parametrize("bad", [NAN, 9999999.0, -99999.0, float("inf")])
def test_a_shot_without_a_possible_camera_length_is_known_as_such(bad: float, tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    write_slab_run(path, values={"/encoder": np.array([-420.0, bad, -421.0, -420.0])})
    text = slab_geometry().text.replace("clen = 0.1 m", "clen = /encoder mm\ncoffset = 0.52 m")
    geometry = parse_geometry(text)
    with open_run(path, geometry) as run:
        lengths = camera_lengths_m(geometry_of(run), np.arange(4))
        np.testing.assert_allclose(lengths, [0.1, NAN, 0.099, 0.1])
        assert run.without_resolution.tolist() == [False, True, False, False]
    doubts = " ".join(inspect_path(path, geometry).doubts)
    assert "1 of 4 frames have no possible camera length (frame 1)" in doubts
    assert "changes by 1.00 mm" in doubts


def test_a_run_without_any_possible_value_is_opened_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    write_slab_run(path, values={"/energies": np.zeros(4), "/encoder": np.full(4, NAN)})
    report = inspect_path(path, geometry_with(energy="/energies", clen="/encoder"))
    assert report.is_usable
    assert report.facts["frames without resolution"] == 4
    assert "The photon energy is not known at /energies in any frame" in " ".join(report.doubts)
    assert "The camera length is not known at /encoder in any frame" in " ".join(report.doubts)


def test_unusual_values_count_where_no_usual_ones_stand_beside_them() -> None:
    np.testing.assert_array_equal(usable_energies(np.array([500.0, 501.0, 0.0])), [500.0, 501.0, NAN])
    np.testing.assert_array_equal(usable_energies(np.array([9000.0, 501.0])), [9000.0, NAN])
    far = np.array([100.0, 100.0, NAN])
    np.testing.assert_array_equal(usable_camera_lengths(far, slab_geometry()), far)


def test_files_of_one_run_are_judged_together(tmp_path: Path) -> None:
    geometry = geometry_with(energy="/energies")
    for name, energy in (("a.h5", 9000.0), ("b.h5", 1e-4)):
        write_slab_run(tmp_path / name, values={"/energies": np.full(4, energy)})
    parts = [RunPart(open_run(tmp_path / name, geometry)) for name in ("a.h5", "b.h5")]
    with join_runs(parts, tmp_path / "a.h5", geometry=geometry) as run:
        assert run.without_resolution.tolist() == [False] * 4 + [True] * 4


def test_a_cxi_file_has_the_runs_median_where_a_shot_has_no_value_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    values = {
        "/energies": np.array([9000.0, 0.0, 9001.0, 9002.0]),
        "/clen": np.array([100.0, 101.0, NAN, 100.0]),
    }
    write_slab_run(path, values=values)
    with open_run(path, geometry_with(energy="/energies", clen="/clen mm")) as run:
        report = write_cxi_peaks(tmp_path / "p.cxi", empty_table(PEAKS), run)
    with h5py.File(tmp_path / "p.cxi") as file:
        np.testing.assert_allclose(file[ENERGY_PATH], [9000.0, 9001.0, 9001.0, 9002.0])
        np.testing.assert_allclose(file[CLEN_PATH], [100.0, 101.0, 100.0, 100.0])
        assert file[ENERGY_PATH].attrs["frames_at_median"].tolist() == [1]
        assert file[CLEN_PATH].attrs["frames_at_median"].tolist() == [2]
    text = report.geometry_path.read_text(encoding="utf-8")
    assert f"photon_energy = {ENERGY_PATH} eV" in text
    assert f"clen = {CLEN_PATH} mm" in text
    assert "nan" not in text


def test_what_no_frame_has_is_refused_by_name_in_a_cxi_files_geometry(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "r.h5", values={"/clen": np.full(4, NAN)})
    with (
        open_run(tmp_path / "r.h5", geometry_with(clen="/clen mm")) as run,
        pytest.raises(RunError, match=r"no frame has a camera length.*/clen"),
    ):
        write_cxi_peaks(tmp_path / "p.cxi", empty_table(PEAKS), run)
