"""Why a run doesn't index, in words."""

import json
from pathlib import Path

import click

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import DATA, JSON, PATH
from peaknet_pipeline.commands.tell import tell, tell_json
from peaknet_pipeline.errors import ParameterError


@command()
@click.argument("key", type=PATH)
@DATA
@click.option("--geometry", type=PATH, help="CrystFEL geometry, where KEY is a peak table.")
@click.option("--cell", type=PATH, help="Target unit cell, where KEY is a peak table.")
@click.option("--lattices", type=PATH, help="Lattice table of the peak table; it is indexed without one.")
@JSON
def diagnose(
    key: Path, data: Path, geometry: Path | None, cell: Path | None, lattices: Path | None, as_json: bool
) -> None:
    """Say why the hits of run KEY don't index, the most likely cause first, each with the number that says so.

    KEY is a run of the data root, or a peak table (.parquet) with --geometry and --cell: then only what its peaks tell is
    told, frames are not looked at. Exit status 0 also when something is wrong.
    """
    if key.suffix == ".parquet":
        from peaknet_pipeline.steps.reasons import diagnose_command

        if geometry is None or cell is None:
            raise ParameterError(
                "a peak table needs its geometry and the cell",
                where=key,
                remedy=f"Type `peaknet diagnose {key} --geometry G.geom --cell C.cell`.",
            )
        lines = diagnose_command(key, lattices, geometry=geometry, cell=cell)
        tell_json({"peaks": str(key), "text": lines}) if as_json else tell("\n".join(lines))
        return
    from peaknet_pipeline.stages.diagnosis import diagnosis
    from peaknet_pipeline.store.layout import Store
    from peaknet_pipeline.store.paths import diagnosis_text_path

    store = Store(data.resolve())
    text = str(diagnosis(store, str(key)).figures["diagnosis"])
    if as_json:
        tell_json(json.loads(diagnosis_text_path(store, str(key)).read_text(encoding="utf-8")))
        return
    tell(text)
