"""Streams that other programs, older versions and `cat` made: the same lattices as those of our own."""

import re

import numpy as np
import pytest

from peaknet_pipeline.errors import GeometryError, IndexingError
from peaknet_pipeline.indexing.predict import table_axes
from peaknet_pipeline.indexing.stream_read import read_stream
from peaknet_pipeline_tests.indexing.spots import ENERGY_EV, flat_geometry
from peaknet_pipeline_tests.indexing.test_stream import indexed, write  # noqa: F401 (indexed is a fixture)


@pytest.fixture
def ours(indexed, tmp_path):  # noqa: F811
    return write(tmp_path / "ours.stream", indexed)


def changed(path, change, name="foreign.stream"):
    """Write a stream's changed text beside it; return its path."""
    other = path.with_name(name)
    other.write_text(change(path.read_text()))
    return other


def older(text, version):
    """Return a stream as an earlier CrystFEL wrote it: no panels; in 2.1 phase and count instead of peak and background."""
    lines, section = [], ""
    for line in text.replace("format 2.3", f"format {version}").splitlines():
        section = {"Peaks from": "peaks", "Reflections": "reflections", "End of": ""}.get(
            next((s for s in ("Peaks from", "Reflections", "End of") if line.startswith(s)), ""), section
        )
        row = line.split()
        if section and row and row[-1] in ("left", "right"):
            row = row[:-1]
            if section == "reflections" and version == "2.1":
                row = [*row[:4], "-", row[4], "1", *row[7:]]
            line = " ".join(row)
        lines.append(line)
    return "\n".join(lines) + "\n"


def same_lattices(a, b):
    assert np.allclose(table_axes(a.lattices), table_axes(b.lattices))
    assert list(a.lattices["n_explained"]) == list(b.lattices["n_explained"])
    assert np.allclose(a.lattices["residual"], b.lattices["residual"])


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_older_formats_give_the_same_tables(ours, version):
    known, read = read_stream(ours), read_stream(changed(ours, lambda text: older(text, version)))
    same_lattices(known, read)
    for name in ("frame", "panel", "fs", "ss", "intensity"):
        assert np.array_equal(known.peaks[name], read.peaks[name]), name
    for name in ("h", "k", "l", "panel", "fs", "ss", "intensity", "sigma"):
        assert np.array_equal(known.reflections[name], read.reflections[name]), name


@pytest.mark.parametrize(
    "line", ["CrystFEL stream format 2.0", "CrystFEL stream format 3.1", "CrystFEL stream format"]
)
def test_versions_that_are_not_known_are_named(ours, line):
    path = changed(ours, lambda text: text.replace("CrystFEL stream format 2.3", line, 1))
    with pytest.raises(
        IndexingError, match=r"foreign\.stream:1: a stream of another version.*2\.1, 2\.2, 2\.3"
    ):
        read_stream(path)


def test_a_frame_is_a_file_and_an_event(ours):
    def two_files(text):
        head, *chunks = text.split("----- Begin chunk -----\n")
        renamed = [
            re.sub(r"Event: //\d+", f"Event: //{n // 2}", re.sub(r"ours\.cxi", f"run{n % 2}.cxi", chunk))
            for n, chunk in enumerate(chunks)
        ]
        return "----- Begin chunk -----\n".join([head, *renamed])

    known, read = read_stream(ours), read_stream(changed(ours, two_files))
    assert [(read.image_path[n][-8:], read.event[n]) for n in range(4)] == [
        ("run0.cxi", "//0"), ("run1.cxi", "//0"), ("run0.cxi", "//1"), ("run1.cxi", "//1"),
    ]  # fmt: skip
    same_lattices(known, read)
    assert np.array_equal(known.peaks["frame"], read.peaks["frame"])


@pytest.mark.parametrize(
    ("events", "frames"),
    [
        (["//4", "//2", "//9", "//0"], [4, 2, 9, 0]),
        (["tag-7//", "tag-8//", "tag-9//", "tag-1//"], [0, 1, 2, 3]),
        (["a//5", "b//5", "a//6", "b//6"], [0, 1, 2, 3]),
        (["//5", "//5", "//6", "//7"], [0, 1, 2, 3]),
        (["", "", "", ""], [0, 1, 2, 3]),
    ],
)
def test_frames_have_their_events_numbers_or_those_of_the_chunks(ours, events, frames):
    def renamed(text):
        left = iter(events)
        return re.sub(r"Event: //\d+\n", lambda _: f"Event: {e}\n" if (e := next(left)) else "", text)

    read = read_stream(changed(ours, renamed))
    assert list(read.image_path) == frames
    assert [read.event[n] for n in frames] == events
    assert list(read.lattices["frame"]) == [frames[0], frames[2]]


def test_the_chunks_camera_length_counts_where_the_geometry_names_a_path(ours):
    clen = flat_geometry().panels[0].clen_m
    known = read_stream(ours)
    read = read_stream(
        changed(ours, lambda text: re.sub(r"(?m)^clen = .*$", "clen = /LCLS/encoder mm", text))
    )
    same_lattices(known, read)
    assert read.geometry.panels[0].clen_m == pytest.approx(clen, abs=1e-6)
    assert read.camera_length_m == pytest.approx(dict.fromkeys(range(4), clen), abs=1e-6)
    with pytest.raises(GeometryError):
        read_stream(
            changed(
                ours,
                lambda text: re.sub(
                    r"(?m)^average_camera_length.*\n", "", re.sub(r"(?m)^clen = .*$", "clen = /E mm", text)
                ),
            )
        )


def test_each_chunk_is_read_at_its_own_camera_length(ours):
    def moved(text):
        first, *others = text.split("average_camera_length = ")
        return "average_camera_length = ".join(
            [first, *(f"{float(o.split()[0]) * 1.05:.6f}{o[8:]}" for o in others[:1]), *others[1:]]
        )

    known, read = read_stream(ours), read_stream(changed(ours, moved))
    assert read.lattices["n_explained"][0] < known.lattices["n_explained"][0]
    assert read.lattices["n_explained"][1] == known.lattices["n_explained"][1]


def test_streams_joined_by_cat_are_read_with_the_geometry_of_each(ours):
    def joined(text):
        other = text.replace("ours.cxi", "other.cxi")
        return text + re.sub(r"(?m)^(\w+/corner_x = )(\S+)", lambda m: f"{m[1]}{float(m[2]) + 40}", other)

    known, read = read_stream(ours), read_stream(changed(ours, joined))
    assert len(read.image_path) == 2 * len(known.image_path)
    assert list(read.lattices["frame"]) == [0, 2, 4, 6]
    explained = list(known.lattices["n_explained"])
    assert list(read.lattices["n_explained"][:2]) == explained
    assert all(read.lattices["n_explained"][2:].to_numpy() < explained)


def test_joined_streams_of_different_detectors_are_refused(ours):
    other = changed(ours, lambda text: text + re.sub(r"\bleft\b", "gauche", text))
    with pytest.raises(IndexingError, match=r"different detectors.*left, right.*gauche, right.*one by one"):
        read_stream(other)


def test_a_stream_without_a_geometry_takes_a_given_one(ours):
    bare = changed(
        ours, lambda text: re.sub(r"(?s)----- Begin geometry.*End geometry file -----\n", "", text)
    )
    with pytest.raises(IndexingError, match=r"no embedded geometry.*Give the geometry"):
        read_stream(bare)
    same_lattices(read_stream(ours), read_stream(bare, geometry=flat_geometry()))


def test_a_chunk_without_photon_energy_has_the_geometrys(ours):
    text = re.compile(r"(?m)^photon_energy_eV.*\n")
    read = read_stream(changed(ours, lambda t: text.sub("", t)))
    expected = flat_geometry().photon_energy_ev
    assert expected is None or set(read.photon_energy_ev.values()) == {ENERGY_EV}


@pytest.mark.parametrize("axis", ["0 0 0", "nan 0 0", "1e400 0 0"])
def test_axes_that_span_no_cell_are_refused_with_their_line(ours, axis):
    path = changed(ours, lambda text: re.sub(r"(?m)^bstar = .* nm", f"bstar = {axis} nm", text))
    with pytest.raises(IndexingError, match=r"foreign\.stream:\d+: broken stream: cannot read"):
        read_stream(path)


def test_windows_line_ends_change_nothing(ours):
    other = ours.with_name("foreign.stream")
    other.write_bytes(ours.read_bytes().replace(b"\n", b"\r\n"))
    same_lattices(read_stream(ours), read_stream(other))
