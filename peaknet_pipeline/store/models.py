"""Which registered model is whose: the newest of each role, the champion, and the one that inference uses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.checkpoint import CARD_FILE, read_card
from peaknet_pipeline.learn.registry import (
    POINTER_FILE,
    ModelEntry,
    champion,
    model_folder,
    promote,
    register_shipped,
    roll_back,
)
from peaknet_pipeline.records import read_json
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.tables import write_json


def newest_path(store: Store, role: str) -> Path:
    """Return the file that names the newest model of a role, teacher or student."""
    return store.file(f"peaknet_{role}", "all", ".json")


def write_newest(store: Store, role: str, folder: Path) -> None:
    """Record a registered model as the newest of its role."""
    record = {"model": folder.name, "weights": read_card(folder).weights}
    write_json(newest_path(store, role), record)


def newest_model(store: Store, role: str) -> Path:
    """Return the folder of the newest model of a role.

    Raises
    ------
    ModelError
        None was trained yet, or the record is damaged.

    """
    path = newest_path(store, role)
    if not path.is_file():
        raise ModelError(
            f"no {role} was trained yet", where=path, remedy=f"Materialize peaknet_{role} first."
        )
    name = read_json(path, error=ModelError).get("model")
    if not isinstance(name, str):
        raise ModelError("not a model record", where=path, expected="the name of a model", found=name)
    return model_folder(store.models, name)


def present_champion(store: Store) -> Path:
    """Return the champion's folder; before the first comparison it is the network that comes with the package."""
    return champion(store.models) or promote(store.models, register_shipped(store.models).name)


def inference_model(store: Store, name: str = "") -> Path:
    """Return the folder of the model to find peaks with: the named version, else the champion."""
    return model_folder(store.models, name) if name else present_champion(store)


def model_inputs(store: Store, folder: Path, *, named: bool) -> list[Path]:
    """Return the files whose change makes what the model found stale; unless it was named, the champion's pointer too."""
    card = folder / CARD_FILE
    return [card] if named else [store.models / POINTER_FILE, card]


def use_model(store: Store, name: str) -> dict[str, Any]:
    """Make a registered model the champion; return what a command tells."""
    before = champion(store.models)
    return _told(promote(store.models, name), before)


def roll_back_champion(store: Store) -> dict[str, Any]:
    """Make the earlier champion the champion again; return what a command tells."""
    before = champion(store.models)
    return _told(roll_back(store.models), before)


def _told(now: Path, before: Path | None) -> dict[str, Any]:
    return {
        "champion": now.name,
        "before": before.name if before else "none",
        "next": "runs inferred with another model keep it in their tables until infer_run is backfilled over them",
    }


def format_models(entries: Sequence[ModelEntry]) -> str:
    """Return the models as a table for a terminal."""
    heads = ("", "version", "made", "yield on the validation runs", "F1", "threshold", "teacher", "code")
    rows = [heads, *(_format_entry(entry) for entry in entries)]
    widths = [max(len(row[i]) for row in rows if any(row[4:])) for i in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return (
        "\n".join(lines) if entries else "no models yet: run the job improve_model, or materialize champion"
    )


def _format_entry(entry: ModelEntry) -> tuple[str, ...]:
    if entry.problem:
        return (
            "*" if entry.is_champion else "",
            entry.name,
            "",
            f"cannot be used: {entry.problem}",
            "",
            "",
            "",
            "",
        )
    counts = "not measured"
    if entry.evaluation is not None:
        count = entry.evaluation.count
        counts = f"{count.indexed}/{count.frames} = {count.value:.1%} of {', '.join(entry.evaluation.runs)}"
    return (
        "*" if entry.is_champion else "",
        entry.name,
        entry.made or "with the package",
        counts,
        f"{entry.f1:.3f}" if entry.f1 is not None else "–",
        f"{entry.threshold:.2f}" if entry.threshold is not None else "–",
        entry.parent or "–",
        entry.code_version,
    )
