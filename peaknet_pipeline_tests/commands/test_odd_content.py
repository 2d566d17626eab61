"""Odd content of files is told in a line, and never reaches a terminal as a command."""

import io
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peaknet_pipeline.commands.tell import tell
from peaknet_pipeline.errors import GeometryError, RunError, TableError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.learn.checkpoint import SHIPPED_FOLDER, shipped_models
from peaknet_pipeline.runs.masks import read_mask
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import read_table, read_table_metadata
from peaknet_pipeline_tests.commands.test_cli import run
from peaknet_pipeline_tests.runs.files import slab_geometry

HOSTILE = "\x1b]0;taken\x07\x1b[31m"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "data" / "models" / "student-v0001"
    shutil.copytree(SHIPPED_FOLDER / shipped_models()[0], folder)
    return folder


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", "abc"), ("threshold", None), ("scores", [1]), ("scores", {"f1": "x"}), ("made", 5),
        ("name", 7), ("teacher", ["a"]), ("colour", "red"),
    ],
)  # fmt: skip
def test_the_list_of_models_names_a_model_whose_card_is_odd(model, field, value, capsys):
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps(card | {field: value}))
    shutil.copytree(SHIPPED_FOLDER / shipped_models()[0], model.with_name("student-v0002"))
    status, out, err = run(capsys, "models", "--data", str(model.parents[1]))
    assert (status, err) == (0, "")
    assert "cannot be used" in next(line for line in out.splitlines() if "student-v0001" in line)
    assert "cannot be used" not in next(line for line in out.splitlines() if "student-v0002" in line)
    status, out, _ = run(capsys, "inspect", str(model))
    assert status == 2 or field == "scores"
    assert "student-v0001" in out


def test_a_damaged_champion_pointer_is_a_line_of_the_list(model, capsys):
    (model.parent / "champion.json").write_bytes(b"\xff" + b"[" * 10_000)
    status, out, _ = run(capsys, "models", "--data", str(model.parents[1]))
    assert status == 0
    assert "champion.json" in out
    assert "student-v0001" in out


ODD = [b"", b"\xff\xfe\x00" * 50, b"PAR1" * 20, b"CrystFEL " * 5]


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(suffix, content) for suffix in (".cell", ".pdb", ".parquet", ".stream") for content in ODD]
    + [(".h5", b"\x89HDF\r\n\x1a\n" * 9), (".x" * 130, b"")],
)
def test_inspect_tells_of_any_file_and_never_fails(tmp_path, suffix, content, capsys):
    path = tmp_path / f"odd{suffix}"
    if len(suffix) < 200:
        path.write_bytes(content)
    status, out, err = run(capsys, "inspect", str(path))
    assert status == 2
    assert "problem" in out
    assert err == ""


def test_names_in_files_are_shown_escaped(tmp_path, capsys):
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file[f"/{HOSTILE}frames"] = np.zeros((3, 4, 5), "u2")
        file[f"/{HOSTILE}text"] = np.zeros((4, 5), "S3")
    (tmp_path / "d.geom").write_text(slab_geometry().text)
    for words in (
        ["inspect", str(path)],
        ["find", str(path), "--geometry", str(tmp_path / "d.geom"), "--out", str(tmp_path / "p.parquet")],
        ["inspect", str(tmp_path / f"{HOSTILE}.h5")],
    ):
        _, out, err = run(capsys, *words)
        assert r"\x1b]0;taken\x07" in out + err
        assert all(c.isprintable() or c in "\n\t" for c in out + err)


def test_every_word_of_a_command_goes_through_the_one_function_that_escapes():
    folder = Path(__file__).parents[2] / "peaknet_pipeline"
    for path in [folder / "cli.py", *(folder / "commands").glob("*.py")]:
        assert "click.echo" not in path.read_text() or path.name == "tell.py", path


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 4), [("a", "u1")]), np.full((3, 4), b"x"), np.zeros(12), np.uint8(1), np.zeros((0, 4)),
        np.zeros((1, 1, 3, 4)), np.zeros((3, 4), complex),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".h5", ".npy"])
def test_an_array_that_is_no_mask_is_refused(tmp_path, array, suffix):
    path = tmp_path / f"m{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        with h5py.File(path, "w") as file:
            file["/mask"] = array
    with pytest.raises(RunError, match=r"m\."):
        read_mask(path)


def test_a_numpy_header_that_claims_a_terabyte_takes_no_memory(tmp_path):
    header = b"{'descr': '<u1', 'fortran_order': False, 'shape': (1048576, 1048576), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    (tmp_path / "m.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(9)
    )
    with pytest.raises(RunError, match="not a numpy mask"):
        read_mask(tmp_path / "m.npy")


@pytest.mark.parametrize(
    "sources", ["3", '["a"]', '[{"name": 1, "n_bad": 2, "n_new": 3}]', "[" * 9999, '[{"x": 1}]']
)
def test_odd_notes_of_a_mask_are_refused(tmp_path, sources):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["/bad_pixels"] = np.zeros((3, 4), "u1")
        file["/bad_pixels"].attrs["sources"] = sources
    with pytest.raises(RunError, match=r"m\.h5"):
        read_mask(tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_fs = 7", "max_fs = 1e400"), ("min_fs = 0", "min_fs = nan"), ("max_fs = 7", "max_fs = 99999999999999"),
        ("m0/min_fs = 0", "mask_edge_pixels = 1e400\nm0/min_fs = 0"), ("res = ", "res = 0 "), ("clen = ", "clen = inf "),
    ],
)  # fmt: skip
def test_numbers_out_of_all_range_in_a_geometry_are_one_error(old, new):
    text = slab_geometry().text
    assert old in text
    with pytest.raises(GeometryError):
        parse_geometry(text.replace(old, new))


@pytest.mark.parametrize(
    "metadata", [{b"\xff": b"\xfe"}, {b"pandas": b"{"}, {b"pandas": b"[]"}, {b"pandas": b'{"columns": 3}'}]
)
def test_a_table_of_another_program_is_refused_in_one_line(tmp_path, metadata):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"frame": [1]}).replace_schema_metadata(metadata), path)
    assert isinstance(read_table_metadata(path), dict)
    with pytest.raises(TableError):
        read_table(path, PEAKS)


@pytest.mark.parametrize("shape", [(4, 18, 8), (1, 18, 8), (17, 8), (2, 18, 8), (18, 7)])
def test_a_mask_of_another_shape_is_refused_with_both_shapes(tmp_path, shape):
    np.save(tmp_path / "m.npy", np.zeros(shape, "u1"))
    with pytest.raises(RunError, match=r"the mask does not fit.*\(3, 6, 8\), found"):
        read_mask(tmp_path / "m.npy", slab_geometry())


def test_an_output_that_has_no_such_sign_is_told_in_another_way(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", shown)
    tell("0.1 Å⁻¹ of run 7")
    shown.flush()
    assert shown.buffer.getvalue() == b"0.1 \\xc5\\u207b\\xb9 of run 7\n"
