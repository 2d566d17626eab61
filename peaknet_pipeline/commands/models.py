"""The registered networks: the list, another champion, the way back."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.options import DATA, JSON, figures
from peaknet_pipeline.commands.tell import tell, tell_json


@click.group(invoke_without_command=True)
@DATA
@JSON
@click.pass_context
def models(context: click.Context, data: Path, as_json: bool) -> None:
    """List the networks of a data root: version, age, yield on the validation runs, F1; '*' marks the champion."""
    from peaknet_pipeline.learn.registry import describe_models
    from peaknet_pipeline.store.layout import Store
    from peaknet_pipeline.store.models import format_models

    store = Store(data)
    context.obj = store
    if context.invoked_subcommand is not None:
        return
    entries = describe_models(store.models)
    if as_json:
        tell_json([dataclasses.asdict(entry) for entry in entries])
    else:
        tell(format_models(entries))


@models.command()
@click.argument("version")
@figures
@click.pass_obj
def use(store: Any, version: str) -> dict[str, Any]:
    """Make VERSION the champion, whatever the comparison said."""
    from peaknet_pipeline.store.models import use_model

    return use_model(store, version)


@models.command()
@figures
@click.pass_obj
def rollback(store: Any) -> dict[str, Any]:
    """Make the champion before the present one the champion again."""
    from peaknet_pipeline.store.models import roll_back_champion

    return roll_back_champion(store)
