"""Write ``docs/reference.md`` from the declarations: ``python -m peaknet_pipeline.reference``; never edit the page itself."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click

import peaknet_pipeline
from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.cli import SECTIONS
from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.peaks.classical import CLASSICAL
from peaknet_pipeline.schemas import SCHEMAS

PAGE = Path(__file__).parent / "docs" / "reference.md"
COMMAND = "python -m peaknet_pipeline.reference"
PLACES = {
    **{
        finder.parameters.__name__: (
            f"`{finder.section}` in experiment.yaml; `peaknet find --finder {finder.name} --set`, `stream`, `process`"
        )
        for finder in CLASSICAL.values()
    },
    "ScanStageParams": "`scan` in experiment.yaml; `peaknet scan --set`",
    "IndexParams": "`index` in experiment.yaml; `peaknet index --set`; `peaknet process --set index.NAME=VALUE`",
    "RunSecondLookParams": "`second_look` in experiment.yaml; `peaknet index --set second_look.NAME=VALUE`",
    "BlindParams": "`cell_search` in experiment.yaml; `peaknet cell --set`",
    "GeometrySearchParams": "`refine_geometry` in experiment.yaml; `peaknet refine-geometry --set`",
    "IndexamajigParams": "`peaknet index --engine indexamajig --set`",
    "PredictParams": "`prediction` in experiment.yaml; `peaknet index --set prediction.NAME=VALUE`",
    "IntegrateParams": "`integration` in experiment.yaml; `peaknet index --set integration.NAME=VALUE`",
    "RunMergeParams": "`merge` in experiment.yaml",
    "MergeParams": "`peaknet merge --set`",
    "MatchParams": "`match` in experiment.yaml",
    "FitParams": "`fit` in experiment.yaml",
    "RasterParams": "`labels` in experiment.yaml",
    "CellCheckParams": "`cell_check` in experiment.yaml",
    "MetricParams": "`metrics` in experiment.yaml",
    "BadPixelParams": "`bad_pixels` in experiment.yaml",
    "DiagnosisParams": "`diagnosis` in experiment.yaml",
    "CalibrationParams": "`calibration` in experiment.yaml, beside `calibration_file`",
    "TrainingSetParams": "`training_set` in pipeline.yaml",
    "CurationParams": "`curation` in experiment.yaml",
    "ChampionParams": "`champion` in pipeline.yaml",
    "TeacherParams": "`teacher` in pipeline.yaml",
    "StudentParams": "`student` in pipeline.yaml",
    "SensorParams": "`sensor` in pipeline.yaml",
    "SlurmParams": "`slurm` in pipeline.yaml",
    "RunInferenceParams": "`inference` in pipeline.yaml",
    "InferenceParams": "`peaknet find --finder peaknet --set`, and with `process`",
    "LiveParams": "`peaknet stream --set`",
    "DetectionParams": "`peaknet stream --finder peaknet --set`, beside those of the stream",
    "GroupRule": "each group of `groups` in experiment.yaml",
    "ReduceParams": "`peaknet reduce --set`",
    "MaskParams": "`mask` in experiment.yaml; `peaknet mask --set`",
}
"""Where a user sets a parameter set; the others are for callers in Python."""


def reference_text() -> str:
    """Return the page: every command and option, asset, parameter and table column, as declared."""
    parts = [
        "# Reference",
        f"Written by `{COMMAND}` from the declarations in the code; a test fails when it is not up to date.",
        "[Commands](#commands) · [Assets](#assets) · [Parameters](#parameters) · [Tables](#tables)",
        *_commands(),
        *_assets(),
        *_parameters(),
        *_tables(),
    ]
    return "\n\n".join(parts) + "\n"


def parameter_classes() -> list[type[Parameters]]:
    """Return every parameter set of the package, by name; those that a user sets in a file or command come first."""
    for module in pkgutil.walk_packages(peaknet_pipeline.__path__, "peaknet_pipeline."):
        if not module.name.endswith(("__main__", "definitions", "reference", "_triton")):
            importlib.import_module(module.name)
    found = {
        c
        for c in _subclasses(Parameters)
        if c.__module__.startswith("peaknet_pipeline.") and dataclasses.fields(c)
    }
    order = list(PLACES)
    return sorted(
        found,
        key=lambda c: (
            order.index(c.__name__) if c.__name__ in PLACES else len(order),
            c.__name__,
            c.__module__,
        ),
    )


def _subclasses(cls: type[Parameters]) -> Iterator[type[Parameters]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _commands() -> Iterator[str]:
    yield "## Commands"
    for heading, commands in SECTIONS.items():
        yield f"### {heading}"
        for command in commands:
            yield from _command(command)


def _command(command: click.Command, group: str = "peaknet") -> Iterator[str]:
    arguments = [
        p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)
    ]
    name = f"{group} {command.name}"
    yield f"**`{' '.join([name, *arguments])}`** {' '.join((command.help or '').split())}"
    rows = [
        (", ".join(f"`{name}`" for name in p.opts), _default(p.default), _cell(p.help or ""))
        for p in command.params
        if isinstance(p, click.Option)
    ]
    if rows:
        yield _table(("option", "default", "meaning"), rows)
    if isinstance(command, click.Group):
        for sub in command.commands.values():
            yield from _command(sub, name)


def _default(value: Any) -> str:
    if value is None or value == () or type(value).__name__ == "Sentinel" or callable(value):
        return ""
    return f"`{value}`"


def _assets() -> Iterator[str]:
    yield "## Assets"
    rows = [
        (
            f"`{spec.name}`",
            "run" if spec.per_run else "all runs",
            ", ".join(f"`{name}`" for name in spec.deps),
            ", ".join(f"[{name}](#{name})" for name in spec.tables),
            ", ".join(f"**{name}**" if name in spec.blocking else name for name in spec.checks),
            _cell(spec.run.__doc__ or ""),
        )
        for spec in CHAIN
    ]
    yield _table(("asset", "per", "from", "tables", "checks (bold: blocks what follows)", "what"), rows)


def _parameters() -> Iterator[str]:
    yield "## Parameters"
    for cls in parameter_classes():
        yield f"### {cls.__name__}"
        place = PLACES.get(cls.__name__, f"Python: `{cls.__module__}`")
        yield f"{' '.join((cls.__doc__ or '').split())} Set: {place}."
        hints = get_type_hints(cls)
        rows = [
            (
                f"`{item.name}`", _type(hints[item.name]), f"`{item.default}`", item.metadata.get("unit", ""),
                _range(item.metadata), _cell(item.metadata.get("meaning", "")),
            )
            for item in dataclasses.fields(cls)
        ]  # fmt: skip
        yield _table(("name", "type", "default", "unit", "allowed", "meaning"), rows)


def _type(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"list of {_type(get_args(hint)[0])}"
    arms = [arm for arm in get_args(hint) if arm is not type(None)]
    return f"{_type(arms[0])} or none" if arms else str(getattr(hint, "__name__", hint))


def _range(metadata: Any) -> str:
    if metadata.get("choices"):
        return ", ".join(map(str, metadata["choices"]))
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"))
    return ", ".join(f"{sign} {metadata[key]:g}" for key, sign in signs if metadata.get(key) is not None)


def _tables() -> Iterator[str]:
    yield "## Tables"
    for schema in sorted(SCHEMAS.values(), key=lambda schema: schema.name):
        yield f"### {schema.name}"
        yield f"{schema.meaning}."
        rows = [
            (f"`{c.name}`", c.dtype, c.unit, "yes" if c.nullable else "", _cell(c.meaning))
            for c in schema.columns
        ]
        yield _table(("column", "type", "unit", "may be NaN", "meaning"), rows)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    write_file(PAGE, reference_text())


if __name__ == "__main__":
    main()
