"""Text files mean the same whatever editor, system or language wrote them."""

import pytest

from peaknet_pipeline.errors import CellError, GeometryError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.stream_read import read_stream
from peaknet_pipeline.labels.exclusions import read_exclusions
from peaknet_pipeline.store.settings_text import read_settings_text
from peaknet_pipeline.text_files import decode_text
from peaknet_pipeline.yaml_files import read_yaml

GEOM = """; µ in a comment, Überlänge
clen = 0.1
photon_energy = 9500
adu_per_eV = 0.001
res = 10000
p0/min_fs = 0
p0/max_fs = 9
p0/min_ss = 0
p0/max_ss = 7
p0/corner_x = -5
p0/corner_y = -4
p0/fs = +1.0x
p0/ss = +1.0y
"""
CELL = """CrystFEL unit cell file version 1.0
; Zelle für µ-Kristalle
lattice_type = tetragonal
centering = P
unique_axis = c
a = 79.1 A
b = 79.1 A
c = 37.9 A
al = 90 deg
be = 90 deg
ga = 90 deg
"""
PDB = "REMARK 200 é\nCRYST1   79.100   79.100   37.900  90.00  90.00  90.00 P 43 21 2     8\nEND\n"
STREAM = f"""CrystFEL stream format 2.3
----- Begin geometry file -----
{GEOM}----- End geometry file -----
----- Begin chunk -----
Image filename: /data/é/run.cxi
Event: //4
photon_energy_eV = 9500
average_camera_length = 0.1 m
num_peaks = 0
----- End chunk -----
"""
EXCLUDED = "exp/r0001 3-5 # Ünruhig\nexp/r0002 # leer\n"
SETTINGS = "finder: {threshold: 12}  # für µ\nname: Ü\n"

FORMS = {
    "plain": lambda text: text.encode(),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "old Mac": lambda text: text.replace("\n", "\r").encode(),
    "latin-1": lambda text: text.encode("latin-1"),
    "Windows' Unicode": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "no last newline": lambda text: text.rstrip("\n").encode(),
    "all at once": lambda text: text.rstrip("\n").replace("\n", "\r\n").encode("cp1252"),
}


@pytest.fixture(params=FORMS, name="write")
def written_in_a_form(request, tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_bytes(FORMS[request.param](text))
        return path

    return write


def test_geometries_cells_and_lists_read_the_same(write):
    (panel,) = read_geometry(write("a.geom", GEOM)).panels
    assert (panel.max_fs, panel.max_ss, panel.clen_m, panel.ss_vec) == (9, 7, 0.1, (0.0, 1.0, 0.0))
    for name, text in (("a.cell", CELL), ("a.pdb", PDB)):
        cell = read_cell(write(name, text))
        assert (cell.a, cell.c, cell.gamma, cell.lattice_type) == (79.1, 37.9, 90.0, "tetragonal")
        assert (cell.centering, cell.unique_axis) == ("P", "c")
    excluded = read_exclusions(write("excluded.txt", EXCLUDED))
    assert excluded.frames == {"exp/r0001": [(3, 5, "Ünruhig")]}
    assert excluded.runs == {"exp/r0002": "leer"}


def test_settings_read_the_same(write):
    path = write("experiment.yaml", SETTINGS)
    assert read_settings_text(path).values == {"finder": {"threshold": 12}, "name": "Ü"}
    assert read_yaml(path, error=GeometryError) == {"finder": {"threshold": 12}, "name": "Ü"}


def test_streams_read_the_same(write):
    stream = read_stream(write("a.stream", STREAM))
    assert stream.image_path == {4: "/data/é/run.cxi"}
    assert len(stream.geometry.panels) == 1


def test_null_bytes_are_no_text(tmp_path):
    for name, reader, error in (("a.geom", read_geometry, GeometryError), ("a.cell", read_cell, CellError)):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n\0\0\0")
        with pytest.raises(error, match="not a text file"):
            reader(tmp_path / name)
        with pytest.raises(error, match="no such"):
            reader(tmp_path / f"other-{name}")
    with pytest.raises(ValueError, match="null bytes"):
        decode_text(b"\xff\xfe\0\0")


def test_characters_of_windows_do_not_break_lines():
    assert decode_text(b"; wait\x85 \x80 \x81\nclen = 1") == "; wait… € \x81\nclen = 1"
