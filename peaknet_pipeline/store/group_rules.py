"""The section ``groups`` of ``experiment.yaml``: names of groups, each with its rule."""

import re
from collections.abc import Iterator, Mapping

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.runs.frame_groups import MAX_NAME, GroupRule
from peaknet_pipeline.store.settings_text import SettingsText

GROUPS = "groups"

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9 ._+-]{{0,{MAX_NAME - 1}}}")


def group_rules(text: SettingsText) -> Mapping[str, GroupRule]:
    """Return the rules of settings that were found right."""
    return {str(name): GroupRule.from_mapping(rule) for name, rule in text.section(GROUPS).items()}


def group_problems(text: SettingsText) -> Iterator[ParameterError]:
    """Yield an error for everything that is wrong with the groups, each with its line."""
    try:
        section = text.section(GROUPS)
    except ParameterError as error:
        yield error
        return
    for name, rule in section.items():
        if not _NAME.fullmatch(str(name)):
            yield ParameterError(
                "not a group's name",
                where=text.where(GROUPS, name),
                expected="letters, digits, space and . _ + -",
                found=repr(name),
            )
        elif not isinstance(rule, dict):
            yield ParameterError(
                f"group {name} is not a rule",
                where=text.where(GROUPS, name),
                expected="such as {every: 5, at: [4]} or {data_set: /evr/laser, equals: 1}",
                found=repr(rule),
            )
        else:
            yield from text.mapping_problems((GROUPS, str(name)), rule, GroupRule)
