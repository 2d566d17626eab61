"""Pixel values that an NXmx file doesn't trust are bad, or saturated, with and without a geometry file."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.geometry.usable import flag_unusable, usable_values
from peaknet_pipeline.runs.open import open_run

SHAPE = (2, 6, 8)
SATURATION, UNDERLOAD = "saturation_value", "underload_value"
CUTOFF = "countrate_correction_count_cutoff"


def write_master(path: Path, dtype: str, fields: dict[str, object]) -> Path:
    """Write frames of 5 counts with a description of the detector and some ``fields``; a slash makes a group."""
    with h5py.File(path, "w") as file:
        file["entry/definition"] = "NXmx"
        file["entry/data/data"] = np.full(SHAPE, 5, dtype)
        file["entry/instrument/beam/incident_wavelength"] = 1.0
        detector = file.create_group("entry/instrument/detector")
        places = {"beam_center_x": 4.0, "beam_center_y": 3.0, "detector_distance": 0.1, "x_pixel_size": 75e-6}
        for name, value in places.items():
            detector[name] = value
        for name, value in fields.items():
            detector[name] = value
    return path


def flags_of(geometry):
    return geometry.flag_less_than, geometry.flag_more_than, geometry.flag_equal, geometry.saturation_adu


@pytest.mark.parametrize(
    ("dtype", "fields", "expected"),
    [
        ("uint16", {}, (None, None, 65535.0, None)),
        ("uint32", {SATURATION: 1_000_000}, (None, None, 2.0**32 - 1, 1e6)),
        ("int16", {}, (-32767.0, None, 32767.0, None)),
        ("int16", {UNDERLOAD: -100, SATURATION: 32000.0}, (-100.0, None, 32767.0, 32000.0)),
        ("int32", {UNDERLOAD: 0, f"detectorSpecific/{CUTOFF}": 12440}, (0.0, None, 2.0**31 - 1, 12440.0)),
        ("uint16", {SATURATION: 60000, CUTOFF: 12440}, (None, None, 65535.0, 12440.0)),
        ("uint16", {CUTOFF: 12440, "countrate_correction_applied": 0}, (None, None, 65535.0, None)),
        ("float32", {UNDERLOAD: -10.0, SATURATION: 1e5}, (-10.0, None, None, 1e5)),
    ],
)  # fmt: skip
def test_limits_of_the_file_are_flags_and_saturation(tmp_path, dtype, fields, expected):
    with open_run(write_master(tmp_path / "m.h5", dtype, fields)) as run:
        geometry = run.geometry
        assert flags_of(geometry) == expected
        assert not [doubt for doubt in run.doubts if "without a unit" not in doubt]
    write_geometry(geometry, tmp_path / "out.geom")
    assert flags_of(read_geometry(tmp_path / "out.geom")) == expected


def test_marks_are_bad_and_saturated_pixels_stay_usable(tmp_path):
    fields = {"underload_value": -100, "saturation_value": 20000}
    with open_run(write_master(tmp_path / "m.h5", "int16", fields)) as run:
        frame = np.array([[[[-32768, -101, -100, 5, 20000, 32766, 32767]]]], np.int16)
        assert flag_unusable(frame, run.usable).ravel().tolist() == [
            True,
            True,
            False,
            False,
            False,
            False,
            True,
        ]


def test_a_geometry_files_own_flags_count_before_the_runs(tmp_path):
    path = write_master(tmp_path / "m.h5", "int16", {"underload_value": -100, "saturation_value": 20000})
    with open_run(path) as run:
        plain = run.geometry
    write_geometry(plain, tmp_path / "g.geom")
    own = [
        line
        for line in (tmp_path / "g.geom").read_text().splitlines()
        if "flag_" not in line and "max_adu" not in line
    ]
    for name, more, expected in (
        ("bare.geom", [], (-100.0, None, 32767.0, 20000.0)),
        ("full.geom", ["flag_lessthan = -5", "flag_equal = 7", "max_adu = 900"], (-5.0, None, 7.0, 900.0)),
    ):
        (tmp_path / name).write_text("\n".join([*more, *own]))
        with open_run(path, tmp_path / name) as run:
            assert flags_of(run.geometry) == expected
            assert run.usable == usable_values(run.geometry).of("int16")


@pytest.mark.parametrize(
    ("fields", "doubt"),
    [
        ({"underload_value": 10, "saturation_value": 10}, "underload_value 10 is not below the saturation value 10"),
        ({"saturation_value": np.nan}, "saturation_value is not a finite number"),
        ({"saturation_value": "many"}, "saturation_value is not a finite number"),
        ({"underload_value": [1, 2]}, "underload_value is not a finite number"),
    ],
)  # fmt: skip
def test_limits_that_contradict_themselves_are_doubted_and_left_out(tmp_path, fields, doubt):
    with open_run(write_master(tmp_path / "m.h5", "uint16", fields)) as run:
        assert flags_of(run.geometry) == (None, None, 65535.0, None)
        assert any(doubt in sentence for sentence in run.doubts)
