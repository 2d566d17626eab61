"""Figures as a person and as a program read them."""

import json
import math

import numpy as np

from peaknet_pipeline.commands.options import figure_lines
from peaknet_pipeline.commands.tell import tell_json


def test_plain_figures_stand_under_each_other() -> None:
    assert list(figure_lines({"n_hits": 3, "rate": 0.5})) == ["n hits  3", "rate    0.5"]


def test_groups_are_indented_below_their_name() -> None:
    assert list(figure_lines({"4M blank": {"ms": {"exact": 8.0}}})) == ["4M blank", "  ms", "    exact  8.0"]


def test_rows_become_a_table_with_every_column_named_once() -> None:
    rows = [{"gpus": 1, "hz": {"read": 10.0}}, {"gpus": 100, "kept_up": True}]
    assert list(figure_lines({"predictions": rows})) == [
        "predictions",
        "  gpus  hz read  kept up",
        "     1     10.0         ",
        "   100              True",
    ]


def test_an_empty_list_is_a_value() -> None:
    assert list(figure_lines({"problems": []})) == ["problems  []"]


def test_a_person_reads_six_digits_no_signed_zero_and_a_dash_for_no_number() -> None:
    figures = {"share": 0.019594192504882812, "shift": -0.0, "highest": -math.inf, "n": 12345678}
    assert [line.split()[-1] for line in figure_lines(figures)] == ["0.0195942", "0.0", "–", "12345678"]


def test_a_number_that_is_not_finite_is_null_in_json(capsys) -> None:
    tell_json(
        {"rows": [{"highest": -math.inf, "z": np.float32(0.5)}, (math.nan, np.int64(3), True)], "a": None}
    )
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: 1 / 0)
    assert told == {"rows": [{"highest": None, "z": 0.5}, [None, 3, True]], "a": None}
