"""The reference page is what the declarations say, whole."""

from peaknet_pipeline.cli import peaknet
from peaknet_pipeline.reference import COMMAND, PAGE, PLACES, parameter_classes, reference_text
from peaknet_pipeline.schemas import SCHEMAS
from peaknet_pipeline.store.experiment import SECTIONS as EXPERIMENT_SECTIONS
from peaknet_pipeline.store.settings import SECTIONS as PIPELINE_SECTIONS


def test_the_reference_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference_text(), f"run: {COMMAND}"


def test_every_command_column_and_section_is_in_the_reference():
    text = reference_text()
    for name, command in peaknet.commands.items():
        assert f"**`peaknet {name}" in text
        assert all(
            f"`{option.opts[0]}`" in text for option in command.params if option.param_type_name == "option"
        )
    for schema in SCHEMAS.values():
        assert all(f"| `{column.name}` | {column.dtype} |" in text for column in schema.columns)
    for section in (*EXPERIMENT_SECTIONS, *PIPELINE_SECTIONS):
        assert f"`{section}` in " in text, section


def test_every_place_names_a_parameter_set_that_exists():
    assert set(PLACES) <= {cls.__name__ for cls in parameter_classes()}
