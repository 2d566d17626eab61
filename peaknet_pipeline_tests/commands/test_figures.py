"""Figures as a person reads them."""

from peaknet_pipeline.commands.options import figure_lines


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
