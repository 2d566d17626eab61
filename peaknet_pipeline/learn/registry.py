"""The models folder: versions side by side, one champion, a rule for challengers, a way back.

A version is a folder ``<stem>-v0001`` that never changes once it is written. Its yield, measured later and again, lies in
``evaluation.json`` beside the weights, so that measuring a model doesn't make what it found stale.
"""

import filecmp
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from peaknet_pipeline.atomic import remove_all_leftovers, replace_folder_atomically
from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.checkpoint import (
    CARD_FILE,
    CONFIG_FILE,
    SHIPPED_FOLDER,
    WEIGHTS_FILE,
    read_card,
    read_checkpoint,
    shipped_models,
    write_checkpoint,
)
from peaknet_pipeline.learn.evaluation import Evaluation, read_evaluation
from peaknet_pipeline.records import read_json
from peaknet_pipeline.tables import write_json

POINTER_FILE = "champion.json"


def list_models(models: Path) -> list[str]:
    """Return the names of the models in a folder, oldest version first."""
    names = [
        path.parent.name for path in models.glob(f"*/{CONFIG_FILE}") if not path.parent.name.startswith(".")
    ]
    return sorted(names, key=_by_version)


def register(models: Path, stem: str, write: Callable[[Path, str], object]) -> Path:
    """Give ``write`` a folder to fill and the next version's name, ``<stem>-v0001`` and so on; return the version's folder.

    The number is claimed by making the version's folder, so that two trainings at once get two versions. It stays empty,
    and no version of the list, until everything is written. When ``write`` fails, it is given back; what a killed training
    left beside it or in an older version is removed by the next one.
    """
    models.mkdir(parents=True, exist_ok=True)
    for place in (models, *_versions(models, stem)):
        remove_all_leftovers(place)
    folder = _claim(models, stem)
    try:
        with replace_folder_atomically(folder) as temporary:
            write(temporary, folder.name)
    except BaseException:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    return folder


def register_shipped(models: Path, name: str | None = None) -> Path:
    """Register the network that comes with the package unless its very weights are registered; return its folder.

    Raises
    ------
    ModelError
        The package holds no network of that name.

    """
    names = shipped_models()
    stem = name or (names[0] if names else "")
    if stem not in names:
        raise ModelError("no such shipped network", where=SHIPPED_FOLDER, expected=f"one of {names}")
    source = SHIPPED_FOLDER / stem
    for known in (models / name for name in list_models(models)):
        if known in _versions(models, stem) and _same_weights(known, source):
            return known
    loaded = read_checkpoint(source)

    def write(folder: Path, version: str) -> None:
        card = replace(loaded.card, name=version)
        write_checkpoint(folder, loaded.model, card=card, normalisation=loaded.normalisation)

    return register(models, stem, write)


def _same_weights(a: Path, b: Path) -> bool:
    return filecmp.cmp(a / WEIGHTS_FILE, b / WEIGHTS_FILE, shallow=False)


def _claim(models: Path, stem: str) -> Path:
    number = max((int(path.name.rpartition("-v")[2]) for path in _versions(models, stem)), default=0) + 1
    while True:
        folder = models / f"{stem}-v{number:04d}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def _versions(models: Path, stem: str) -> list[Path]:
    pattern = re.compile(rf"{re.escape(stem)}-v\d+")
    return [path for path in sorted(models.glob(f"{stem}-v*")) if pattern.fullmatch(path.name)]


def model_folder(models: Path, name: str) -> Path:
    """Return a registered model's folder.

    Raises
    ------
    ModelError
        No such model.

    """
    known = list_models(models)
    if name not in known:
        raise ModelError(
            "no such model", where=models / name, expected=f"one of {', '.join(known) or 'none yet'}"
        )
    return models / name


def champion(models: Path) -> Path | None:
    """Return the champion's folder, None before the first promotion.

    Raises
    ------
    ModelError
        The pointer is damaged or names a model that is gone.

    """
    history = champions(models)
    if not history:
        return None
    folder = models / history[-1]
    if history[-1] not in list_models(models):
        raise ModelError(
            "the champion's folder is gone", where=folder, remedy="Roll back, or promote another model."
        )
    return folder


def promote(models: Path, name: str) -> Path:
    """Make a model the champion, atomically; return its folder. Promoting the champion again changes nothing.

    Raises
    ------
    ModelError
        No such model, or one that cannot be loaded.

    """
    folder = model_folder(models, name)
    read_checkpoint(folder)
    history = champions(models)
    if not history or history[-1] != name:
        write_json(models / POINTER_FILE, {"history": [*history, name]})
    return folder


def roll_back(models: Path) -> Path:
    """Make the champion before the present one the champion again; return its folder.

    Raises
    ------
    ModelError
        There was no other champion before.

    """
    history = champions(models)
    if len(history) < 2:
        raise ModelError(
            "no earlier champion to go back to", where=models / POINTER_FILE, found=f"history {history}"
        )
    folder = model_folder(models, history[-2])
    read_checkpoint(folder)
    write_json(models / POINTER_FILE, {"history": history[:-1]})
    return folder


@dataclass(frozen=True)
class ModelEntry:
    """One line of the models' list; ``problem`` says what is wrong with a model that cannot be used."""

    name: str
    made: str = ""
    threshold: float | None = None
    f1: float | None = None
    evaluation: Evaluation | None = None
    parent: str = ""
    code_version: str = ""
    is_champion: bool = False
    problem: str = ""


def describe_models(models: Path) -> list[ModelEntry]:
    """Describe every registered model, oldest version of each stem first; a damaged one is named with what is wrong.

    Where the champion's pointer is damaged, its line comes last and no model is the champion.
    """
    try:
        history, pointer = champions(models), []
    except ModelError as error:
        history, pointer = [], [ModelEntry(POINTER_FILE, problem=str(error))]
    present = history[-1] if history else ""
    return [_describe(models / name, present=present) for name in list_models(models)] + pointer


def _describe(folder: Path, *, present: str) -> ModelEntry:
    try:
        return _read_entry(folder, present=present)
    except ModelError as error:
        return ModelEntry(folder.name, is_champion=folder.name == present, problem=str(error))


def _read_entry(folder: Path, *, present: str) -> ModelEntry:
    card = read_card(folder)
    f1 = card.scores.get("f1")
    if not isinstance(f1, int | float | None):
        raise ModelError("the score f1 is no number", where=folder / CARD_FILE, found=repr(f1))
    return ModelEntry(
        name=folder.name,
        made=card.made,
        threshold=card.threshold,
        f1=f1,
        evaluation=read_evaluation(folder),
        parent=card.teacher,
        code_version=card.code_version,
        is_champion=folder.name == present,
    )


def _by_version(name: str) -> tuple[str, int, str]:
    found = re.fullmatch(r"(.*)-v(\d+)", name)
    return (found[1], int(found[2]), name) if found else (name, -1, name)


def champions(models: Path) -> list[str]:
    """Return the names of all champions, the first one first and the present one last.

    Raises
    ------
    ModelError
        The pointer is damaged.

    """
    path = models / POINTER_FILE
    if not path.exists():
        return []
    remedy = "This is the champion pointer: delete it and choose a model with `peaknet models use`."
    history = read_json(path, error=ModelError, remedy=remedy).get("history")
    if not isinstance(history, list) or not all(isinstance(name, str) for name in history):
        raise ModelError("not a champion pointer", where=path, found=history)
    return history
