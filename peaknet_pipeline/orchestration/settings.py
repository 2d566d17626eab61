"""Dagster configuration made from the parameter declarations of the domain."""

import dataclasses
from typing import Any, get_type_hints

import dagster as dg
from pydantic import Field, create_model

from peaknet_pipeline.params import Parameters


def config_of(cls: type[Parameters]) -> type[dg.Config]:
    """Return a Dagster config with one optional field per parameter; an unset one keeps the configured value."""
    hints = get_type_hints(cls)
    fields: dict[str, Any] = {
        item.name: (_optional(hints[item.name]), Field(default=None, description=_describe(item)))
        for item in dataclasses.fields(cls)
    }
    return create_model(f"{cls.__name__}Config", __base__=dg.Config, **fields)


def given(config: dg.Config) -> dict[str, Any]:
    """Return the values that a user set."""
    return {name: value for name, value in config.model_dump().items() if value is not None}


def _describe(item: "dataclasses.Field[Any]") -> str:
    unit = f" [{item.metadata.get('unit')}]" if item.metadata.get("unit") else ""
    return f"{item.metadata.get('meaning', item.name)}{unit}; declared default {item.default}"


def _optional(hint: Any) -> Any:
    origin = getattr(hint, "__origin__", None)
    if origin is tuple:
        return list[hint.__args__[0]] | None
    return hint | None
