"""JSON and YAML of others: read as declared, or refused in one line that says where."""

import json
from dataclasses import dataclass

import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.records import make_record, parse_json, read_json
from peaknet_pipeline.text_files import read_text
from peaknet_pipeline.yaml_files import read_yaml


@dataclass(frozen=True)
class Card:
    name: str
    threshold: float = 0.5
    step: int = 0
    runs: tuple[str, ...] = ()
    note: str | None = None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe{}", b'{"a": ' + b"[" * 100_000, b"7" * 5000, b'"\xed\xa0\x80"', b"NaN"],
)
def test_what_holds_no_json_object_is_one_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"card\.json: not (a|readable) JSON") as caught:
        read_json(path, error=RunError)
    assert "\n" not in str(caught.value)


def test_a_folder_a_missing_and_an_enormous_file_are_refused(tmp_path):
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate(2**30)
    for path in (tmp_path, tmp_path / "none.json", large):
        with pytest.raises(RunError, match="not readable JSON"):
            read_json(path, error=RunError)
    with pytest.raises(RunError, match="too large for a list"):
        read_text(large, kind="list", error=RunError, max_bytes=1000)


@pytest.mark.parametrize(
    "content",
    [
        b"a: [1, 2", b"\xff", b"a: 2001-99-99", b"- 1", b"1: 2", b"a: &x [1]\nb: *x", b"? [a]\n: 1", b"{" * 3000,
        b"a: !!python/object/apply:os.system [ls]", b"a: 1\n---\nb: 2", b"[" * 50_000, b"a: !!binary x", b"a:\tb:\tc",
    ],
)  # fmt: skip
def test_what_is_no_plain_yaml_mapping_is_one_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "experiment.yaml"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"experiment\.yaml: ") as caught:
        read_yaml(path, error=RunError)
    assert "\n" not in str(caught.value)


def test_yaml_with_a_byte_order_mark_or_nothing_is_read(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_bytes("\ufeffcell: lyso.cell\n".encode())
    assert read_yaml(path, error=RunError) == {"cell": "lyso.cell"}
    path.write_bytes(b"# nothing yet\n")
    assert read_yaml(path, error=RunError) == {}


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({}, "field name is missing"),
        ({"name": 7}, "field name has the wrong type, expected str, found 7"),
        ({"name": "a", "threshold": "abc"}, "field threshold"),
        ({"name": "a", "threshold": None}, "field threshold"),
        ({"name": "a", "threshold": 10**400}, "field threshold"),
        ({"name": "a", "step": True}, "field step"),
        ({"name": "a", "step": 1.5}, "field step"),
        ({"name": "a", "runs": "r1"}, "field runs"),
        ({"name": "a", "runs": [1]}, "field runs"),
        ({"name": "a", "colour": 1}, "unknown field"),
    ],
)
def test_a_field_of_another_type_is_named(values, match):
    with pytest.raises(RunError, match=match):
        make_record(Card, values, where="card.json", error=RunError)


def test_values_as_json_gives_them_become_the_declared_record():
    values = parse_json(
        '{"name": "a", "threshold": 1, "runs": ["r1"], "note": null}', where="x", error=RunError
    )
    assert make_record(Card, values, where="x", error=RunError) == Card("a", 1.0, 0, ("r1",), None)
    assert json.loads("1e400") == float("inf")
