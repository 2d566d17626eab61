"""Why a run doesn't index, in words."""

import json
from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import DATA, JSON
from peaknet_pipeline.commands.tell import tell, tell_json


@command()
@click.argument("key")
@DATA
@JSON
def diagnose(key: str, data: Path, as_json: bool) -> None:
    """Say why the hits of run KEY don't index, the most likely cause first, each with the number that says so.

    Needs the run's classical peaks and lattices; exit status 0 also when something is wrong.
    """
    from peaknet_pipeline.stages.diagnosis import diagnosis
    from peaknet_pipeline.store.layout import Store
    from peaknet_pipeline.store.paths import diagnosis_text_path

    store = Store(data.resolve())
    text = str(diagnosis(store, key).figures["diagnosis"])
    if as_json:
        tell_json(json.loads(diagnosis_text_path(store, key).read_text(encoding="utf-8")))
        return
    tell(text)
