"""CrystFEL geometry files: what they say is what is read, and what is wrong is named."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.crystfel import parse_geometry, read_geometry
from peaknet_pipeline.geometry.crystfel_text import unused_keys
from peaknet_pipeline.geometry.crystfel_write import format_geometry, write_geometry
from peaknet_pipeline.geometry.resolve import resolve_geometry, without_paths
from peaknet_pipeline.runs.inspect import geometry_doubts
from peaknet_pipeline.types import ALL_BITS, HC_EV_ANGSTROM, Geometry, MaskLayer
from peaknet_pipeline_tests.geometry.detectors import geometries

HEADER = "photon_energy = 9500 eV\nclen = 0.1 m\nres = 10000\nadu_per_photon = 2\n"
PANEL = """
p0/min_fs = 0
p0/max_fs = 9
p0/min_ss = 0
p0/max_ss = 4
p0/corner_x = -5
p0/corner_y = -2.5
p0/fs = x
p0/ss = y
"""


def _fields(geometry: Geometry) -> dict[str, object]:
    values = {f.name: getattr(geometry, f.name) for f in dataclasses.fields(geometry)}
    return {k: v for k, v in values.items() if k not in ("text", "source", "panels", "bad_regions")}


def _assert_same_detector(one: Geometry, other: Geometry) -> None:
    assert [p.name for p in one.panels] == [p.name for p in other.panels]
    for a, b in zip(one.panels, other.panels, strict=True):
        for field in dataclasses.fields(a):
            first, second = getattr(a, field.name), getattr(b, field.name)
            if isinstance(first, float):
                assert second == pytest.approx(first, rel=1e-14, abs=1e-15, nan_ok=True), field.name
            else:
                assert first == second, field.name
    assert one.bad_regions == other.bad_regions


@given(geometries())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(geometry: Geometry) -> None:
    _assert_same_detector(geometry, parse_geometry(format_geometry(geometry)))


@pytest.mark.parametrize(
    "name",
    [
        "crystfel_simulated/jf4m.geom",
        "crystfel_simulated/sim1k.geom",
        "pilatus6m/crystfel_run.geom",
        "pilatus6m/still.geom",
        "snase/stills.geom",
        "thaumatin/stills.geom",
    ],
)
def test_real_geometries_survive_a_round_trip(realdata: Path, tmp_path: Path, name: str) -> None:
    geometry = read_geometry(realdata / name)
    write_geometry(geometry, tmp_path / "again.geom")
    again = read_geometry(tmp_path / "again.geom")
    _assert_same_detector(geometry, again)
    kept = _fields(geometry)
    kept["dim_layout"] = kept["dim_layout"] or ("%", "ss", "fs")
    assert _fields(again) == kept


def test_real_values_are_those_of_the_file(realdata: Path) -> None:
    jungfrau = read_geometry(realdata / "crystfel_simulated" / "jf4m.geom")
    assert jungfrau.stack_shape == (8, 514, 1030)
    assert jungfrau.panels[5].min_ss == 2570
    assert jungfrau.panels[5].corner_x == 33.06873
    assert jungfrau.panels[5].fs_vec == (0.9999983, 0.0018203, 0.0)
    assert {p.group for p in jungfrau.panels} == {"q0", "q1"}
    assert jungfrau.mask_path == "/entry_1/data_1/mask"
    assert jungfrau.mask_bad_bits == 0xFF
    assert jungfrau.peak_list_path == "/entry_1/result_1"
    pilatus = read_geometry(realdata / "pilatus6m" / "crystfel_run.geom")
    assert len(pilatus.bad_regions) == 15
    assert pilatus.panels[0].adu_per_photon == pytest.approx(0.000083 * 12000)
    stills = read_geometry(realdata / "snase" / "stills.geom")
    assert (stills.flag_less_than, stills.flag_more_than) == (1.0, 65500.0)
    assert stills.panels[0].fs_vec == (-0.99982673, -0.01679880, -0.00801971)


@pytest.mark.parametrize(
    ("line", "metres"),
    [("clen = 0.25", 0.25), ("clen = 250 mm", 0.25), ("clen = 0.25 m", 0.25), ("clen=2.5e-1 m ; note", 0.25)],
)
def test_camera_lengths_take_their_units(line: str, metres: float) -> None:
    geometry = parse_geometry(HEADER.replace("clen = 0.1 m", line) + "coffset = 10 mm\n" + PANEL)
    assert geometry.panels[0].clen_m == pytest.approx(metres + 0.01)
    assert geometry.panels[0].coffset_m == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("line", "ev"),
    [
        ("photon_energy = 9500", 9500.0),
        ("photon_energy = 9.5 keV", 9500.0),
        ("wavelength = 1.3 A", HC_EV_ANGSTROM / 1.3),
        ("wavelength = 1.3e-10 m", HC_EV_ANGSTROM / 1.3),
    ],
)
def test_photon_energies_and_wavelengths_take_their_units(line: str, ev: float) -> None:
    geometry = parse_geometry(HEADER.replace("photon_energy = 9500 eV", line) + PANEL)
    assert geometry.photon_energy_ev == pytest.approx(ev)


def test_values_at_hdf5_paths_stay_open_until_resolved() -> None:
    text = "photon_energy = /LCLS/photon_energy_eV\nclen = /LCLS/detector_1/EncoderValue mm\n"
    text += "res = 10000\nadu_per_eV = 0.001\ncoffset = 0.5\n" + PANEL
    geometry = parse_geometry(text)
    assert geometry.photon_energy_path == "/LCLS/photon_energy_eV"
    assert geometry.clen_path == "/LCLS/detector_1/EncoderValue"
    assert geometry.clen_unit == "mm"
    assert geometry.photon_energy_ev is None
    assert math.isnan(geometry.panels[0].clen_m)
    resolved = resolve_geometry(geometry, photon_energy_ev=8000.0, clen_m=-0.4)
    assert resolved.panels[0].clen_m == pytest.approx(0.1)
    assert resolved.panels[0].adu_per_photon == pytest.approx(8.0)
    again = parse_geometry(format_geometry(geometry))
    assert _fields(again) == {**_fields(geometry), "dim_layout": ("%", "ss", "fs")}


@pytest.mark.parametrize(
    ("top", "first", "second", "found"),
    [
        ("", "/LCLS/front mm", "/LCLS/back mm", "p0: /LCLS/front mm, p1: /LCLS/back mm"),
        ("", "/LCLS/front mm", "0.5 m", "p0: /LCLS/front mm, p1: 0.5 m"),
        ("", "500 mm", "/LCLS/front m", "p0: 0.5 m, p1: /LCLS/front m"),
        ("", "/LCLS/front mm", "/LCLS/front m", "p0: /LCLS/front mm, p1: /LCLS/front m"),
        ("clen = /LCLS/front\n", "", "0.5", "p0: /LCLS/front mm, p1: 0.5 m"),
    ],
)
def test_panels_with_camera_lengths_at_several_places_are_refused_naming_both(
    top: str, first: str, second: str, found: str
) -> None:
    own = "".join(f"p{i}/clen = {text}\n" for i, text in enumerate((first, second)) if text)
    text = HEADER.replace("clen = 0.1 m\n", top) + PANEL + PANEL.replace("p0", "p1") + own
    with pytest.raises(GeometryError, match=f"different camera lengths.*found {found}"):
        parse_geometry(text)


def test_panels_with_camera_lengths_of_their_own_keep_them() -> None:
    own = "p0/clen = 0.1\np1/clen = 500 mm\n"
    geometry = parse_geometry(HEADER + PANEL + PANEL.replace("p0", "p1") + own)
    for one in (geometry, parse_geometry(format_geometry(geometry))):
        assert [panel.clen_m for panel in one.panels] == pytest.approx([0.1, 0.5])
    path = HEADER.replace("0.1 m", "/LCLS/front") + PANEL + PANEL.replace("p0", "p1") + own
    assert parse_geometry(path).clen_path is None


def test_an_unknown_camera_length_is_never_written() -> None:
    geometry = parse_geometry(HEADER.replace("0.1 m", "/LCLS/front") + PANEL)
    with pytest.raises(GeometryError, match="camera length is not known"):
        format_geometry(dataclasses.replace(geometry, clen_path=None))
    with pytest.raises(GeometryError, match=r"camera length \(/LCLS/front\) is not known"):
        without_paths(geometry)


def test_a_module_dimension_becomes_the_stack_index() -> None:
    panels = "".join(PANEL.replace("p0", f"m{i}") + f"m{i}/dim1 = {i}\n" for i in range(3))
    geometry = parse_geometry(HEADER + "data = /d\ndim0 = %\ndim2 = ss\ndim3 = fs\n" + panels)
    assert geometry.dim_layout == ("%", "n", "ss", "fs")
    assert [p.stack_index for p in geometry.panels] == [(0,), (1,), (2,)]
    _assert_same_detector(geometry, parse_geometry(format_geometry(geometry)))


def test_masks_old_and_new_are_read_with_their_bits() -> None:
    old = parse_geometry(HEADER + "mask = /m\nmask_good = 1\nmask_bad = 0\nmask_file = m.h5\n" + PANEL)
    assert (old.mask_path, old.mask_file, old.mask_good_bits, old.mask_bad_bits) == ("/m", "m.h5", 1, 0)
    lines = (
        "mask0_data = /a\nmask0_badbits = 0xff\nmask0_goodbits = 0x00\nmask2_data = /b\nmask2_file = x.h5\n"
    )
    new = parse_geometry(HEADER + lines + PANEL)
    assert (new.mask_path, new.mask_good_bits, new.mask_bad_bits) == ("/a", 0, 0xFF)
    assert new.more_masks == (MaskLayer("/b", "x.h5"),)
    again = parse_geometry(format_geometry(new))
    assert again.more_masks == new.more_masks


def test_a_mask_without_bits_calls_everything_but_zero_bad() -> None:
    geometry = parse_geometry(HEADER + "mask = /m\n" + PANEL)
    assert (geometry.mask_good_bits, geometry.mask_bad_bits) == (0, ALL_BITS)


def test_ignored_panels_and_edges_become_bad_regions() -> None:
    other = PANEL.replace("p0", "p1").replace("corner_x = -5", "corner_x = 9")
    geometry = parse_geometry(HEADER + "mask_edge_pixels = 1\n" + PANEL + other + "p1/no_index = 1\n")
    from peaknet_pipeline.geometry.maps import geometry_bad_pixels

    bad = geometry_bad_pixels(geometry)
    assert bad[1].all()
    assert not bad[0, 1:-1, 1:-1].any()
    assert bad[0].sum() == 10 * 5 - 8 * 3


def test_no_index_zero_keeps_the_panel() -> None:
    assert parse_geometry(HEADER + PANEL + "p0/no_index = 0\n").bad_regions == ()


def test_a_detector_shift_moves_the_corners() -> None:
    geometry = parse_geometry(HEADER + "detector_shift_x = 1 mm\ndetector_shift_y = -0.0005\n" + PANEL)
    assert geometry.panels[0].corner_x == pytest.approx(-5 + 10)
    assert geometry.panels[0].corner_y == pytest.approx(-2.5 - 5)


def test_exponents_in_vectors_and_whole_numbers_with_a_point_are_read() -> None:
    text = HEADER + PANEL.replace("fs = x", "fs = +1.0x -3.2e-05y +1e-3z").replace(
        "max_fs = 9", "max_fs = 9.0"
    )
    panel = parse_geometry(text).panels[0]
    assert panel.fs_vec == (1.0, -3.2e-05, 1e-3)
    assert panel.max_fs == 9


def test_axes_that_a_vector_leaves_out_are_zero() -> None:
    panel = parse_geometry(HEADER + PANEL.replace("fs = x", "fs = -y").replace("ss = y", "ss = 1.5x")).panels[
        0
    ]
    assert (panel.fs_vec, panel.ss_vec) == ((0.0, -1.0, 0.0), (1.5, 0.0, 0.0))


def test_every_level_of_groups_and_each_panels_saturation_are_read_and_written_back() -> None:
    second = (
        PANEL.replace("p0/", "p1/").replace("min_ss = 0", "min_ss = 5").replace("max_ss = 4", "max_ss = 9")
    )
    levels = "group_a = p0\ngroup_b = p1\ngroup_half = a\ngroup_all = half,b\n"
    geometry = parse_geometry(HEADER + "max_adu = 7500\n" + levels + PANEL + second + "p1/max_adu = 900\n")
    assert geometry.groups == (("a", ("p0",)), ("b", ("p1",)), ("half", ("a",)), ("all", ("half", "b")))
    assert [(p.group, p.max_adu) for p in geometry.panels] == [("a", 7500.0), ("b", 900.0)]
    assert geometry.saturation_adu == 900.0
    again = parse_geometry(format_geometry(geometry))
    assert again.groups == geometry.groups
    assert [p.max_adu for p in again.panels] == [7500.0, 900.0]
    assert dataclasses.replace(geometry, flag_more_than=500.0).saturation_adu == 500.0
    assert parse_geometry(HEADER + PANEL).saturation_adu is None


def test_rigid_groups_of_older_files_become_groups_that_do_not_overlap() -> None:
    older = "rigid_group_q0 = p0,p1\nrigid_group_a0 = p0\nrigid_group_a1 = p1\nrigid_group_collection_both = a0,a1\n"
    second = (
        PANEL.replace("p0/", "p1/").replace("min_ss = 0", "min_ss = 5").replace("max_ss = 4", "max_ss = 9")
    )
    geometry = parse_geometry(HEADER + older + PANEL + second)
    assert geometry.groups == (("a0", ("p0",)), ("a1", ("p1",)), ("all", ("a0", "a1")))


def test_keys_without_effect_are_named() -> None:
    odd = (
        "saturation_map = /map\nbadrow_direction = x\nphoton_energi = 3\nrigid_group_q = p0\nmask_good = 1\n"
    )
    assert unused_keys(HEADER + odd + PANEL + "p0/cornerx = 3 ; typo\nbadA/min_fs = 3\n") == [
        "saturation_map",
        "badrow_direction",
        "photon_energi",
        "cornerx",
    ]


def test_the_text_is_kept_for_streams() -> None:
    assert parse_geometry(HEADER + PANEL).text == HEADER + PANEL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No panel descriptions"),
        ("hello\n", "line 1 is not 'key = value'"),
        (
            HEADER + PANEL.replace("p0/corner_x = -5\n", ""),
            "panel p0 has no usable corner_x.*Add 'p0/corner_x",
        ),
        (HEADER + PANEL.replace("= -2.5", "= wide"), "line 11: not a number.*found 'wide'"),
        (HEADER.replace("clen = 0.1 m\n", "") + PANEL, "has no clen"),
        (HEADER.replace("0.1 m", "0.1 inch") + PANEL, "unknown unit of length.*'0.1 inch'"),
        (HEADER.replace("9500 eV", "9500 J") + PANEL, "unknown unit of photon energy"),
        (HEADER.replace("9500 eV", "-9500 eV") + PANEL, "not positive"),
        (HEADER.replace("res = 10000\n", "") + PANEL, "resolution"),
        (HEADER.replace("res = 10000", "res = 0") + PANEL, "no usable res"),
        (HEADER.replace("adu_per_photon = 2\n", "") + PANEL, "no intensity scale"),
        (HEADER.replace("adu_per_photon = 2", "adu_per_photon = 0") + PANEL, "no usable adu_per_photon"),
        (HEADER.replace("adu_per_photon = 2", "adu_per_eV = -0.001") + PANEL, "no usable adu_per_eV"),
        (HEADER.replace("adu_per_photon = 2", "adu_per_photon = 1e-30") + PANEL, "no usable adu_per_photon"),
        (HEADER + PANEL.replace("max_fs = 9", "max_fs = -1"), "maximum fs"),
        (HEADER + PANEL.replace("min_fs = 0", "min_fs = 12"), "no pixels along fs.*min 12, max 9"),
        (HEADER + PANEL.replace("max_fs = 9", "max_fs = 999999999"), "absurdly large"),
        (HEADER + PANEL.replace("fs = x", "fs = w"), "does not parse.*Invalid"),
        (HEADER + PANEL.replace("ss = y", "ss = 2x"), "singular"),
        (HEADER + PANEL + "bad_a/min_x = 1\n", "bad region bad_a is incomplete.*max_x"),
        (HEADER + PANEL + "bad_a/min_x = 1\nbad_a/min_fs = 1\n", "mix x/y and fs/ss"),
        (
            HEADER
            + PANEL
            + "".join(f"bad_a/{e}_{a} = 1\n" for e in ("min", "max") for a in "xy")
            + "bad_a/panel = q\n",
            "unknown panel.*found q",
        ),
        (HEADER + "group_all = p0,p7\n" + PANEL, "group all names unknown panels or groups.*p7"),
        (HEADER + "dim0 = fs\ndim1 = ss\n" + PANEL, "fs comes before ss"),
        (HEADER + "dim0 = %\ndim2 = fs\n" + PANEL, "undefined"),
        (HEADER + "electron_voltage = 200 kV\n" + PANEL, "electron diffraction"),
        (HEADER + "mask0_data = /m\nmask0_badbits = lots\n" + PANEL, "mask bits"),
        (HEADER + PANEL + "p0/no_index = maybe\n", "no_index is neither"),
        (HEADER + "flag_lessthan = 0\n" + PANEL + "p0/flag_lessthan = 1\n", "differs between panels"),
        (HEADER + "detector_shift_x = /x\n" + PANEL, "shift per frame is not supported"),
        (HEADER + PANEL.replace("fs = x", "FS = x"), "panels without a direction.*no p0/fs. Add them"),
        (HEADER + "".join(ln + "\n" for ln in PANEL.splitlines() if "/ss" not in ln), "no p0/ss"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.geom"
    path.write_text(text)
    with pytest.raises(GeometryError, match=message) as caught:
        read_geometry(path)
    assert str(path) in str(caught.value)


def test_directions_above_the_panels_hold_for_those_that_follow() -> None:
    bare = "".join(line + "\n" for line in PANEL.splitlines() if not line.startswith(("p0/fs", "p0/ss")))
    geometry = parse_geometry(HEADER + "fs = -x\nss = -y\n" + bare)
    assert geometry.panels[0].fs_vec == (-1.0, 0.0, 0.0)
    assert geometry.panels[0].ss_vec == (0.0, -1.0, 0.0)
    with pytest.raises(GeometryError, match="no p0/fs, p0/ss"):
        parse_geometry(HEADER + bare + "fs = -x\nss = -y\n")


def test_of_two_intensity_scales_the_last_counts_as_in_crystfel_and_is_doubted() -> None:
    scales = ("adu_per_eV = 0.002\n", "adu_per_photon = 7\n")
    head = "".join(line + "\n" for line in HEADER.splitlines() if not line.startswith("adu_per"))
    for text, per_photon in (
        (head + "photon_energy = 1000\n" + "".join(scales) + PANEL, 7.0),
        (head + "photon_energy = 1000\n" + "".join(reversed(scales)) + PANEL, 2.0),
        (head + "photon_energy = 1000\n" + scales[0] + PANEL + "p0/" + scales[1], 7.0),
        (head + "photon_energy = 1000\n" + scales[1] + PANEL + "p0/" + scales[0], 2.0),
    ):
        geometry = parse_geometry(text)
        assert geometry.panels[0].adu_per_photon == per_photon
        assert any("are both given" in doubt for doubt in geometry_doubts(geometry))
    assert not any("both given" in doubt for doubt in geometry_doubts(parse_geometry(HEADER + PANEL)))


def test_files_that_are_no_geometry_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="no such geometry file"):
        read_geometry(tmp_path / "none.geom")
    (tmp_path / "data.h5").write_bytes(b"\x89HDF\r\n\x1a\n\x00\x00")
    with pytest.raises(GeometryError, match="not a text file"):
        read_geometry(tmp_path / "data.h5")


def test_random_damage_never_gives_another_error(tmp_path: Path) -> None:
    """Bit flips and cuts in a good file: it is read, or refused with a GeometryError, never a crash."""
    rng = np.random.default_rng(7)
    good = (HEADER + "dim0 = %\ndim1 = ss\ndim2 = fs\n" + PANEL).encode()
    path = tmp_path / "damaged.geom"
    refused = 0
    for _ in range(400):
        content = bytearray(good[: rng.integers(1, len(good) + 1)])
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(content)
        try:
            read_geometry(path)
        except GeometryError:
            refused += 1
    assert refused > 100
