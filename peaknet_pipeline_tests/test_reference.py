"""The reference page is what the declarations say, whole."""

import dataclasses

import pytest

from peaknet_pipeline.cli import peaknet
from peaknet_pipeline.hits import HitParams
from peaknet_pipeline.infer.params import DecodeParams, EngineParams, OutputParams
from peaknet_pipeline.metrics import MetricParams
from peaknet_pipeline.reference import COMMAND, PAGE, PLACES, parameter_classes, reference_text
from peaknet_pipeline.schemas import SCHEMAS
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.steps.peak_causes import DiagnosisParams
from peaknet_pipeline.store.sections import SECTIONS as EXPERIMENT_SECTIONS
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


def test_a_parameter_that_several_sets_have_is_declared_once():
    owners = {}
    for cls in parameter_classes():
        own = [item for item in dataclasses.fields(cls) if item.name in vars(cls).get("__annotations__", {})]
        for item in (item for item in own if "owner" not in item.metadata):
            owners.setdefault((item.name, item.metadata["meaning"]), set()).add(cls.__name__)
    assert not {declaration: sets for declaration, sets in owners.items() if len(sets) > 1}


@pytest.mark.parametrize("cls", [MetricParams, OutputParams, InferenceParams, DiagnosisParams])
def test_hits_are_the_same_wherever_they_are_counted(cls):
    assert issubclass(cls, HitParams)
    assert cls().min_peaks == HitParams().min_peaks


def test_the_network_finds_alike_in_a_notebook_and_in_a_command():
    decode, engine = InferenceParams().parts()
    assert (decode, engine) == (DecodeParams(), EngineParams())
