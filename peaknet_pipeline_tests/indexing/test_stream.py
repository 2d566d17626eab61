"""Streams and the external engine."""

import os
import stat
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.indexing.cell import read_cell, write_cell
from peaknet_pipeline.indexing.indexamajig import IndexamajigParams, run_indexamajig
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.predict import predict_reflections, table_axes
from peaknet_pipeline.indexing.stream_file import StreamSource, write_stream
from peaknet_pipeline.indexing.stream_read import read_stream
from peaknet_pipeline_tests.indexing.spots import ENERGY_EV, LYSOZYME, flat_geometry, simulated_frames
from peaknet_pipeline_tests.indexing.test_lattice import peaks_of


@pytest.fixture(scope="module")
def indexed():
    geometry = flat_geometry()
    batch, _ = simulated_frames(LYSOZYME, n_frames=3, n_true=50, n_false=5, seed=21)
    peaks = peaks_of(batch, geometry)
    peaks = peaks[peaks["frame"] != 1].assign(intensity=12.5)
    lattices = index_peaks(peaks, geometry=geometry, photon_energy_ev=ENERGY_EV, cell=LYSOZYME)
    reflections = predict_reflections(
        lattices, cell=LYSOZYME, geometry=geometry, photon_energy_ev=ENERGY_EV, peaks=peaks
    )
    return geometry, peaks, lattices, reflections.assign(intensity=np.float32(50.0), sigma=np.float32(4.0))


def write(path, indexed):
    geometry, peaks, lattices, reflections = indexed
    write_stream(
        path,
        source=StreamSource(path.with_suffix(".cxi"), 4),
        geometry=geometry,
        cell=LYSOZYME,
        photon_energy_ev=ENERGY_EV,
        peaks=peaks,
        lattices=lattices,
        reflections=reflections,
    )
    return path


def test_streams_round_trip(indexed, tmp_path):
    _, peaks, lattices, reflections = indexed
    stream = read_stream(write(tmp_path / "a.stream", indexed))

    assert sorted(stream.photon_energy_ev) == [0, 1, 2, 3]
    assert list(stream.lattices["frame"]) == [0, 2]
    assert np.allclose(table_axes(stream.lattices), table_axes(lattices), atol=1e-8)
    for name in ("frame", "panel"):
        assert np.array_equal(stream.peaks[name], peaks[name])
    for name in ("fs", "ss"):
        assert np.allclose(stream.peaks[name], peaks[name], atol=0.006)
        assert np.allclose(stream.reflections[name], reflections[name], atol=0.06)
    for name in ("frame", "lattice", "h", "k", "l", "panel", "intensity", "sigma"):
        assert np.array_equal(stream.reflections[name], reflections[name])
    assert np.allclose(stream.reflections["excitation_error"], reflections["excitation_error"], atol=1e-6)
    assert stream.indexed_by[1] == "none"
    assert (stream.lattices["n_explained"] >= 0.8 * stream.lattices["n_peaks"]).all()
    assert [p.name for p in stream.geometry.panels] == ["left", "right"]


def test_several_crystals_of_a_frame_and_their_shifts_round_trip(indexed, tmp_path):
    geometry, peaks, lattices, reflections = indexed
    again = lattices.assign(lattice=1, shift_x_mm=np.float32(0.125), shift_y_mm=np.float32(-0.25))
    both = pd.concat([lattices, again]).sort_values(["frame", "lattice"], ignore_index=True)
    rows = pd.concat([reflections, reflections[::2].assign(lattice=1, peak=np.float32(99.5), background=3.0)])
    rows = rows.sort_values(["frame", "lattice"], kind="stable", ignore_index=True)
    stream = read_stream(write(tmp_path / "a.stream", (geometry, peaks, both, rows)))

    assert list(stream.lattices["lattice"]) == [0, 1, 0, 1]
    assert list(stream.lattices["shift_x_mm"]) == [0.0, 0.125, 0.0, 0.125]
    assert list(stream.lattices["shift_y_mm"]) == [0.0, -0.25, 0.0, -0.25]
    for name in ("frame", "lattice", "h", "k", "l", "panel"):
        assert np.array_equal(stream.reflections[name], rows[name])
    assert np.array_equal(stream.reflections["peak"], rows["peak"].fillna(0.0))
    assert np.array_equal(stream.reflections["background"], rows["background"].fillna(0.0))


def test_every_crystals_reflections_are_counted(indexed, tmp_path):
    text = write(tmp_path / "a.stream", indexed).read_text()
    counts = [int(line.split(" = ")[1]) for line in text.splitlines() if line.startswith("num_reflections")]

    assert counts == list(indexed[3].groupby("frame").size())
    assert sum(line.startswith("num_peaks = ") for line in text.splitlines()) == 4


def test_saturated_peaks_and_reflections_are_counted(indexed, tmp_path):
    geometry, peaks, lattices, reflections = indexed
    limited = replace(geometry, panels=tuple(replace(p, max_adu=900.0) for p in geometry.panels))
    level = np.where(np.arange(len(peaks)) % 3 == 0, 800.0, 700.0)
    measured = peaks.assign(max_intensity=level, background=100.0)
    strong = reflections.assign(peak=np.where(np.arange(len(reflections)) % 4 == 0, 900.0, 899.0))
    for about, expected in ((limited, (measured["max_intensity"] == 800.0).sum()), (geometry, 0)):
        text = write(tmp_path / "a.stream", (about, measured, lattices, strong)).read_text()
        words = text.replace(" = ", " ").split("\n")
        counts = {
            name: sum(int(line.split()[1]) for line in words if line.startswith(name))
            for name in ("num_saturated_peaks", "num_saturated_reflections")
        }
        assert counts["num_saturated_peaks"] == expected
        saturated = int((strong["peak"] >= 900.0).sum()) if expected else 0
        assert counts["num_saturated_reflections"] == saturated


def test_stream_positions_are_the_slabs_with_half_a_pixel(indexed, tmp_path):
    text = write(tmp_path / "a.stream", indexed).read_text()
    row = next(p for p in indexed[1].itertuples() if p.panel == 1)

    assert f"{row.fs + 0.5:7.2f} {row.ss + 1200.5:7.2f}" in text
    assert text.startswith("CrystFEL stream format 2.3\n")
    assert text.count("----- Begin chunk -----") == text.count("----- End chunk -----") == 4


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda t: "", "not a CrystFEL stream"),
        (lambda t: t[: t.rindex("End of reflections")], "broken stream: no line 'End of reflections'"),
        (lambda t: t.replace("bstar = ", "bstar = x"), "cannot read 'bstar"),
        (lambda t: t.replace("   left", "   lost"), "cannot read"),
    ],
)
def test_damaged_streams_say_where(damage, match, indexed, tmp_path):
    path = write(tmp_path / "a.stream", indexed)
    path.write_text(damage(path.read_text()))

    with pytest.raises(IndexingError, match=match):
        read_stream(path)


def test_frames_beyond_the_run_are_refused_and_leave_no_file(indexed, tmp_path):
    geometry, peaks, lattices, reflections = indexed
    with pytest.raises(IndexingError, match="frame beyond the run"):
        write_stream(
            tmp_path / "b.stream", source=StreamSource(tmp_path, 2), geometry=geometry, cell=LYSOZYME,
            photon_energy_ev=ENERGY_EV, peaks=peaks, lattices=lattices, reflections=reflections,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def lines_of(path, key):
    return [line.split(" = ")[1] for line in path.read_text().splitlines() if line.startswith(f"{key} = ")]


def test_streams_say_what_crystfel_asks_for(indexed, tmp_path):
    """Hits by the run's definition, a method that CrystFEL knows, the geometry's bandwidth as a fraction."""
    geometry, peaks, lattices, reflections = indexed
    path = tmp_path / "a.stream"
    counts = peaks.groupby("frame").size()
    for bandwidth, told in ((None, "1.00e-08 (fraction)"), (1e-3, "1.00e-03 (fraction)")):
        write(path, (replace(geometry, bandwidth=bandwidth), peaks, lattices, reflections))
        assert lines_of(path, "beam_bandwidth") == [told] * 4
    assert lines_of(path, "indexed_by") == ["file", "none", "file", "none"]
    write_stream(
        path, source=StreamSource(tmp_path, 4), geometry=geometry, cell=LYSOZYME, photon_energy_ev=ENERGY_EV,
        peaks=peaks, lattices=lattices, reflections=reflections, min_peaks=int(counts.max()),
        indexed_by={0: "xgandalf-nolatt-cell", 2: "asdf-nolatt-cell"},
    )  # fmt: skip
    hits = [int(counts.get(frame, 0) == counts.max()) for frame in range(4)]
    assert [int(value) for value in lines_of(path, "hit")] == hits
    assert 0 < sum(hits) < 4
    assert lines_of(path, "indexed_by") == ["xgandalf-nolatt-cell", "none", "asdf-nolatt-cell", "none"]


FAKE = """#!/bin/sh
echo "called with $*"
while [ $# -gt 0 ]; do [ "$1" = "-o" ] && out="$2"; shift; done
{body}
"""


@pytest.fixture
def engine(indexed, tmp_path, monkeypatch):
    """Put a stand-in for indexamajig on the PATH that does what ``body`` says, and return a caller."""
    write(tmp_path / "made.stream", indexed)
    (tmp_path / "in.cxi").write_bytes(b"cxi")
    write_geometry(indexed[0], tmp_path / "in.geom")
    write_cell(LYSOZYME, tmp_path / "in.cell")

    def call(body):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "indexamajig"
        program.write_text(FAKE.format(body=body))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return run_indexamajig(
            tmp_path / "in.cxi",
            geometry=tmp_path / "in.geom",
            cell=tmp_path / "in.cell",
            stream=tmp_path / "out.stream",
            params=IndexamajigParams(timeout_s=20.0),
        )

    return call


def test_indexamajigs_stream_becomes_the_same_table_and_its_log_is_kept(engine, indexed, tmp_path):
    stream = engine(f'cp "{tmp_path}/made.stream" "$out"')

    assert np.allclose(table_axes(stream.lattices), table_axes(indexed[2]), atol=1e-8)
    assert (tmp_path / "out.stream").is_file()
    assert "--peaks=cxi" in (tmp_path / "out.log").read_text()
    assert read_cell(tmp_path / "in.cell") == LYSOZYME


def test_a_failing_indexamajig_is_told_with_its_last_words(engine, tmp_path):
    with pytest.raises(IndexingError, match=r"failed with status 3: .*no such panel"):
        engine("echo 'no such panel' >&2; exit 3")
    assert not (tmp_path / "out.stream").exists()


def test_a_stream_that_breaks_off_is_not_kept(engine, tmp_path):
    with pytest.raises(IndexingError, match="broken stream"):
        engine(f'head -c 3000 "{tmp_path}/made.stream" > "$out"')
    assert not (tmp_path / "out.stream").exists()


def test_a_missing_indexamajig_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IndexingError, match=r"not on the PATH.*--engine lattice"):
        run_indexamajig(tmp_path, geometry=tmp_path, cell=tmp_path, stream=tmp_path / "x.stream")


def test_a_path_that_would_add_lines_to_the_list_is_refused(engine, tmp_path, indexed):
    engine(f'cp "{tmp_path}/made.stream" "$out"')
    folder = tmp_path / "a.cxi\n"
    folder.mkdir()
    (folder / "b.cxi").write_bytes(b"cxi")
    with pytest.raises(IndexingError, match="a path with line breaks"):
        run_indexamajig(
            folder / "b.cxi",
            geometry=tmp_path / "in.geom",
            cell=tmp_path / "in.cell",
            stream=tmp_path / "x.stream",
        )
