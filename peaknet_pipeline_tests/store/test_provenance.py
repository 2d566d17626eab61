"""An output passes for current only as it was made, from what it was made from."""

import shutil

import pytest

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.provenance import (
    input_digest,
    make_recipe,
    read_recipe,
    write_recipe,
)
from peaknet_pipeline.store.freshness import is_current
from peaknet_pipeline.store.make_stage import CODE

PEAKS = CODE["classical_peaks"]


@pytest.fixture
def made(tmp_path):
    source, output = tmp_path / "raw.txt", tmp_path / "out.txt"
    source.write_text("raw")
    output.write_text("made")
    recipe = make_recipe("classical_peaks", code=PEAKS, parameters={"snr": 5}, inputs=[source])
    write_recipe(output, recipe, seconds=0.1)
    return source, output


def test_an_output_is_current_until_an_input_or_its_stage_changes(made):
    source, output = made
    assert is_current(output, code=PEAKS)
    assert not is_current(output, code="earlier")
    source.write_text("other")
    assert not is_current(output, code=PEAKS)


def test_an_output_replaced_before_its_recipe_does_not_pass_for_current(made):
    _, output = made
    output.write_text("of a run that was killed before it wrote its recipe")
    assert not is_current(output, code=PEAKS)
    with pytest.raises(TableError, match=r"out\.txt.*interrupted.*Materialize classical_peaks again"):
        input_digest(output)


def test_a_copied_or_touched_output_is_known_by_its_content(made):
    _, output = made
    content = output.read_bytes()
    output.unlink()
    output.write_bytes(content)
    assert is_current(output, code=PEAKS)
    assert input_digest(output) == input_digest(output)


def test_a_data_root_that_is_moved_stays_current_and_is_told_from_its_new_place(made, tmp_path_factory):
    source, output = made
    (source.parent / "store").mkdir()
    deeper = source.parent / "store" / "table.txt"
    deeper.write_text("made of both")
    recipe = make_recipe("labels", code="1", parameters={}, inputs=[source, output])
    write_recipe(deeper, recipe, seconds=0.1)
    moved = tmp_path_factory.mktemp("elsewhere") / "root"
    shutil.move(source.parent, moved)
    copy = moved / "store" / "table.txt"
    assert is_current(copy, code="1")
    assert set(read_recipe(copy)["inputs"]) == {str(moved / "raw.txt"), str(moved / "out.txt")}
    again = make_recipe("labels", code="1", parameters={}, inputs=[moved / "raw.txt", moved / "out.txt"])
    assert again.digest() == recipe.digest()
    (moved / "raw.txt").write_text("other")
    assert not is_current(copy, code="1")


def test_recipes_with_absolute_paths_are_still_read(made):
    source, output = made
    path = output.with_name("out.txt.recipe.json")
    path.write_text(path.read_text().replace('"raw.txt"', f'"{source}"'))
    assert is_current(output, code=PEAKS)
    assert set(read_recipe(output)["inputs"]) == {str(source)}
