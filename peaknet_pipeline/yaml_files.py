"""YAML written by hand, read with a bound and as plain types, or refused in one line."""

from pathlib import Path
from typing import Any

import yaml

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.records import UNREADABLE, describe, read_bounded

MAX_YAML_BYTES = 2**20


def read_yaml(path: Path, *, error: type[PeaknetError]) -> dict[str, Any]:
    """Read a YAML file of names and values; empty where it holds nothing.

    Aliases (``*name``) are refused: nine lines of them can stand for a billion values.
    """
    try:
        text = read_bounded(path, MAX_YAML_BYTES)
        values = _PlainLoader(text).get_single_data()
    except (yaml.YAMLError, *UNREADABLE, LookupError, TypeError, AttributeError) as why:
        raise error(f"not readable as YAML ({describe(why)})", where=path) from why
    if values is not None and not isinstance(values, dict):
        raise error("not a mapping", where=path, expected="NAME: VALUE lines", found=type(values).__name__)
    strange = [name for name in values or {} if not isinstance(name, str)]
    if strange:
        raise error("a name that is no text", where=path, expected="NAME: VALUE lines", found=strange[0])
    return dict(values or {})


class _PlainLoader(yaml.SafeLoader):
    """YAML's plain types, without aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"alias *{event.anchor}: write the value out instead")
        return super().compose_node(parent, index)
