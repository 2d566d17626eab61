"""The models folder: versions side by side, one champion, a rule for challengers, a way back."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.checkpoint import CONFIG_FILE
from peaknet_pipeline.tables import write_json

POINTER_FILE = "champion.json"


@dataclass(frozen=True)
class YieldCount:
    """Frames indexed of frames processed, over the validation runs."""

    indexed: int
    frames: int

    @property
    def value(self) -> float:
        """Indexing yield: frames indexed / frames processed; 0 without frames."""
        return self.indexed / self.frames if self.frames else 0.0


@dataclass(frozen=True)
class Decision:
    """Whether a challenger may become the champion, and why."""

    accepted: bool
    reason: str


def judge_challenger(challenger: YieldCount, champion: YieldCount | None) -> Decision:
    """Accept a challenger whose indexing yield on the validation runs is no worse than the champion's.

    Both must have been measured on equally many frames; without a champion, any measured challenger is
    accepted.
    """
    if challenger.frames == 0:
        return Decision(False, "the challenger was measured on no frames")
    told = f"challenger {challenger.indexed}/{challenger.frames} = {challenger.value:.3f}"
    if champion is None:
        return Decision(True, f"{told}; no champion yet")
    told += f", champion {champion.indexed}/{champion.frames} = {champion.value:.3f}"
    if challenger.frames != champion.frames:
        return Decision(False, f"{told}: measured on different frames")
    accepted = challenger.indexed >= champion.indexed
    return Decision(accepted, f"{told}: {'no worse' if accepted else 'worse'}")


def list_models(models: Path) -> list[str]:
    """Return the names of the models in a folder, oldest version first."""
    names = [
        path.parent.name for path in models.glob(f"*/{CONFIG_FILE}") if not path.parent.name.startswith(".")
    ]
    return sorted(names, key=_by_version)


def next_version(models: Path, stem: str) -> Path:
    """Return the folder for the next version of a model: ``<stem>-v0001`` and so on."""
    taken = [
        int(n.removeprefix(f"{stem}-v"))
        for n in list_models(models)
        if re.fullmatch(rf"{re.escape(stem)}-v\d+", n)
    ]
    return models / f"{stem}-v{max(taken, default=0) + 1:04d}"


def champion(models: Path) -> Path | None:
    """Return the champion's folder, None before the first promotion.

    Raises
    ------
    ModelError
        The pointer is damaged or names a model that is gone.

    """
    history = _read_history(models)
    if not history:
        return None
    folder = models / history[-1]
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(
            "the champion's folder is gone", where=folder, remedy="Roll back, or promote another model."
        )
    return folder


def promote(models: Path, name: str) -> Path:
    """Make a model the champion, atomically; return its folder. Promoting the champion again changes nothing.

    Raises
    ------
    ModelError
        No such model.

    """
    if name not in list_models(models):
        raise ModelError("no such model", where=models / name, expected=f"one of {list_models(models)}")
    history = _read_history(models)
    if not history or history[-1] != name:
        write_json(models / POINTER_FILE, {"history": [*history, name]})
    return models / name


def roll_back(models: Path) -> Path:
    """Make the champion before the present one the champion again; return its folder.

    Raises
    ------
    ModelError
        There was no other champion before.

    """
    history = _read_history(models)
    if len(history) < 2:
        raise ModelError(
            "no earlier champion to go back to", where=models / POINTER_FILE, found=f"history {history}"
        )
    write_json(models / POINTER_FILE, {"history": history[:-1]})
    return models / history[-2]


def _by_version(name: str) -> tuple[str, int, str]:
    found = re.fullmatch(r"(.*)-v(\d+)", name)
    return (found[1], int(found[2]), name) if found else (name, -1, name)


def _read_history(models: Path) -> list[str]:
    path = models / POINTER_FILE
    if not path.exists():
        return []
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        history = value["history"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"not a readable champion pointer ({error})", where=path) from error
    if not isinstance(history, list) or not all(isinstance(name, str) for name in history):
        raise ModelError("not a champion pointer", where=path, found=history)
    return history
